package hubtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// A hub for one test, a module of a device, and its telemetry. In these examples t is the test's *testing.T, and connect
// stands for the device under test.
func ExampleNew() {
	h := hubtest.New(t, hub.Options{ModuleLimit: 50}) // Options may be left out
	credential := h.Module("pi-01", "bme280")         // a connection string, for a program that wants one
	fmt.Println(strings.HasPrefix(credential, "HostName="+h.Host()+";DeviceId=pi-01;ModuleId=bme280;SharedAccessKey="))

	device := connect(h, "pi-01/bme280")
	defer device.Disconnect(0)
	device.Publish("devices/pi-01/modules/bme280/messages/events/", 1, false, `{"temperature_c":6.5}`)

	e := h.WaitFor(t, "telemetry", "pi-01/bme280")
	fmt.Println(string(e.Body))
	// Output:
	// true
	// {"temperature_c":6.5}
}

// Each wait answers an event that no wait has answered before, however long ago it happened.
func ExampleHub_WaitFor() {
	h := hubtest.New(t)
	h.Device("pi-01")
	device := connect(h, "pi-01")
	fmt.Println(h.WaitFor(t, "connected", "pi-01").Detail)

	device.Publish("devices/pi-01/messages/events/", 1, false, `{"n":1}`)
	device.Publish("devices/pi-01/messages/events/", 1, false, `{"n":2}`)
	fmt.Println(string(h.WaitFor(t, "telemetry", "pi-01").Body))
	fmt.Println(string(h.WaitFor(t, "telemetry", "pi-01").Body))

	device.Disconnect(0)
	h.WaitFor(t, "disconnected", "pi-01")
	// Output:
	// MQTT 3.1.1
	// {"n":1}
	// {"n":2}
}

// Wait is WaitFor with a condition of your own.
func ExampleHub_Wait() {
	h := hubtest.New(t)
	h.Device("pi-01")
	device := connect(h, "pi-01")
	defer device.Disconnect(0)
	device.Publish("devices/pi-01/messages/events/kind=reading", 1, false, "20.5")
	device.Publish("devices/pi-01/messages/events/kind=alarm", 1, false, "99.5")

	alarm := h.Wait(t, func(e hub.Event) bool { return e.Kind == "telemetry" && e.Properties["kind"] == "alarm" })
	fmt.Println(string(alarm.Body))
	// Output: 99.5
}

// A service desires, the device sets and reports: the test waits for the state, however many steps lead to it.
func ExampleHub_WaitReported() {
	h := hubtest.New(t)
	h.Module("pi-01", "bme280")
	device := connect(h, "pi-01/bme280")
	defer device.Disconnect(0)
	device.Subscribe("$iothub/twin/PATCH/properties/desired/#", 0, func(device mqtt.Client, m mqtt.Message) {
		device.Publish("$iothub/twin/PATCH/properties/reported/?$rid=1", 0, false, `{"interval_ms":{"value":5000,"ac":200,"av":2}}`)
	}).Wait()

	h.Desire("pi-01/bme280", `{"interval_ms":5000}`)
	twin := h.WaitReported(t, "pi-01/bme280", `{"interval_ms":{"value":5000,"ac":200},"error":null}`)
	fmt.Println("reported version", twin.Properties.Reported["$version"])
	// Output: reported version 2
}

// What a service under test writes is awaited as well.
func ExampleHub_WaitDesired() {
	h := hubtest.New(t)
	h.Device("pi-01")
	go h.PatchTwin(hub.ID{Device: "pi-01"}, json.RawMessage(`{"properties":{"desired":{"mode":"slow","limits":{"low":2,"high":8}}}}`), "")

	twin := h.WaitDesired(t, "pi-01", `{"limits":{"high":8}}`)
	fmt.Println(twin.Properties.Desired["mode"])
	// Output: slow
}

