package mqttd_test

import (
	"testing"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// A device that is disabled or deleted takes its modules' connections with it.
func TestDisabledAndDeletedDevicesAreCut(t *testing.T) {
	for name, do := range map[string]func(*hubtest.Hub) error{
		"disabled": func(h *hubtest.Hub) error {
			_, err := h.PutDevice(hub.Device{DeviceID: "pi-01", Status: "disabled"}, "*")
			return err
		},
		"deleted": func(h *hubtest.Hub) error { return h.DeleteDevice("pi-01", "*") },
		"new key": func(h *hubtest.Hub) error {
			if _, err := h.PutModule(hub.Module{DeviceID: "pi-01", ModuleID: "bme280"}, "*"); err != nil {
				return err
			}
			_, err := h.PutDevice(hub.Device{DeviceID: "pi-01"}, "*")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				m := module(t, h)
				d := parseCredential(t, mustConnectionString(t, h, hub.ID{Device: "pi-01"}))
				open := []*raw{connect(t, h, m, hello{}, 0), connect(t, h, d, hello{}, 0)}
				if err := do(h); err != nil {
					t.Fatal(err)
				}
				for _, r := range open {
					r.closed()
					r = dial(t, h, r.c)
					r.send(hello{}.packet(r.c))
					r.expect(0x20, []byte{0, 5})
					r.closed()
				}
			})
		})
	}
}
