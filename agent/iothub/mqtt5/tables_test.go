package mqtt5

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/twinbay/twinbay/agent/iothub"
)

func TestFailureKinds(t *testing.T) {
	kinds := []error{iothub.ErrThrottled, iothub.ErrRejected, iothub.ErrUnauthorized, iothub.ErrTakenOver, iothub.ErrOffline}
	for _, test := range []struct {
		code   byte
		status string
		kind   error
	}{
		{131, "0100", iothub.ErrRejected},
		{135, "0101", iothub.ErrUnauthorized},
		{131, "0102", iothub.ErrRejected},
		{131, "0103", iothub.ErrRejected},
		{131, "0104", iothub.ErrStale},
		{151, "0501", iothub.ErrThrottled},
		{151, "0502", iothub.ErrThrottled},
		{131, "0503", nil},
		{131, "0504", nil},
		{131, "0601", nil},
		{131, "0603", nil},
		{131, "06A0", nil},
		{0, "0501", iothub.ErrThrottled},
		{131, "", nil}, // the details were cut off: nothing says that trying again does not help
		{131, "zz", nil},
		{135, "", iothub.ErrUnauthorized},
		{142, "", iothub.ErrTakenOver},
		{144, "", iothub.ErrRejected},
		{151, "", iothub.ErrThrottled},
		{159, "", iothub.ErrThrottled},
	} {
		var user paho.UserProperties
		if test.status != "" {
			user.Add("status", test.status)
		}
		err := failure("x", test.code, user, "")
		for _, kind := range kinds {
			if is := errors.Is(err, kind); is != (kind == test.kind) {
				t.Errorf("%d %s is %q: %v", test.code, test.status, kind, is)
			}
		}
	}
	err := failure("PUBACK", 131, paho.UserProperties{{Key: "status", Value: "0100"}, {Key: "reason", Value: "bad\nthing"}, {Key: "trace-id", Value: "t1"}}, "more")
	if want := "PUBACK: reason code 131: status 0100 Bad Request: bad thing: more (trace-id t1)"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("text %q, want %q", err, want)
	}
}

func TestTelemetryPacket(t *testing.T) {
	p := telemetry(iothub.Message{
		ID: "e-1", Body: []byte("{}"), Properties: map[string]string{"b": "2", "a": "1"},
		Created: time.UnixMilli(1600987795320),
	})
	want := paho.UserProperties{
		{Key: "content-encoding", Value: "utf-8"}, {Key: "message-id", Value: "e-1"},
		{Key: "creation-time", Value: "1600987795320"}, {Key: "@a", Value: "1"}, {Key: "@b", Value: "2"},
	}
	if p.Topic != "$iothub/telemetry" || p.QoS != 1 || p.Properties.ContentType != "application/json" || len(p.Properties.User) != len(want) {
		t.Errorf("packet %v", p)
	}
	for i, u := range p.Properties.User {
		if u != want[i] {
			t.Errorf("property %d is %v, want %v", i, u, want[i])
		}
	}
}

func TestPacketSizeIsNeverTooSmall(t *testing.T) {
	for _, m := range []iothub.Message{
		{},
		{ID: "e-1", Body: bytes.Repeat([]byte("x"), 200), Properties: map[string]string{"a": "1"}, Created: time.Now()},
		{Body: bytes.Repeat([]byte("x"), 250<<10), Properties: map[string]string{"long": strings.Repeat("y", 5000)}},
	} {
		p := telemetry(m)
		var out bytes.Buffer
		packet := p.Packet()
		packet.PacketID = 7
		if _, err := packet.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		if guess := packetSize(p); guess < out.Len() || guess > out.Len()+10 {
			t.Errorf("guess %d for %d bytes", guess, out.Len())
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add(byte(131), "0501", "busy", "7")
	f.Add(byte(0), "FFFF", "\x00\n", "-1")
	f.Fuzz(func(t *testing.T, code byte, status, reason, v string) {
		user := paho.UserProperties{{Key: "status", Value: status}, {Key: "reason", Value: reason}, {Key: "version", Value: v}}
		err := failure("x", code, user, reason)
		if err == nil || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("error %q", err)
		}
		if n, err := version(user); err == nil && n < 0 {
			t.Errorf("version %d", n)
		}
	})
}
