package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/agent/inbox"
	"github.com/twinbay/twinbay/agent/local"
	"github.com/twinbay/twinbay/simulator/hub"
)

// send sends the device a cloud-to-device message.
func (r *rig) send(id, body string) {
	r.t.Helper()
	m := hub.C2D{Message: hub.Message{Body: []byte(body), System: map[string]string{"message-id": id}, Properties: map[string]string{"lang": "de/CH"}}}
	if err := r.hub.SendC2D(hub.ID{Device: deviceID}, m); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) mail() (messages []local.CloudMessage, ids string) {
	r.t.Helper()
	messages, err := r.agent.Messages(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range messages {
		ids += " " + m.ID
	}
	return messages, strings.TrimSpace(ids)
}

func TestCloudToDeviceMessagesStayUntilTheyAreDismissed(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.send("early", `{"text":"before the first start"}`)
		r.start()
		time.Sleep(10 * time.Second)
		r.send("json", `{"n": 1.50}`)
		r.send("text", "plain text")
		r.send("bytes", "\xff\x00")
		synctest.Wait() // else what is under way when the link breaks comes again, behind later ones
		r.hub.Down()
		r.send("offline", `1`)
		time.Sleep(time.Minute)
		r.hub.Up()
		time.Sleep(time.Minute)
		got, ids := r.mail()
		if ids != "early json text bytes offline" {
			t.Fatalf("messages %q", ids)
		}
		if string(got[1].Body) != `{"n": 1.50}` || got[2].Text != "plain text" || string(got[3].Base64) != "\xff\x00" || got[1].Properties["lang"] != "de/CH" {
			t.Errorf("%+v", got)
		}
		if n := r.agent.Status().Messages; n != 5 {
			t.Errorf("status counts %d", n)
		}
		if err := r.agent.Dismiss(t.Context(), "json"); err != nil {
			t.Error(err)
		}
		if err := r.agent.Dismiss(t.Context(), fmt.Sprint(got[2].Number)); err != nil {
			t.Error(err)
		}
		if err := r.agent.Dismiss(t.Context(), "json"); err == nil {
			t.Error("dismissed twice")
		}
		r.send("early", `{"text":"the same once more"}`) // a sender's retry
		r.send("json", `{"n": 1.50}`)                    // of one that is dismissed
		time.Sleep(time.Minute)
		r.stop()
		r.start()
		time.Sleep(5 * time.Minute) // longer than the hub's lock
		if _, ids := r.mail(); ids != "early bytes offline" {
			t.Errorf("after a restart: %q", ids)
		}
		if d, err := r.hub.Hub.Twin(hub.ID{Device: deviceID}); err != nil || d.CloudToDeviceMessageCount != 0 {
			t.Errorf("the hub still has %d, %v", d.CloudToDeviceMessageCount, err)
		}
		r.send("next", `2`)
		time.Sleep(time.Minute)
		if got, _ := r.mail(); len(got) != 4 || got[3].Number <= 5 {
			t.Errorf("numbers repeat: %+v", got)
		}
	})
}

func TestFullInboxLeavesMessagesToTheHub(t *testing.T) {
	bubbles(t, func(t *testing.T, mqtt string) {
		r := newRig(t, mqtt, "", "coins")
		r.start()
		for n := range inbox.MaxMessages + 5 {
			r.send(fmt.Sprint("m", n), `1`)
			time.Sleep(10 * time.Second)
		}
		got, _ := r.mail()
		if len(got) != inbox.MaxMessages {
			t.Errorf("%d messages are kept", len(got))
		}
		if notice := r.agent.Status().Session.Notice; !strings.Contains(notice, "twinbay messages") {
			t.Errorf("the notice is %q", notice)
		}
		for n := range 10 {
			if err := r.agent.Dismiss(t.Context(), fmt.Sprint("m", n)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		if got, ids := r.mail(); len(got) != inbox.MaxMessages-5 || !strings.HasSuffix(ids, fmt.Sprint("m", inbox.MaxMessages+4)) {
			t.Errorf("%d messages: %s", len(got), ids)
		}
		if notice := r.agent.Status().Session.Notice; notice != "" {
			t.Errorf("the notice stays: %q", notice)
		}
	})
}
