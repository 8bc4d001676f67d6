package hubtest_test

import (
	"net/http"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// What is tested here is a device of a few lines; yours takes its place.
func TestADevice(t *testing.T) {
	h := hubtest.New(t, hub.Options{ModuleLimit: 50})
	h.Module("pi-01", "bme280") // its connection string, for a program that wants one
	token, err := admin.Token(h.OwnerConnectionString(), "devices/pi-01/modules/bme280", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	device := mqtt.NewClient(mqtt.NewClientOptions().
		AddBroker("ssl://" + h.Listen()).
		SetTLSConfig(h.TLS()).
		SetClientID("pi-01/bme280").
		SetUsername(h.Host() + "/pi-01/bme280/?api-version=2021-04-12").
		SetPassword(token).
		SetConnectRetry(true).
		SetConnectRetryInterval(10 * time.Millisecond))
	defer device.Disconnect(0)

	h.Fault(hub.Fault{On: "connect", Who: "pi-01/*", Times: 1, Do: "refuse"}) // the first try fails
	if c := device.Connect(); c.Wait() && c.Error() != nil {
		t.Fatal(c.Error())
	}
	h.WaitFor(t, "connected", "pi-01/bme280")

	desired := make(chan string, 1)
	device.Subscribe("$iothub/twin/PATCH/properties/desired/#", 0, func(_ mqtt.Client, m mqtt.Message) {
		desired <- string(m.Payload())
	}).Wait()
	h.Desire("pi-01/bme280", `{"interval_ms":1000}`)
	if got := <-desired; got != `{"$version":2,"interval_ms":1000}` {
		t.Errorf("the device is told %s", got)
	}

	device.Publish("devices/pi-01/modules/bme280/messages/events/", 1, false, `{"temperature_c":6.5}`)
	if e := h.WaitFor(t, "telemetry", "pi-01/bme280"); string(e.Body) != `{"temperature_c":6.5}` {
		t.Errorf("the hub has %s", e.Body)
	}

	// The service API, as any REST client sees it.
	request, err := http.NewRequest("GET", "https://"+h.Host()+"/twins/pi-01/modules/bme280?api-version=2021-04-12", nil)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := admin.Token(h.OwnerConnectionString(), "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", owner)
	answer, err := h.HTTP().Do(request)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
}
