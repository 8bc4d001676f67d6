package hub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	pi  = ID{Device: "pi-01"}
	mod = ID{"pi-01", "a"}
)

func c2d(body, ack string) C2D {
	return C2D{Message: Message{Body: []byte(body), System: map[string]string{"message-id": body}}, Ack: ack}
}

func send(t *testing.T, h *Hub, id ID, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if err := h.SendC2D(id, c2d(body, "full")); err != nil {
			t.Fatal(err)
		}
	}
}

// receiveC2D answers what HTTPS would hand out, "" for nothing.
func receiveC2D(t *testing.T, h *Hub, id ID) (string, string) {
	t.Helper()
	d, ok, err := h.ReceiveC2D(id)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "", ""
	}
	return string(d.Body), d.Token
}

// handed are the bodies that the link was told, and empties the list.
func (p *peer) handed() (bodies []string, tokens []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.mail {
		bodies, tokens = append(bodies, string(d.Body)), append(tokens, d.Token)
	}
	p.mail = nil
	return bodies, tokens
}

// feedbackOf reads all feedback, completing it: "message-id status" each.
func feedbackOf(t *testing.T, h *Hub) (all []string) {
	t.Helper()
	synctest.Wait()
	for {
		n, ok := h.ReceiveFeedback()
		if !ok {
			return all
		}
		var records []FeedbackRecord
		if err := json.Unmarshal(n.Body, &records); err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.DeviceID != "pi-01" || r.Description != r.StatusCode || r.EnqueuedTimeUTC == "" || r.DeviceGenerationID == "" {
				t.Errorf("record %+v", r)
			}
			all = append(all, r.OriginalMessageID+" "+r.StatusCode)
		}
		if err := h.SettleFeedback(n.Token, Complete); err != nil {
			t.Fatal(err)
		}
	}
}

func pending(t *testing.T, h *Hub, id ID) int {
	t.Helper()
	twin, err := h.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	if id.Module == "" {
		d, err := h.Device(id.Device)
		must(t)(nil, err)
		shown = d.CloudToDeviceMessageCount
	} else {
		m, err := h.Module(id)
		must(t)(nil, err)
		shown = m.CloudToDeviceMessageCount
	}
	if shown != twin.CloudToDeviceMessageCount {
		t.Errorf("the identity has %d messages and its twin %d", shown, twin.CloudToDeviceMessageCount)
	}
	return shown
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestC2DQueueDepth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		for i := range 50 {
			send(t, h, pi, fmt.Sprint(i))
		}
		wantError(t, "the 51st", h.SendC2D(pi, c2d("x", "")), 403004)
		send(t, h, mod, "its own queue")
		if n, m := pending(t, h, pi), pending(t, h, mod); n != 50 || m != 1 {
			t.Errorf("%d and %d messages, want 50 and 1", n, m)
		}
		_, token := receiveC2D(t, h, pi)
		wantError(t, "a locked message counts", h.SendC2D(pi, c2d("x", "")), 403004)
		if err := h.SettleC2D(pi, token, Complete); err != nil {
			t.Error(err)
		}
		send(t, h, pi, "room again")
	})
}

func TestC2DRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		for _, c := range []struct {
			what string
			id   ID
			m    C2D
			code int
		}{
			{"unknown device", ID{Device: "ghost"}, c2d("x", ""), 404001},
			{"unknown module", ID{"pi-01", "ghost"}, c2d("x", ""), 404001},
			{"largest", pi, C2D{Message: Message{Body: make([]byte, 64<<10)}}, 0},
			{"larger", pi, C2D{Message: Message{Body: make([]byte, 64<<10), Properties: map[string]string{"a": ""}}}, 413001},
			{"ack", pi, c2d("x", "yes"), 400004},
			{"message id", pi, c2d(strings.Repeat("x", 129), ""), 400004},
			{"expired already", pi, C2D{Expires: time.Now()}, 403009},
			{"expires too late", pi, C2D{Expires: time.Now().Add(48*time.Hour + 1)}, 403009},
			{"expires as late as can be", pi, C2D{Expires: time.Now().Add(48 * time.Hour)}, 0},
		} {
			wantError(t, c.what, h.SendC2D(c.id, c.m), c.code)
		}
	})
}

