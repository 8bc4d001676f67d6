package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
)

// serveProcess starts this program as a process of its own that serves a hub, and answers a client of it.
func serveProcess(t *testing.T, dir, state string) (*exec.Cmd, *admin.Client) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), "TWINBAY_SIM_ARGS="+strings.Join([]string{"serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0",
		"--no-rig", "--seed", "../../firmware-configs/vending-machine/seed.toml", "--state", state}, "\n"))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // the greeting: it serves
		t.Fatalf("the hub does not greet: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "hub.env"))
	if err != nil {
		t.Fatal(err)
	}
	env, err := simulator.ParseEnv(text)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(env["CA_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	client, err := admin.New(admin.Config{ConnectionString: env["HUB_CS"], Address: env["HUB_IP"] + ":" + env["HTTPS_PORT"], CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return c, client
}

// A hub that is killed while others write to it comes back with everything that it acknowledged: the same identities,
// keys, twins and owner.
func TestKilledHubKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "hub.state")
	keyOf := func(text json.RawMessage) string {
		var d struct {
			Authentication struct{ SymmetricKey struct{ PrimaryKey string } }
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Error(err)
		}
		return d.Authentication.SymmetricKey.PrimaryKey
	}
	acknowledged := map[admin.ID]string{} // key
	for round := range 2 {
		process, client := serveProcess(t, dir, state)
		var mu sync.Mutex
		enough := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		before := len(acknowledged)
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					id := admin.ID{Device: fmt.Sprintf("pi-%d-%d-%d", round, w, i)}
					made, err := client.Create(ctx, id, nil)
					if err != nil {
						return // the hub is dead
					}
					if _, err := client.PatchTwin(ctx, id, map[string]any{"tags": map[string]any{"i": i}}); err != nil {
						return
					}
					mu.Lock()
					acknowledged[id] = keyOf(made)
					if len(acknowledged) == before+100 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-ctx.Done():
			t.Error("the hub does not acknowledge 100 devices in a minute")
		}
		if err := process.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = process.Wait()
		wg.Wait()
	}
	_, client := serveProcess(t, dir, state)
	for id, key := range acknowledged {
		d, err := client.Show(t.Context(), id)
		if err != nil || keyOf(d) != key {
			t.Fatalf("%s: %v, key %v", id, err, keyOf(d) == key)
		}
		twin, err := client.Twin(t.Context(), id)
		if err != nil || !strings.Contains(string(twin), `"tags":{"i":`+id.Device[strings.LastIndex(id.Device, "-")+1:]+`}`) {
			t.Fatalf("twin of %s: %v: %s", id, err, twin)
		}
	}
	if _, err := client.Show(t.Context(), admin.ID{Device: "vending-1", Module: "climate"}); err != nil {
		t.Errorf("the seed: %v", err)
	}
}

// A state file that can't be loaded ends the program with the file's name and a next step.
func TestStateFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "seed.toml")
	if err := os.WriteFile(state, []byte("[devices.pi-01]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var diag strings.Builder
	code := Main(t.Context(), []string{"serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0", "--no-rig", "--state", state,
		"--", "true"}, strings.NewReader(""), &diag, &diag)
	if code != 1 || !strings.Contains(diag.String(), state) || !strings.Contains(diag.String(), "name another file") {
		t.Errorf("exit code %d: %s", code, &diag)
	}
}
