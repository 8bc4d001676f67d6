package simulator

import (
	"maps"
	"os/exec"
	"testing"
	"time"
)

// What a shell reads from the env file is what was written, quotes and all.
func TestEnvInAShell(t *testing.T) {
	want := `HostName=h;SharedAccessKeyName=o'neil $HOME "x" \;SharedAccessKey=a+b/c==`
	text := Env{"HUB_CS": want, "MQTT_PORT": "8883"}.Format()
	out, err := exec.Command("sh", "-c", string(text)+`printf %s "$HUB_CS"`).Output()
	if err != nil || string(out) != want {
		t.Errorf("the shell reads %q, %v; want %q", out, err, want)
	}
}

func TestClockOffset(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "2h0m0s": 2 * time.Hour, "-30m": -30 * time.Minute} {
		if got, err := (Env{"HUB_CLOCK_OFFSET": text}).ClockOffset(); got != want || err != nil {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
	if got, err := (Env{"HUB_CLOCK_OFFSET": "2"}).ClockOffset(); err == nil {
		t.Errorf("2: %s, want an error", got)
	}
}

func FuzzEnv(f *testing.F) {
	f.Add("HUB_CS", "HostName=h;SharedAccessKey=a'b==")
	f.Fuzz(func(t *testing.T, name, value string) {
		e := Env{name: value}
		got, err := ParseEnv(e.Format())
		if err == nil && !maps.Equal(got, e) && plain(name) && plain(value) {
			t.Errorf("%q comes back as %q", e, got)
		}
	})
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("A='b'\n"))
	f.Add([]byte("A=b"))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseEnv(text)
		if err != nil {
			return
		}
		again, err := ParseEnv(e.Format())
		if err != nil || !maps.Equal(again, e) {
			t.Errorf("%q: %v, want %q (%v)", text, again, e, err)
		}
	})
}

// plain is text that a line of the file can hold.
func plain(s string) bool {
	for _, r := range s {
		if r < ' ' || r == '=' || r == 0xfffd {
			return false
		}
	}
	return true
}
