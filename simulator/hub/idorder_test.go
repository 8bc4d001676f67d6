package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestOrder: whatever comes and goes, in whatever order, and however seldom somebody looks, the ids are those of the
// devices, sorted; and what somebody was given before stays as it was.
func TestOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var o idOrder
	there := map[string]bool{}
	exists := func(id string) bool { return there[id] }
	var kept, copied []string
	for i := range 20_000 {
		id := fmt.Sprint(random.IntN(300))
		switch {
		case there[id]:
			delete(there, id)
			o.remove()
		default:
			there[id] = true
			o.add(id)
		}
		if random.IntN(20) > 0 {
			continue
		}
		got := o.all(exists)
		if want := slices.Sorted(maps.Keys(there)); !slices.Equal(got, want) {
			t.Fatalf("after %d changes: %d ids, want %d", i+1, len(got), len(want))
		}
		if !slices.Equal(kept, copied) {
			t.Fatal("a list that was given away has changed")
		}
		kept, copied = got, slices.Clone(got)
	}
}

// manyDevices is a hub with n devices.
func manyDevices(b *testing.B, n int) *Hub {
	h := New(Options{})
	for i := range n {
		if _, err := h.PutDevice(Device{DeviceID: fmt.Sprintf("d%06d", i*7919%n)}, ""); err != nil {
			b.Fatal(err)
		}
	}
	return h
}

// BenchmarkListDevices lists a thousand of a hundred thousand devices, one of which has just come.
func BenchmarkListDevices(b *testing.B) {
	for _, fresh := range []bool{false, true} {
		b.Run(fmt.Sprint("a new one each time ", fresh), func(b *testing.B) {
			h := manyDevices(b, 100_000)
			i := 0
			for b.Loop() {
				if fresh {
					i++
					if _, err := h.PutDevice(Device{DeviceID: fmt.Sprint("new", i)}, ""); err != nil {
						b.Fatal(err)
					}
				}
				if n := len(h.Devices(1000)); n != 1000 {
					b.Fatal(n)
				}
			}
		})
	}
}

// BenchmarkCreateDevice and BenchmarkCreateModule make identities in a hub that has a hundred thousand.
func BenchmarkCreateDevice(b *testing.B) {
	h := manyDevices(b, 100_000)
	i := 0
	for b.Loop() {
		i++
		if _, err := h.PutDevice(Device{DeviceID: fmt.Sprint("new", i)}, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateModule(b *testing.B) {
	h := manyDevices(b, 100_000)
	i := 0
	for b.Loop() {
		id := fmt.Sprintf("d%06d", i/20%100_000)
		if _, err := h.PutModule(Module{DeviceID: id, ModuleID: fmt.Sprint("m", i)}, ""); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