func TestC2DIsShownAsItWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		body := []byte("hello")
		m := C2D{Message: Message{Body: body, Properties: map[string]string{"k": "v", "empty": ""},
			System: map[string]string{"content-type": "text/plain", "to": "elsewhere", "iothub-connection-device-id": "spoofed"}}}
		if err := h.SendC2D(mod, m); err != nil {
			t.Fatal(err)
		}
		body[0] = 'J' // the sender's own again
		d, ok, err := h.ReceiveC2D(mod)
		if !ok || err != nil || !bytes.Equal(d.Body, []byte("hello")) || d.Properties["k"] != "v" || d.Sequence != 1 || d.Count != 0 ||
			!d.Enqueued.Equal(time.Now()) || !d.Expires.IsZero() || d.Ack != "none" {
			t.Errorf("%+v, %v, %v", d, ok, err)
		}
		if v, there := d.Properties["empty"]; v != "" || !there {
			t.Error("the property without a value is lost")
		}
		id := d.System["message-id"]
		delete(d.System, "message-id")
		if len(id) != 36 || fmt.Sprint(d.System) != "map[content-type:text/plain to:/devices/pi-01/modules/a/messages/devicebound]" {
			t.Errorf("message-id %q, system %v", id, d.System)
		}
	})
}

func TestC2DLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		send(t, h, pi, "1", "2")
		first, t1 := receiveC2D(t, h, pi)
		second, t2 := receiveC2D(t, h, pi)
		none, _ := receiveC2D(t, h, pi)
		same(t, "handed out", []string{first, second, none}, "1", "2", "")
		wantError(t, "another identity's token", h.SettleC2D(mod, t1, Complete), 412002)
		wantError(t, "no token", h.SettleC2D(pi, "", Complete), 412002)
		time.Sleep(59 * time.Second)
		if err := h.SettleC2D(pi, t2, Complete); err != nil {
			t.Error(err)
		}
		wantError(t, "twice", h.SettleC2D(pi, t2, Complete), 412002)
		time.Sleep(time.Second)
		wantError(t, "after a minute", h.SettleC2D(pi, t1, Complete), 412002)
		d, ok, _ := h.ReceiveC2D(pi)
		if !ok || string(d.Body) != "1" || d.Token == t1 || d.Count != 0 { // a lock that runs out does not count
			t.Errorf("after the lock: %+v, %v", d, ok)
		}
		if err := h.SettleC2D(pi, d.Token, Reject); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		same(t, "feedback", feedbackOf(t, h), "2 Success", "1 Rejected")
	})
}

func TestC2DDeliveryCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		send(t, h, pi, "1", "2")
		for i := range 10 {
			d, ok, _ := h.ReceiveC2D(pi)
			if !ok || string(d.Body) != "1" || d.Count != i { // an abandoned message goes back to its place
				t.Fatalf("delivery %d: %+v, %v", i, d, ok)
			}
			if err := h.SettleC2D(pi, d.Token, Abandon); err != nil {
				t.Fatal(err)
			}
		}
		if body, _ := receiveC2D(t, h, pi); body != "2" {
			t.Errorf("then %q, want 2", body)
		}
		same(t, "feedback", feedbackOf(t, h), "1 DeliveryCountExceeded")
		time.Sleep(time.Hour)
	})
}

