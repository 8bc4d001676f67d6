package hal

import (
	"errors"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct{ uri, scheme, target string }{
		{"i2c:/dev/i2c-1", "i2c", "/dev/i2c-1"},
		{"i2c:i2c-bcm2835", "i2c", "i2c-bcm2835"},
		{"serial:/dev/serial/by-id/usb-FTDI_A:b-port0", "serial", "/dev/serial/by-id/usb-FTDI_A:b-port0"},
		{"gpio:pinctrl-bcm2711/17", "gpio", "pinctrl-bcm2711/17"},
		{"sim:/run/a#b/rig.sock#door", "sim", "/run/a#b/rig.sock#door"},
		{"test:x", "test", "x"},
	} {
		scheme, target, err := Split(c.uri)
		if err != nil || scheme != c.scheme || target != c.target {
			t.Errorf("Split(%q) = %q, %q, %v", c.uri, scheme, target, err)
		}
	}
}

func TestSplitShowsTheForm(t *testing.T) {
	for uri, hint := range map[string]string{
		"":                    "sim:<socket>#<wire>",
		"/dev/i2c-1":          "i2c:/dev/i2c-1",
		"I2C:/dev/i2c-1":      "i2c:/dev/i2c-1",
		"i2c:":                "<adapter name>",
		"sim:rig.sock":        "sim:<socket>#<wire>",
		"sim:#door":           "sim:<socket>#<wire>",
		"sim:rig.sock#":       "sim:<socket>#<wire>",
		"gpio:17":             "gpiodetect",
		"gpio:/dev/gpiochip0": "gpio:<chip label>/<line offset or name>",
		"serial:/dev/tty\x00": "control character",
	} {
		_, _, err := Split(uri)
		if !errors.Is(err, ErrBadURI) || !strings.Contains(err.Error(), hint) {
			t.Errorf("Split(%q): err = %v, want ErrBadURI with %q", uri, err, hint)
		}
	}
}

func TestResolve(t *testing.T) {
	for uri, want := range map[string]string{
		"sim:rig.sock#climate":  "sim:/etc/tb/rig.sock#climate",
		"sim:../rig.sock#door":  "sim:/etc/rig.sock#door",
		"sim:/run/rig.sock#x":   "sim:/run/rig.sock#x",
		"serial:ttyCOIN":        "serial:/etc/tb/ttyCOIN",
		"serial:/dev/ttyUSB0":   "serial:/dev/ttyUSB0",
		"i2c:./bus":             "i2c:/etc/tb/bus",
		"i2c:i2c-bcm2835":       "i2c:i2c-bcm2835",
		"gpio:pinctrl-rp1/17":   "gpio:pinctrl-rp1/17",
		"sim:no-wire":           "sim:no-wire",
		"nonsense":              "nonsense",
		"test:relative/and/own": "test:relative/and/own",
	} {
		if got := Resolve(uri, "/etc/tb"); got != want {
			t.Errorf("Resolve(%q) = %q, want %q", uri, got, want)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, s := range []string{"sim:rig.sock#door", "serial:ttyCOIN", "i2c:./x", "gpio:a/b", "x", "sim:a#b#c", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		scheme, target, err := Split(uri)
		if err != nil {
			if !errors.Is(err, ErrBadURI) {
				t.Errorf("err = %v, want ErrBadURI", err)
			}
			if got := Resolve(uri, "/d"); got != uri {
				t.Errorf("Resolve changed a bad URI to %q", got)
			}
			return
		}
		if scheme+":"+target != uri {
			t.Errorf("%q:%q is not %q", scheme, target, uri)
		}
		once := Resolve(uri, "/d")
		if twice := Resolve(once, "/e"); twice != once {
			t.Errorf("Resolve is not stable: %q, then %q", once, twice)
		}
		if s, _, err := Split(once); err != nil || s != scheme {
			t.Errorf("Resolve made %q of %q: scheme %q, %v", once, uri, s, err)
		}
	})
}
