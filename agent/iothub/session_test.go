package iothub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/iothub"
	"github.com/twinbay/twinbay/simulator/hub"
)

func TestTelemetryArrivesUnderItsIdentity(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		climate, door := b.module(t, "vending-1", "climate"), b.module(t, "vending-1", "door%2F+x")
		device := b.session(t, b.own(t, "vending-1"), nil)
		device.up()
		created := time.Date(2026, 3, 1, 12, 0, 0, 250e6, time.UTC)
		for _, o := range []*owner{climate, door, device} {
			err := o.Publish(t.Context(), iothub.Message{
				ID:         "e1-7",
				Body:       []byte(`{"temperature_c":21.5}`),
				Properties: map[string]string{"alarm": "a&b=c/d %+", "ort": "Küche €", "leer": ""},
				Created:    created,
			})
			if err != nil {
				t.Fatalf("%s: %v", o.id, err)
			}
			e := b.Wait(t, of(o.id, "telemetry"))
			if string(e.Body) != `{"temperature_c":21.5}` {
				t.Errorf("%s: body %s", o.id, e.Body)
			}
			want := map[string]string{"alarm": "a&b=c/d %+", "ort": "Küche €", "leer": ""}
			if !maps.Equal(e.Properties, want) {
				t.Errorf("%s: properties %q, want %q", o.id, e.Properties, want)
			}
			for name, want := range map[string]string{"message-id": "e1-7", "content-type": "application/json", "content-encoding": "utf-8"} {
				if e.System[name] != want {
					t.Errorf("%s: %s = %q, want %q (of %v)", o.id, name, e.System[name], want, e.System)
				}
			}
			if at := e.System["iothub-creation-time-utc"]; !strings.HasPrefix(at, "2026-03-01T12:00:00.25") {
				t.Errorf("%s: creation time %q", o.id, at)
			}
		}
		if st := climate.Status(); !st.Connected || st.Protocol != b.name || st.Reconnects != 0 || st.LastError != nil ||
			time.Until(st.TokenExpires) > time.Hour || time.Until(st.TokenExpires) < 59*time.Minute {
			t.Errorf("status = %+v", st)
		}
	})
}

func TestTwin(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		version, err := o.Report(t.Context(), json.RawMessage(`{"a":1,"b":{"c":true}}`))
		if err != nil || version != 2 {
			t.Fatalf("first report: version %d, %v", version, err)
		}
		if version, err = o.Report(t.Context(), json.RawMessage(`{"a":null}`)); err != nil || version != 3 {
			t.Fatalf("second report: version %d, %v", version, err)
		}
		b.desire(t, o.id, `{"period_s":5}`)
		if p := expect[iothub.DesiredPatch](o); p.Version != 2 || string(p.Patch) != `{"period_s":5}` {
			t.Errorf("patch %d %s", p.Version, p.Patch)
		}
		b.desire(t, o.id, `{"period_s":null,"unit":"C"}`)
		if p := expect[iothub.DesiredPatch](o); p.Version != 3 || string(p.Patch) != `{"period_s":null,"unit":"C"}` {
			t.Errorf("patch %d %s", p.Version, p.Patch)
		}
		twin, err := o.Twin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if string(twin.Desired) != `{"unit":"C"}` || twin.DesiredVersion != 3 || string(twin.Reported) != `{"b":{"c":true}}` || twin.ReportedVersion != 3 {
			t.Errorf("twin = %s %d, %s %d", twin.Desired, twin.DesiredVersion, twin.Reported, twin.ReportedVersion)
		}
	})
}

func TestPatchesKeepTheirOrder(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		for i := range 50 {
			b.desire(t, o.id, fmt.Sprintf(`{"n":%d}`, i))
		}
		for i := range 50 {
			if p := expect[iothub.DesiredPatch](o); p.Version != int64(i+2) {
				t.Fatalf("patch %d has version %d", i, p.Version)
			}
		}
	})
}

func TestSlowOwnerIsToldToAskForTheTwin(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		for i := range 300 {
			b.desire(t, o.id, fmt.Sprintf(`{"n":%d}`, i))
			synctest.Wait()
		}
		known := int64(1)
		for known < 301 {
			switch e := o.next().(type) {
			case iothub.Up:
				twin, err := o.Twin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				known = max(known, twin.DesiredVersion)
			case iothub.DesiredPatch:
				if e.Version > known+1 {
					t.Fatalf("patch %d comes after %d without an Up between", e.Version, known)
				}
				known = max(known, e.Version)
			}
		}
	})
}

func TestMethod(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o, other := b.module(t, "d", "m"), b.module(t, "d", "n")
		go func() {
			for {
				select {
				case e := <-o.Events():
					if m, ok := e.(iothub.MethodCall); ok {
						m.Answer(207, json.RawMessage(`{"name":"`+m.Name+`","got":`+string(m.Payload)+`}`))
						m.Answer(500, nil) // a second answer goes nowhere
					}
				case <-t.Context().Done():
					return
				}
			}
		}()
		for _, payload := range []string{`{"a":[1,2]}`, `null`, `"text"`} {
			got, err := b.Invoke(t.Context(), o.id, hub.MethodRequest{Name: "readNow", Payload: json.RawMessage(payload)})
			if err != nil || got.Status != 207 || string(got.Payload) != `{"name":"readNow","got":`+payload+`}` {
				t.Errorf("%s: %d %s, %v", payload, got.Status, got.Payload, err)
			}
		}
		synctest.Wait()
		select {
		case e := <-other.Events():
			t.Errorf("the other module got %#v", e)
		default:
		}
	})
}