func TestC2DExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{TimeToLive: 2 * time.Minute})
		must(t)(h.PutDevice(Device{DeviceID: "pi-01"}, ""))
		soon := c2d("soon", "full")
		soon.Expires = time.Now().Add(10 * time.Second)
		for _, m := range []C2D{soon, c2d("default", "negative"), c2d("quiet", "positive")} {
			if err := h.SendC2D(pi, m); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := pending(t, h, pi); n != 2 {
			t.Errorf("%d messages, want 2", n)
		}
		same(t, "feedback", feedbackOf(t, h), "soon Expired")
		time.Sleep(109 * time.Second)
		_, token := receiveC2D(t, h, pi) // one second before it expires
		time.Sleep(30 * time.Second)
		if n := pending(t, h, pi); n != 1 { // the locked one is still there
			t.Errorf("%d messages, want 1", n)
		}
		time.Sleep(30 * time.Second) // it comes free, and has expired
		synctest.Wait()
		wantError(t, "expired", h.SettleC2D(pi, token, Complete), 412002)
		if n := pending(t, h, pi); n != 0 {
			t.Errorf("%d messages, want none", n)
		}
		time.Sleep(15 * time.Second)
		same(t, "feedback", feedbackOf(t, h), "default Expired")
	})
}

func TestC2DOverALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		send(t, h, pi, "1", "2", "3")
		l, p := attach(t, h, pi, 3*time.Hour)
		synctest.Wait()
		if got, _ := p.handed(); got != nil {
			t.Errorf("%q before the link wanted any", got)
		}
		l.Window(2)
		got, tokens := p.handed()
		same(t, "window of 2", got, "1", "2")
		if err := l.Settle(tokens[0], Complete); err != nil {
			t.Error(err)
		}
		got, more := p.handed()
		same(t, "one more", got, "3")
		send(t, h, pi, "4")
		got, _ = p.handed()
		same(t, "window is full", got)
		if err := l.Settle(more[0], Abandon); err != nil {
			t.Error(err)
		}
		got, _ = p.handed()
		same(t, "abandoned", got, "3")
		time.Sleep(time.Minute)
		synctest.Wait()
		got, _ = p.handed()
		same(t, "locks have run out", got, "2", "3")
		wantError(t, "old token", l.Settle(tokens[1], Complete), 412002)

		l.Window(0)
		l.Detach()
		wantError(t, "ended link", l.Settle(tokens[1], Complete), 404104)
		l, p = attach(t, h, pi, 3*time.Hour) // at once, without waiting for the locks
		l.Window(50)
		got, _ = p.handed()
		same(t, "next connection", got, "2", "3", "4")
		if body, _ := receiveC2D(t, h, pi); body != "" {
			t.Errorf("HTTPS is handed %q, which the link has", body)
		}
		time.Sleep(2 * time.Hour)
		l.Detach()
	})
}

func TestLargeC2DIsUnderWayInBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		for range 10 {
			if err := h.SendC2D(pi, C2D{Message: Message{Body: make([]byte, 60<<10)}}); err != nil {
				t.Fatal(err)
			}
		}
		l, p := attach(t, h, pi, time.Hour)
		defer l.Detach()
		l.Window(50)
		total := 0
		for {
			_, tokens := p.handed()
			if len(tokens) == 0 {
				break
			}
			if len(tokens) > 4 {
				t.Errorf("%d messages of 60 KiB at once", len(tokens))
			}
			total += len(tokens)
			for _, token := range tokens {
				must(t)(nil, l.Settle(token, Complete))
			}
		}
		if total != 10 {
			t.Errorf("%d messages came, want 10", total)
		}
	})
}

func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		send(t, h, mod, "1", "2")
		_, token := receiveC2D(t, h, mod)
		n, err := h.PurgeC2D(mod)
		if n != 2 || err != nil || pending(t, h, mod) != 0 {
			t.Errorf("purged %d, %v", n, err)
		}
		wantError(t, "purged", h.SettleC2D(mod, token, Complete), 412002)
		_, err = h.PurgeC2D(ID{Device: "ghost"})
		wantError(t, "purge unknown", err, 404001)
		time.Sleep(15 * time.Second)
		same(t, "feedback", feedbackOf(t, h), "1 Purged", "2 Purged")
	})
}

