package rig

import (
	"bytes"
	"encoding/json"
	"net"
	"reflect"
	"testing"

	"github.com/twinbay/twinbay/hal/simbus"
)

func dial(path string) (net.Conn, error) { return net.Dial("unix", path) }

func TestParseRequest(t *testing.T) {
	for line, ok := range map[string]bool{
		`{"op":"coin","coin":"EU100A"}`: true,
		`{"op":"coin","kind":"EU100A"}`: false,
		`{"op":"coin"} {"op":"coin"}`:   false,
		`{"op":7}`:                      false,
		`coin`:                          false,
		``:                              false,
	} {
		if _, err := parseRequest([]byte(line)); (err == nil) != ok {
			t.Errorf("%s: err = %v", line, err)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add([]byte(`{"op":"air","set":{"celsius":35}}`))
	f.Add([]byte(`{"op":"fault","part":"climate","fault":"hang","ms":100}`))
	f.Add([]byte(`{"status":{"world":true,"coins":{"credited":1}}}`))
	f.Add([]byte(`{"error":"no"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		parseAnswer(line)
		q, err := parseRequest(line)
		if err != nil {
			return
		}
		p, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseRequest(p); err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("%s became %s: %+v, %v", line, p, again, err)
		}
	})
}

func FuzzOpening(f *testing.F) {
	f.Add(byte(simbus.TypeOpen), []byte{1, 1, 0, 0, 0, 0, 0, 'd', 'o', 'o', 'r'})
	f.Add(byte(simbus.TypeRead), []byte{1})
	f.Fuzz(func(t *testing.T, typ byte, p []byte) {
		o, err := parseOpening(typ, p)
		if err != nil {
			return
		}
		if o.debounce < 0 || !bytes.HasSuffix(p, []byte(o.name)) {
			t.Errorf("% x became %+v", p, o)
		}
	})
}
