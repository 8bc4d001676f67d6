package restd

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/twinbay/twinbay/simulator/hub"
)

// create makes identities through the whole door: route, token, body, registry, answer.
func create(b *testing.B, path func(int) string, before func(*hub.Hub, int)) {
	h := hub.New(hub.Options{HostName: hubHost, Policies: []hub.Policy{{Name: "iothubowner", Permissions: hub.Owner, PrimaryKey: testKey}}})
	s := New(h, nil)
	token := sas(hubHost, "iothubowner")
	i := 0
	for b.Loop() {
		before(h, i)
		r := request("PUT "+path(i), `{"status":"enabled"}`)
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

func BenchmarkCreateDevice(b *testing.B) {
	create(b, func(i int) string { return fmt.Sprint("/devices/d", i) }, func(*hub.Hub, int) {})
}

func BenchmarkCreateModule(b *testing.B) {
	create(b, func(i int) string { return fmt.Sprintf("/devices/d%d/modules/m%d", i/20, i) }, func(h *hub.Hub, i int) {
		if i%20 == 0 {
			if _, err := h.PutDevice(hub.Device{DeviceID: fmt.Sprint("d", i/20)}, ""); err != nil {
				b.Fatal(err)
			}
		}
	})
}