func TestC2DAckValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		for _, ack := range []string{"", "none", "positive", "negative", "full"} {
			for _, end := range []Outcome{Complete, Reject} {
				m := c2d(fmt.Sprint(ack, end), ack)
				if err := h.SendC2D(pi, m); err != nil {
					t.Fatal(err)
				}
				_, token := receiveC2D(t, h, pi)
				if err := h.SettleC2D(pi, token, end); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(15 * time.Second)
		same(t, "feedback", feedbackOf(t, h), "positive0 Success", "negative2 Rejected", "full0 Success", "full2 Rejected")
	})
}

func TestFeedbackBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		give := func(n int) {
			for range n {
				send(t, h, pi, "m")
				_, token := receiveC2D(t, h, pi)
				if err := h.SettleC2D(pi, token, Complete); err != nil {
					t.Fatal(err)
				}
			}
		}
		sizes := func() (all []int) {
			for {
				n, ok := h.ReceiveFeedback()
				if !ok {
					return all
				}
				var records []FeedbackRecord
				must(t)(nil, json.Unmarshal(n.Body, &records))
				must(t)(nil, h.SettleFeedback(n.Token, Complete))
				all = append(all, len(records))
			}
		}
		expect := func(what string, want ...int) {
			t.Helper()
			if got := sizes(); !slices.Equal(got, want) {
				t.Errorf("%s: batches of %v, want %v", what, got, want)
			}
		}
		give(1)
		expect("nothing was sent for long", 1)
		give(10)
		expect("the last was sent just now")
		time.Sleep(14 * time.Second)
		expect("14 s")
		time.Sleep(time.Second)
		synctest.Wait()
		expect("15 s", 10)
		give(130)
		expect("64 make a batch", 64, 64)

		if err := h.DeleteDevice("pi-01", "*"); err != nil { // with two records not yet sent
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		expect("the device is gone")
	})
}

func TestFeedbackLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t)
		send(t, h, pi, "1")
		must(t)(h.PurgeC2D(pi))
		n, ok := h.ReceiveFeedback()
		if _, again := h.ReceiveFeedback(); !ok || again {
			t.Fatalf("handed out: %v, then %v", ok, again)
		}
		wantError(t, "wrong token", h.SettleFeedback("x", Complete), 412002)
		must(t)(nil, h.SettleFeedback(n.Token, Abandon))
		n, ok = h.ReceiveFeedback()
		if !ok || n.Count != 1 {
			t.Errorf("abandoned: %+v, %v", n, ok)
		}
		time.Sleep(time.Minute)
		n, ok = h.ReceiveFeedback()
		if !ok || n.Count != 1 {
			t.Errorf("lock has run out: %+v, %v", n, ok)
		}
		for range 9 {
			must(t)(nil, h.SettleFeedback(n.Token, Abandon))
			n, ok = h.ReceiveFeedback()
		}
		if ok {
			t.Error("abandoned ten times and still there")
		}

		send(t, h, pi, "2")
		must(t)(h.PurgeC2D(pi))
		time.Sleep(time.Hour)
		if _, ok := h.ReceiveFeedback(); ok {
			t.Error("feedback an hour old is still there")
		}
	})
}

func TestUnreadFeedbackIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newHub(t), &notices{}
		for i := range 3 * maxNotices {
			h.post(q, feedbacks, json.RawMessage(fmt.Sprint(i)), time.Now())
		}
		n, ok := h.receive(q, feedbacks, time.Now())
		if len(q.box.all) != maxNotices || !ok || string(n.Body) != fmt.Sprint(2*maxNotices) {
			t.Errorf("%d notices, the first %s", len(q.box.all), n.Body)
		}
	})
}

func TestDisabledDeviceGetsNoC2D(t *testing.T) {
	h := newHub(t)
	send(t, h, mod, "1")
	if _, err := h.PutDevice(Device{DeviceID: "pi-01", Status: "disabled"}, "*"); err != nil {
		t.Fatal(err)
	}
	_, _, err := h.ReceiveC2D(mod)
	wantError(t, "receive", err, 403012)
	wantError(t, "settle", h.SettleC2D(mod, "x", Complete), 403012)
	send(t, h, mod, "2") // for when it is enabled again
}
