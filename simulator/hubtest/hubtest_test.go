package hubtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// refusedConnect is a CONNECT packet of nobody, which gets CONNACK 5.
const refusedConnect = "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d"

func TestConnectionStrings(t *testing.T) {
	h := hubtest.New(t)
	if s := h.Device("pi-01"); !strings.HasPrefix(s, "HostName="+h.Host()+";DeviceId=pi-01;SharedAccessKey=") {
		t.Error("device: not host, device and key")
	}
	for _, device := range []string{"pi-01", "pi-02"} { // one that is there, and one that is not
		if s := h.Module(device, "m"); !strings.HasPrefix(s, "HostName="+h.Host()+";DeviceId="+device+";ModuleId=m;SharedAccessKey=") {
			t.Errorf("module of %s: not host, device, module and key", device)
		}
	}
}

func TestHubInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		nc, err := h.DialTLS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(nc, refusedConnect); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(nc); string(got) != "\x20\x02\x00\x05" || err != nil {
			t.Errorf("% x, %v", got, err)
		}
	})
}

// Everything that New has started ends with the test, so that a bubble may end: also what a client has left open.
func TestNothingOutlivesTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		for range 3 {
			if _, err := h.DialTLS(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.Dial(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestListen(t *testing.T) {
	h := hubtest.New(t)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(h.CA()) {
		t.Fatal("CA is not PEM")
	}
	nc, err := tls.Dial("tcp", h.Listen(), &tls.Config{RootCAs: pool, ServerName: h.Host()})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, refusedConnect); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(nc); string(got) != "\x20\x02\x00\x05" || err != nil {
		t.Errorf("% x, %v", got, err)
	}
	if _, err := tls.Dial("tcp", nc.RemoteAddr().String(), &tls.Config{ServerName: h.Host()}); err == nil {
		t.Error("a client that does not trust the CA was served")
	}
}

func TestDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		nc, err := h.DialTLS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h.Down()
		h.Down() // twice is once
		if _, err := io.ReadAll(nc); err != nil {
			t.Errorf("the connection ends with %v", err)
		}
		if _, err := h.Dial(t.Context()); !errors.Is(err, hubtest.ErrDown) {
			t.Errorf("dialling: %v", err)
		}
		h.Up()
		if _, err := h.DialTLS(t.Context()); err != nil {
			t.Errorf("dialling again: %v", err)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		created := func(module string) func(hub.Event) bool {
			return func(e hub.Event) bool { return e.Kind == "created" && e.ModuleID == module }
		}
		h.Module("pi-01", "a")
		go func() {
			time.Sleep(time.Hour)
			h.Module("pi-01", "b")
			h.Module("pi-01", "c")
		}()
		h.Wait(t, created("c")) // not there yet
		h.Wait(t, created("a")) // long past
		h.Wait(t, created("b"))
		synctest.Wait()
		if n := len(h.Events()); n != 4 {
			t.Errorf("%d events, want those of one device and three modules", n)
		}
	})
}

func TestWaitGivesUpWithTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		h.Device("pi-01")
		f := &failing{TB: t}
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.Wait(f, func(e hub.Event) bool { return e.Kind == "telemetry" })
		}()
		<-done
		if d := time.Since(start); d != 24*time.Hour {
			t.Errorf("gave up after %v", d)
		}
		if !strings.Contains(f.text, "created pi-01") {
			t.Errorf("it says %q", f.text)
		}
	})
}

func TestFault(t *testing.T) {
	h := hubtest.New(t)
	h.Fault(hub.Fault{On: "connect", Who: "pi-01", Do: "kick"})
	if f := h.Hub.Fault("connect", hub.ID{Device: "pi-01"}); f.Do != "kick" {
		t.Errorf("%+v", f)
	}
}