func TestTooManyMethodsAreRefused(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		status := make(chan int)
		call := func() {
			r, err := b.Invoke(t.Context(), o.id, hub.MethodRequest{Name: "slow"})
			if err != nil {
				t.Error(err)
			}
			status <- r.Status
		}
		go call()
		synctest.Wait() // it is held for the owner
		for range 39 {
			go call()
		}
		synctest.Wait()
		refused := 0
		for range 7 { // 32 wait
			if s := <-status; s == 429 {
				refused++
			}
		}
		for range 33 {
			expect[iothub.MethodCall](o).Answer(200, nil)
			if s := <-status; s != 200 {
				t.Errorf("status %d", s)
			}
		}
		if refused != 7 {
			t.Errorf("%d of 7 were refused", refused)
		}
	})
}

func TestPublishOfflineFailsAtOnce(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		cs := b.Module("d", "m")
		b.Down()
		o := b.session(t, cs, nil)
		start := time.Now()
		down := o.down()
		if wait := down.Retry.Sub(start); wait <= 0 || wait > time.Second {
			t.Errorf("the first retry comes after %v", wait)
		}
		mustBe(t, "publish", o.publish("1"), iothub.ErrOffline)
		_, err := o.Twin(t.Context())
		mustBe(t, "twin", err, iothub.ErrOffline)
		_, err = o.Report(t.Context(), json.RawMessage(`{}`))
		mustBe(t, "report", err, iothub.ErrOffline)
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if st := o.Status(); st.Connected || st.LastError == nil || st.Protocol != "" {
			t.Errorf("status = %+v", st)
		}

		time.Sleep(10 * time.Minute) // an outage
		b.Up()
		start = time.Now()
		if o.recover(); time.Since(start) > time.Minute {
			t.Errorf("it took %v to come back", time.Since(start))
		}
		if err := o.publish("2"); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongKey(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		right, other := b.Module("d", "m"), b.Module("d", "n")
		key := other[strings.Index(other, "SharedAccessKey="):]
		wrong := right[:strings.Index(right, "SharedAccessKey=")] + key
		o := b.session(t, wrong, nil)
		start := time.Now()
		for range 20 {
			down := o.down()
			mustBe(t, "Down", down.Err, iothub.ErrUnauthorized)
			text := down.Err.Error()
			if !strings.Contains(text, "d/m") || !strings.Contains(text, "key") || !strings.Contains(text, "clock") {
				t.Errorf("the error does not say what to do: %s", text)
			}
			if strings.Contains(text, strings.TrimPrefix(key, "SharedAccessKey=")) {
				t.Errorf("the error shows the key: %s", text)
			}
			if wait := time.Until(down.Retry); wait < 4*time.Second || wait > 5*time.Minute {
				t.Errorf("retry after %v", wait)
			}
		}
		if took := time.Since(start); took < 5*time.Minute {
			t.Errorf("20 refused tries took only %v", took)
		}
	})
}

func TestUnknownIdentity(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		cs := b.Module("d", "m")
		o := b.session(t, strings.Replace(cs, "ModuleId=m", "ModuleId=M", 1), nil)
		mustBe(t, "Down", o.down().Err, iothub.ErrUnauthorized)
	})
}

func TestR26_TakeoverCalmsDownAndIsSaid(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		cs := b.Module("d", "m")
		first := b.session(t, cs, nil)
		first.up()
		second := b.session(t, cs, nil)
		second.up()
		down := first.down()
		if b.name == "5" {
			mustBe(t, "the first loss", down.Err, iothub.ErrTakenOver)
		}
		// Two that push each other out must come to rest: count the connections of half an hour.
		go drainEvents(t, first)
		go drainEvents(t, second)
		time.Sleep(30 * time.Minute)
		connects := first.Status().Reconnects + second.Status().Reconnects
		if connects > 60 {
			t.Errorf("%d connections in half an hour", connects)
		}
		var text string
		for _, o := range []*owner{first, second} {
			if err := o.Status().LastError; err != nil && errors.Is(err, iothub.ErrTakenOver) {
				text = err.Error()
			}
		}
		if !strings.Contains(text, "identity used elsewhere?") {
			t.Errorf("no session suspects the other: %v, %v", first.Status().LastError, second.Status().LastError)
		}
		// While the other is there it is said, whoever has the connection just now; when it has gone, no more.
		if n := first.Status().Notice + second.Status().Notice; !strings.Contains(n, "identity used elsewhere?") {
			t.Errorf("the notice is %q", n)
		}
		second.stop()
		time.Sleep(30 * time.Minute)
		if st := first.Status(); !st.Connected || st.Notice != "" {
			t.Errorf("half an hour after the other has gone: %+v", st)
		}
	})
}

func drainEvents(t *testing.T, o *owner) {
	for {
		select {
		case <-o.Events():
		case <-t.Context().Done():
			return
		}
	}
}

func TestDisabledDeviceIsDroppedAndComesBack(t *testing.T) {
	everyWire(t, func(t *testing.T, b *bench) {
		o := b.module(t, "d", "m")
		set := func(status string) {
			d, err := b.Hub.Hub.Device("d")
			if err != nil {
				t.Fatal(err)
			}
			d.Status = status
			if _, err := b.PutDevice(d, "*"); err != nil {
				t.Fatal(err)
			}
		}
		set("disabled")
		o.down()
		mustBe(t, "the next try", o.down().Err, iothub.ErrUnauthorized)
		set("enabled")
		o.recover()
	})
}