// WaitTwin waits for anything that a twin shows: connection state, tags, versions.
func ExampleHub_WaitTwin() {
	h := hubtest.New(t)
	h.Device("pi-01")
	device := connect(h, "pi-01")
	defer device.Disconnect(0)

	twin := h.WaitTwin(t, "pi-01", func(twin hub.Twin) bool { return twin.ConnectionState == "Connected" })
	fmt.Println(twin.DeviceID, twin.AuthenticationType)
	// Output: pi-01 sas
}

// A direct method, as a service calls it.
func ExampleHub_Call() {
	h := hubtest.New(t)
	h.Module("pi-01", "door")
	device := connect(h, "pi-01/door")
	defer device.Disconnect(0)
	device.Subscribe("$iothub/methods/POST/#", 0, func(device mqtt.Client, m mqtt.Message) {
		_, rid, _ := strings.Cut(m.Topic(), "$rid=")
		device.Publish("$iothub/methods/res/200/?$rid="+rid, 0, false, `{"locked":true}`)
	}).Wait()

	r := h.Call("pi-01/door", "lock", `{"for_s":60}`)
	fmt.Println(r.Status, string(r.Payload))
	// Output: 200 {"locked":true}
}

// A cloud-to-device message waits until the device has it.
func ExampleHub_Send() {
	h := hubtest.New(t)
	h.Device("pi-01")
	h.Send("pi-01", "closed on Sunday")

	device := connect(h, "pi-01")
	defer device.Disconnect(0)
	got := make(chan string, 1)
	device.Subscribe("devices/pi-01/messages/devicebound/#", 1, func(_ mqtt.Client, m mqtt.Message) { got <- string(m.Payload()) })
	fmt.Println(<-got)
	// Output: closed on Sunday
}

// The hub cuts the connection at the second message, without an answer: does the device send it again?
func ExampleHub_Fault() {
	h := hubtest.New(t)
	h.Device("pi-01")
	h.Fault(hub.Fault{On: "publish", Who: "pi-01", After: 1, Times: 1, Do: "kick"})

	device := connect(h, "pi-01")
	defer device.Disconnect(0)
	for n := range 3 {
		device.Publish("devices/pi-01/messages/events/", 1, false, fmt.Sprint(n))
	}
	for n := range 3 {
		e := h.Wait(t, func(e hub.Event) bool { return e.Kind == "telemetry" && string(e.Body) == fmt.Sprint(n) })
		fmt.Println(string(e.Body))
	}
	// Output:
	// 0
	// 1
	// 2
}

// The hub goes down and comes back. What it knows stays.
func ExampleHub_Down() {
	h := hubtest.New(t)
	h.Device("pi-01")
	device := connect(h, "pi-01")
	defer device.Disconnect(0)
	h.WaitFor(t, "connected", "pi-01")

	h.Down()
	h.WaitFor(t, "disconnected", "pi-01")
	h.Up()
	h.WaitFor(t, "connected", "pi-01") // the device has come by itself
	fmt.Println("connected again")
	// Output: connected again
}

// The service API, as any REST client sees it.
func ExampleHub_HTTP() {
	h := hubtest.New(t)
	h.Device("pi-01")
	request, err := http.NewRequest("POST", "https://"+h.Host()+"/devices/query?api-version=2021-04-12",
		strings.NewReader(`{"query":"SELECT deviceId FROM devices"}`))
	if err != nil {
		t.Fatal(err)
	}
	token, err := admin.Token(h.OwnerConnectionString(), "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := h.HTTP().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	fmt.Println(answer.StatusCode, string(body), err)
	// Output: 200 [{"deviceId":"pi-01"}] <nil>
}

// In a bubble of testing/synctest a day costs nothing. A client that dials by a function of its own gets h.DialTLS.
func ExampleHub_DialTLS() {
	test := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := hubtest.New(t)
			h.Device("pi-01")
			nc, err := h.DialTLS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			time.Sleep(24 * time.Hour) // at once
			if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a client that says nothing stays connected: %v", err)
			}
		})
	}
	_ = test // go test calls it, under a name that begins with Test
}
