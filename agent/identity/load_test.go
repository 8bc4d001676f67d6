package identity

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good := "HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=" + someKey
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}

	for _, path := range []string{write("plain", good, 0o600), write("newline", good+"\r\n", 0o400)} {
		c, err := Load("file:" + path)
		if err != nil || c.ID != (ID{Device: "d", Module: "m"}) {
			t.Errorf("%s: %v, %v", path, c, err)
		}
	}

	group := write("group", good, 0o640)
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, ref, want string }{
		{"readable by group", "file:" + group, "chmod 600 " + group},
		{"writable by others", "file:" + write("others", good, 0o602), "chmod 600"},
		{"absent", "file:" + filepath.Join(dir, "none"), "does not exist"},
		{"folder", "file:" + dir, "is a folder"},
		{"pipe", "file:" + pipe, "is a pipe"},
		{"no scheme", good, "must be file:PATH"},
		{"no path", "file:", "must be file:PATH"},
		{"too long", "file:" + write("long", good+strings.Repeat(" ", maxFile), 0o600), "longer than"},
		{"bad content", "file:" + write("bad", "HostName=h;SharedAccessKey="+someKey, 0o600), "bad: connection string: DeviceId is missing"},
	} {
		_, err := Load(test.ref)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", test.name, err, test.want)
		} else if strings.Contains(err.Error(), "MDEy") {
			t.Errorf("%s: the error shows the key: %v", test.name, err)
		}
	}
}

func BenchmarkToken(b *testing.B) {
	c, err := ParseConnectionString("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=" + someKey)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Unix(0, 0)
	for b.Loop() {
		if _, err := c.Token("h", now, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}
