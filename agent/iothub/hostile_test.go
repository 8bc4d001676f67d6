package iothub_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/agent/iothub/mqtt3"
	"github.com/twinbay/twinbay/agent/iothub/mqtt5"
)

const someCredential = "HostName=hub.example;DeviceId=d;ModuleId=m;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// answers is a server that sends fixed bytes after each packet that it gets: first those for CONNECT, then those for
// SUBSCRIBE, and then closes when close is set.
type answers struct {
	packets []string
	close   bool
}

func (a answers) serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	for _, p := range a.packets {
		n, err := c.Read(buf)
		for err == nil && n == 2 && buf[0] == 0xC0 { // Paho's pinger may begin with a PINGREQ, ahead of SUBSCRIBE
			n, err = c.Read(buf)
		}
		if err != nil {
			return
		}
		go func() { _, _ = c.Write([]byte(p)) }() // a pipe takes nothing that is not read
	}
	if !a.close {
		_, _ = io.Copy(io.Discard, c)
	}
}

func openOn(t testing.TB, open iothub.Open, a answers) (iothub.Wire, error) {
	near, far := net.Pipe()
	go a.serve(far)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return open(ctx, near, iothub.OpenParams{
		Host:       "hub.example",
		Credential: credential(t, someCredential),
		At:         time.Now(),
		Expires:    time.Now().Add(time.Hour),
		KeepAlive:  30 * time.Second,
		Desired:    func(iothub.DesiredPatch) {},
		Method:     func(m iothub.MethodCall) { go m.Answer(200, json.RawMessage("1")) },
	})
}

// What a hub never sends must end the connection with an error, and never the program: the clients below would index
// beyond a slice, call a nil handler, or allocate what a header says.
func TestHostileAnswers(t *testing.T) {
	const (
		ok3   = "\x20\x02\x00\x00"
		ok5   = "\x20\x03\x00\x00\x00"
		sub3  = "\x90\x05\x00\x01\x00\x00\x00"
		sub5  = "\x90\x05\x00\x01\x00\x00\x00"
		huge  = "\x30\xff\xff\xff\x7f"
		auth5 = "\x20\x09\x00\x00\x06\x15\x00\x03SAS" // CONNACK with an Authentication Method
	)
	for _, test := range []struct {
		name    string
		open    iothub.Open
		answers []string
		want    string // of the error of Open, or of the end of the wire when Open succeeds
	}{
		{"refused", mqtt3.Open, []string{"\x20\x02\x00\x05"}, "CONNACK 5"},
		{"unavailable", mqtt3.Open, []string{"\x20\x02\x00\x03"}, "not available now"},
		{"unknown return code", mqtt3.Open, []string{"\x20\x02\x00\x09"}, "SUBSCRIBE"},
		{"long CONNACK", mqtt3.Open, []string{"\x20\x03\x00\x00\x00"}, "none of MQTT 3.1.1's"},
		{"no CONNACK first", mqtt3.Open, []string{sub3}, "CONNECT"},
		{"huge packet", mqtt3.Open, []string{huge}, "announces a packet of 268435455 bytes"},
		{"SUBACK with a failure", mqtt3.Open, []string{ok3, "\x90\x05\x00\x01\x00\x80\x00"}, "no subscription"},
		{"SUBACK with too few codes", mqtt3.Open, []string{ok3, "\x90\x03\x00\x01\x00"}, "no subscription"},
		{"SUBACK with too many codes", mqtt3.Open, []string{ok3, "\x90\x07\x00\x01\x00\x00\x00\x00\x00"}, "none of MQTT 3.1.1's"},
		{"PUBREC", mqtt3.Open, []string{ok3, sub3 + "\x50\x02\x00\x01"}, "none of MQTT 3.1.1's"},
		{"QoS 2", mqtt3.Open, []string{ok3, sub3 + "\x34\x05\x00\x01a\x00\x01"}, "none of MQTT 3.1.1's"},
		{"bad patch", mqtt3.Open, []string{ok3, sub3 + publish3("$iothub/twin/PATCH/properties/desired/?$version=1", "[")}, "desired patch"},
		{"bad topic", mqtt3.Open, []string{ok3, sub3 + publish3("$iothub/methods/POST/x", "1")}, "not a topic"},
		{"another's packet id", mqtt3.Open, []string{ok3, sub3 + "\x40\x02\x77\x77" + huge}, "announces"},

		{"refused", mqtt5.Open, []string{"\x20\x03\x00\x87\x00"}, "reason code 135"},
		{"huge packet", mqtt5.Open, []string{huge}, "announces a packet of 268435455 bytes"},
		{"no CONNACK first", mqtt5.Open, []string{"\xd0\x00"}, "CONNECT"},
		{"Authentication Method, then SUBACK with too few codes", mqtt5.Open, []string{auth5, "\x90\x04\x00\x01\x00\x00"}, "1 answers for 2 filters"},
		{"SUBACK with a failure", mqtt5.Open, []string{ok5, "\x90\x05\x00\x01\x00\x00\x8f"}, "reason code 143"},
		{"AUTH without end", mqtt5.Open, []string{"\xf0\x01\x18", "\xf0\x01\x18", "\x20\x03\x00\x87\x00"}, "reason code 135"},
		{"AUTH out of turn", mqtt5.Open, []string{ok5, sub5 + "\xf0\x00" + "\xe0\x01\x8e"}, "took over"},
		{"QoS 2", mqtt5.Open, []string{ok5, sub5 + "\x34\x06\x00\x01a\x00\x01\x00"}, "none of MQTT 5's"},
		{"PUBREL", mqtt5.Open, []string{ok5, sub5 + "\x62\x02\x00\x01"}, "none of MQTT 5's"},
		{"torn properties", mqtt5.Open, []string{ok5, sub5 + "\x30\x04\x00\x01a\x7f"}, ""},
		{"DISCONNECT without a code", mqtt5.Open, []string{ok5, sub5 + "\xe0\x00"}, ""},
		{"bad patch", mqtt5.Open, []string{ok5, sub5 + publish5("$iothub/twin/patch/desired", "[")}, "desired patch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, err := openOn(t, test.open, answers{packets: test.answers})
				if err == nil {
					select {
					case <-w.Done():
						err = w.Err()
					case <-time.After(time.Minute):
						err = errors.New("the wire has not ended")
					}
					w.Close()
				}
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("err = %v, want %q", err, test.want)
				}
			})
		})
	}
}

