package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// openHub is a hub and the file that keeps it.
func openHub(t testing.TB, path string) (*hub.Hub, *Journal) {
	t.Helper()
	j := open(t, path)
	h, err := hub.Open(hub.Options{}, j, j.Saved())
	if err != nil {
		t.Fatal(err)
	}
	j.Keep(h)
	return h, j
}

func knows(t testing.TB, h *hub.Hub) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := h.Records(func(r hub.Record) error { all[r.Kind+" "+r.Key] = string(r.Data); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func fill(t testing.TB, h *hub.Hub, devices, modules int) {
	t.Helper()
	for d := range devices {
		id := fmt.Sprintf("pi-%05d", d)
		if _, err := h.PutDevice(hub.Device{DeviceID: id}, ""); err != nil {
			t.Fatal(err)
		}
		for m := range modules {
			if _, err := h.PutModule(hub.Module{DeviceID: id, ModuleID: fmt.Sprintf("m%d", m)}, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAHubComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.state")
	h, j := openHub(t, path)
	fill(t, h, 3, 2)
	if err := h.DeleteDevice("pi-00001", "*"); err != nil {
		t.Fatal(err)
	}
	want, owner := knows(t, h), h.OwnerConnectionString()
	log, err := os.ReadFile(path) // as a kill would leave it
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed.state")
	if err := os.WriteFile(killed, log, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, killed} {
		again, j := openHub(t, p)
		if got := knows(t, again); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", p, got, want)
		}
		if again.OwnerConnectionString() != owner {
			t.Errorf("%s: the owner's key is another", p)
		}
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", p, info.Mode(), err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOneProcessHasAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.state")
	h, j := openHub(t, path)
	fill(t, h, 1, 0)
	for range 2 {
		if _, err := Open(path, quiet); err == nil || !strings.Contains(err.Error(), "another twinbay-sim has it") {
			t.Errorf("error %v", err)
		}
		if err := j.rotate(h); err != nil { // the new file is taken, too
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

// written is a small file, the places where its frames begin and end, and the records up to each.
func written(t testing.TB) (file []byte, ends []int, upTo [][]hub.Record) {
	file = []byte(header)
	ends, upTo = []int{len(file)}, [][]hub.Record{nil}
	var all []hub.Record
	for i, change := range [][]hub.Record{
		{{Kind: "device", Key: "a", Data: []byte(`{"x":1}`)}, {Kind: "counters", Data: []byte(`{}`)}},
		{{Kind: "device", Key: "b", Data: []byte(`"` + string(mark) + `"`)}},
		{{Kind: "device", Key: "a"}, {Kind: "device", Key: "c", Data: []byte(`{}`)}},
		{{Kind: "module", Key: strings.Repeat("k", 200), Data: []byte(strings.Repeat("z", 300))}},
	} {
		file = append(file, frame(change)...)
		all = append(all, change...)
		ends, upTo = append(ends, len(file)), append(upTo, all[:len(all):len(all)])
		if n := len(ends); ends[n-1] <= ends[n-2] {
			t.Fatalf("frame %d is empty", i)
		}
	}
	return file, ends, upTo
}

func TestATornEndIsLeftOut(t *testing.T) {
	file, ends, upTo := written(t)
	for n := range len(file) + 1 {
		for name, tail := range map[string][]byte{"cut": nil, "zeros": make([]byte, len(file)-n)} {
			got, whole, err := read(bytes.NewReader(append(file[:n:n], tail...)), int64(n+len(tail)))
			if n < len(header) {
				if name == "cut" && (err != nil || whole != 0) {
					t.Errorf("cut to %d bytes: whole %d, %v", n, whole, err)
				}
				continue
			}
			last := 0
			for last+1 < len(ends) && ends[last+1] <= n {
				last++
			}
			if err != nil || whole != int64(ends[last]) || !reflect.DeepEqual(got, upTo[last]) {
				t.Errorf("%s at %d: whole %d, want %d; %v", name, n, whole, ends[last], err)
			}
		}
	}
}

// Whatever happens to one byte, the file is refused, or its last frame is left out: never is something else loaded.
func TestDamageAtEveryByte(t *testing.T) {
	file, ends, upTo := written(t)
	lastFrame := ends[len(ends)-2]
	for at := range file {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			damaged := bytes.Clone(file)
			damaged[at] ^= flip
			got, whole, err := read(bytes.NewReader(damaged), int64(len(damaged)))
			switch {
			case err != nil && at < lastFrame:
			case err == nil && at >= lastFrame && whole == int64(lastFrame) && reflect.DeepEqual(got, upTo[len(upTo)-2]):
			default:
				t.Errorf("byte %d ^ %#x: %d records, whole %d, error %v", at, flip, len(got), whole, err)
			}
		}
	}
}

func TestDamageNamesFilePlaceAndNextStep(t *testing.T) {
	file, ends, _ := written(t)
	path := filepath.Join(t.TempDir(), "hub.state")
	damaged := bytes.Clone(file)
	damaged[ends[1]+14] ^= 1
	for name, tt := range map[string]struct {
		text []byte
		want string
	}{
		"damage":          {damaged, fmt.Sprintf("bytes %d to %d are damaged", ends[1], ends[2])},
		"another file":    {[]byte("[devices.pi-01]\n# a seed, not a state file"), "does not begin as a state file"},
		"another version": {[]byte(strings.Replace(string(file), "state 1", "state 2", 1)), "another version"},
	} {
		if err := os.WriteFile(path, tt.text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, quiet)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, tt.text) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestATornEndIsToldOfAndWrittenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.state")
	h, _ := openHub(t, path)
	fill(t, h, 2, 0)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(t.TempDir(), "torn.state")
	if err := os.WriteFile(torn, file[:len(file)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	j, err := Open(torn, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "left out") || !strings.Contains(said.String(), torn) {
		t.Errorf("said %q", &said)
	}
	again, err := hub.Open(hub.Options{}, j, j.Saved())
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := again.Statistics(); s.TotalDeviceCount != 1 {
		t.Errorf("%d devices, want the first", s.TotalDeviceCount)
	}
	if _, err := again.PutDevice(hub.Device{DeviceID: "next"}, ""); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil { // without a source: the log as it is
		t.Fatal(err)
	}
	last, _ := openHub(t, torn)
	if _, err := last.Device("next"); err != nil {
		t.Error(err)
	}
}

// New files are written while the hub goes on, and nothing that was answered is missing from them.
func TestNewFilesWhileTheHubChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.state")
	h, j := openHub(t, path)
	j.smallest = 1 // nothing is pending yet, so the writer does not look
	const writers, each = 8, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("pi-%d-%d", w, i)
				if _, err := h.PutDevice(hub.Device{DeviceID: id}, ""); err != nil {
					t.Error(err)
				}
				patch := fmt.Sprintf(`{"tags":{"pad":"%s"}}`, strings.Repeat("x", 500))
				if _, err := h.PatchTwin(hub.ID{Device: id}, json.RawMessage(patch), ""); err != nil {
					t.Error(err)
				}
				if i%3 == 0 {
					if err := h.DeleteDevice(id, "*"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	want := knows(t, h)
	file, err := os.ReadFile(path) // as a kill would leave it
	if err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	for j.rotating {
		j.moved.Wait()
	}
	j.mu.Unlock()
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"at the last answer": file, "after the last new file": after} {
		all, whole, err := read(bytes.NewReader(file), int64(len(file)))
		if err != nil || whole != int64(len(file)) {
			t.Fatalf("%s: whole %d of %d, %v", name, whole, len(file), err)
		}
		again, err := hub.Open(hub.Options{}, discard{}, all)
		if err != nil {
			t.Fatal(err)
		}
		if got := knows(t, again); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d things, want %d", name, len(got), len(want))
		}
	}
	if whole := writers * each * 2 * 1000; len(after) > whole {
		t.Errorf("the file has %d bytes: no new one was written", len(after))
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("a new file stays behind")
	}
}

type discard struct{}

func (discard) Append([]hub.Record) {}
func (discard) Sync()               {}

// fullDisk fails from some write on.
type fullDisk struct {
	disk
	left int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.left--; d.left < 0 {
		return 0, errors.New("no space left on device")
	}
	return d.disk.Write(p)
}

// Who waits for a change that can't be kept is not answered before the hub ends.
func TestAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.state")
	synctest.Test(t, func(t *testing.T) {
		h, j := openHub(t, path)
		j.file = &fullDisk{j.file, 1}
		if _, err := h.PutDevice(hub.Device{DeviceID: "kept"}, ""); err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{}, 2)
		for _, id := range []string{"lost", "later"} {
			go func() {
				_, _ = h.PutDevice(hub.Device{DeviceID: id}, "")
				answered <- struct{}{}
			}()
			time.Sleep(time.Second)
			if len(answered) > 0 {
				t.Fatalf("%s is answered", id)
			}
		}
		select {
		case <-j.Failed():
		default:
			t.Fatal("nothing has failed")
		}
		j.Release()
		<-answered
		<-answered
		if err := j.Close(); err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v", err)
		}
		again, _ := openHub(t, path)
		if s, _ := again.Statistics(); s.TotalDeviceCount != 1 {
			t.Errorf("%d devices, want the one that was acknowledged", s.TotalDeviceCount)
		}
	})
}

func FuzzRead(f *testing.F) {
	file, _, _ := written(f)
	f.Add(file)
	f.Add(file[:len(file)-3])
	f.Add([]byte(header))
	f.Add([]byte(header + string(frame([]hub.Record{{Kind: "x"}}))))
	f.Fuzz(func(t *testing.T, file []byte) {
		all, whole, err := read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		again, same, err := read(bytes.NewReader(file[:whole]), whole)
		if err != nil || same != whole || !reflect.DeepEqual(all, again) {
			t.Errorf("what is whole is read as something else: %d of %d bytes, %v", same, whole, err)
		}
	})
}

// FuzzRecords: what a good checksum is over may still make no sense.
func FuzzRecords(f *testing.F) {
	f.Add(frame([]hub.Record{{Kind: "device", Key: "a", Data: []byte("{}")}, {Kind: "device", Key: "b"}})[frameHead:])
	f.Add([]byte{0x80, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := records(body)
		if err != nil {
			return
		}
		again, err := records(frame(all)[frameHead:])
		if err != nil || !reflect.DeepEqual(all, again) {
			t.Errorf("%v became %v, %v", all, again, err)
		}
	})
}

// What a start with 10,000 devices of 3 modules each costs.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "hub.state")
	h, err := hub.Open(hub.Options{}, discard{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	fill(b, h, 10_000, 3)
	j := open(b, path)
	j.Keep(h)
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		j, err := Open(path, quiet)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := hub.Open(hub.Options{}, j, j.Saved()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		j.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(info.Size())/1e6, "MB")
}

// What it costs that a change is on the disk before it is answered, for one writer and for many.
func BenchmarkDurableWrite(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("%d", writers), func(b *testing.B) {
			h, _ := openHub(b, filepath.Join(b.TempDir(), "hub.state"))
			fill(b, h, writers, 0)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					id := hub.ID{Device: fmt.Sprintf("pi-%05d", w)}
					for i := w; i < b.N; i += writers {
						if _, err := h.PatchTwin(id, json.RawMessage(fmt.Sprintf(`{"tags":{"n":%d}}`, i)), ""); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
