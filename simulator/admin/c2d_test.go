package admin_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hub"
)

func TestCloudToDevice(t *testing.T) {
	h, c := serve(t)
	ctx := t.Context()
	id := admin.ID{Device: "a%2Fb", Module: "c#d?"}
	for _, id := range []admin.ID{{Device: id.Device}, id} {
		if _, err := c.Create(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
	}
	expires := time.Now().Add(time.Minute)
	m := admin.C2D{Body: []byte("{\xff"), Properties: map[string]string{"k": "v w=x"}, MessageID: "m1", Ack: "full", Expires: expires}
	if err := c.SendC2D(ctx, id, m); err != nil {
		t.Fatal(err)
	}
	d, ok, err := h.ReceiveC2D(hub.ID(id))
	if !ok || err != nil || string(d.Body) != "{\xff" || d.Properties["k"] != "v w=x" || d.System["message-id"] != "m1" || !d.Expires.Equal(expires) {
		t.Errorf("%+v %v %v", d, ok, err)
	}
	if f, err := c.Feedback(ctx); err != nil || f.Records != nil {
		t.Errorf("feedback before there is any: %s %v", f.Records, err)
	}
	if err := c.SendC2D(ctx, id, admin.C2D{}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.PurgeC2D(ctx, id); n != 2 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	f, err := c.Feedback(ctx)
	if err != nil || !strings.Contains(string(f.Records), `"originalMessageId":"m1"`) || !strings.Contains(string(f.Records), `"Purged"`) {
		t.Errorf("feedback %s, %v", f.Records, err)
	}
	if err := c.CompleteFeedback(ctx, f); err != nil {
		t.Error(err)
	}
	refused(t, "complete again", c.CompleteFeedback(ctx, f), 412, "DeviceMessageLockLost")
	refused(t, "unknown device", c.SendC2D(ctx, admin.ID{Device: "x"}, m), 404, "DeviceNotFound")
	_, err = c.PurgeC2D(ctx, admin.ID{Device: "x"})
	refused(t, "purge an unknown device", err, 404, "DeviceNotFound")
}
