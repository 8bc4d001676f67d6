package hubtest_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// The page shows the test that is compiled and run here, to the letter.
func TestPageShowsTheTest(t *testing.T) {
	page, err := os.ReadFile("../../docs/hubtest.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("paste_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```go\n")
	shown, _, _ := strings.Cut(rest, "```\n")
	if shown != string(source) {
		t.Error("docs/hubtest.md does not show simulator/hubtest/paste_test.go; copy it into the page's Go block")
	}
}

func get(t *testing.T, h *hubtest.Hub, c *http.Client, host string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+host+"/devices/pi-01?api-version=2021-04-12", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", ownerToken(t, h))
	answer, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

func TestRESTInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		h.Device("pi-01")
		c := h.HTTP()
		status, body, err := get(t, h, c, h.Host())
		if status != 200 || !strings.Contains(body, `"deviceId":"pi-01"`) || err != nil {
			t.Errorf("%d %s, %v", status, body, err)
		}
		h.Down()
		synctest.Wait()
		if status, _, err := get(t, h, c, h.Host()); err == nil { // over the connection that was kept, or a new one
			t.Errorf("a hub that is down answers %d", status)
		}
		h.Up()
		if status, _, err := get(t, h, c, h.Host()); status != 200 || err != nil {
			t.Errorf("a hub that is up again answers %d, %v", status, err)
		}
	})
}

func TestRESTOnASocket(t *testing.T) {
	h := hubtest.New(t)
	h.Device("pi-01")
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: h.TLS()}}
	defer c.CloseIdleConnections()
	if status, body, err := get(t, h, c, h.ListenHTTPS()); status != 200 || err != nil {
		t.Errorf("%d %s, %v", status, body, err)
	}
	if _, err := tls.Dial("tcp", h.ListenHTTPS(), &tls.Config{ServerName: h.Host()}); err == nil {
		t.Error("a stranger trusts the certificate")
	}
}

func TestServiceLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(t)
		h.Module("pi-01", "bme280")
		h.Desire("pi-01/bme280", `{"interval_ms":5}`)
		if e := h.WaitFor(t, "desired", "pi-01/bme280"); string(e.Body) != `{"$version":2,"interval_ms":5}` {
			t.Errorf("desired %s", e.Body)
		}
		h.Send("pi-01", "hello")
		if d, err := h.Hub.Device("pi-01"); err != nil || d.CloudToDeviceMessageCount != 1 {
			t.Errorf("%d messages wait, %v", d.CloudToDeviceMessageCount, err)
		}

		grant, err := h.AuthSAS(hub.ID{Device: "pi-01"}, ownerToken(t, h))
		if err != nil {
			t.Fatal(err)
		}
		p := &echo{}
		if p.link, err = h.Attach(grant, p); err != nil {
			t.Fatal(err)
		}
		p.link.Want(hub.Methods, true)
		if r := h.Call("pi-01", "echo", `[1]`); r.Status != 200 || string(r.Payload) != `[1]` {
			t.Errorf("%+v", r)
		}
	})
}

// echo is a device that answers a direct method with what it is given.
type echo struct{ link *hub.Link }

func (*echo) Desired(json.RawMessage, int64)                  {}
func (*echo) CloudToDevice(hub.Delivery)                      {}
func (*echo) Close(*hub.Error)                                {}
func (p *echo) Method(rid, _ string, payload json.RawMessage) { p.link.MethodResult(rid, 200, payload) }

func ownerToken(t *testing.T, h *hubtest.Hub) string {
	t.Helper()
	token, err := admin.Token(h.OwnerConnectionString(), "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return token
}