func publish3(topic, body string) string {
	return "\x30" + string(rune(2+len(topic)+len(body))) + "\x00" + string(rune(len(topic))) + topic + body
}

func publish5(topic, body string) string {
	return "\x30" + string(rune(3+len(topic)+len(body))) + "\x00" + string(rune(len(topic))) + topic + "\x00" + body
}

// FuzzHub sends arbitrary bytes to both wires, after a good beginning and without one.
func FuzzHub(f *testing.F) {
	f.Add([]byte("\x30\x04\x00\x01a\x7f"))
	f.Add([]byte(publish3("$iothub/twin/PATCH/properties/desired/?$version=1", `{"a":1}`)))
	f.Add([]byte(publish5("$iothub/methods/x", `{"a":1}`)))
	f.Add([]byte("\xe0\x02\x87\x00"))
	f.Add([]byte("\x20\x03\x00\x00\x00\x90\x05\x00\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for open, good := range map[*iothub.Open][]string{
			&fuzz3: {"\x20\x02\x00\x00", "\x90\x05\x00\x01\x00\x00\x00"},
			&fuzz5: {"\x20\x03\x00\x00\x00", "\x90\x05\x00\x01\x00\x00\x00"},
		} {
			for _, packets := range [][]string{{string(in)}, {good[0], string(in)}, {good[0], good[1] + string(in)}} {
				synctest.Test(t, func(t *testing.T) {
					w, err := openOn(t, *open, answers{packets: packets})
					if err != nil {
						return
					}
					time.Sleep(time.Second)
					w.Close()
					<-w.Done()
				})
			}
		}
	})
}

var fuzz3, fuzz5 iothub.Open = mqtt3.Open, mqtt5.Open
