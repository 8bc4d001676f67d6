package hubtest_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/twinbay/twinbay/simulator/admin"
	"github.com/twinbay/twinbay/simulator/hubtest"
)

// t stands for the *testing.T that a test has and an example has not.
var t = &stage{}

// stage is what hubtest needs of a test. It ends after all examples.
type stage struct {
	testing.TB
	cleanups []func()
}

func (*stage) Helper()                        {}
func (*stage) Context() context.Context       { return context.Background() }
func (s *stage) Cleanup(f func())             { s.cleanups = append(s.cleanups, f) }
func (*stage) Fatal(args ...any)              { panic(fmt.Sprint(args...)) }
func (*stage) Fatalf(form string, arg ...any) { panic(fmt.Sprintf(form, arg...)) }
func (*stage) Errorf(form string, arg ...any) { panic(fmt.Sprintf(form, arg...)) }

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range t.cleanups {
		f()
	}
	os.Exit(code)
}

// connect is a device of a few lines, in the place of yours: it connects to the socket that h.Listen answers.
func connect(h *hubtest.Hub, who string) mqtt.Client {
	device, module, isModule := strings.Cut(who, "/")
	resource := "devices/" + device
	if isModule {
		resource += "/modules/" + module
	}
	token, err := admin.Token(h.OwnerConnectionString(), resource, time.Now().Add(time.Hour))
	if err != nil {
		panic(err)
	}
	c := mqtt.NewClient(mqtt.NewClientOptions().
		AddBroker("ssl://" + h.Listen()).
		SetTLSConfig(h.TLS()).
		SetClientID(who).
		SetUsername(h.Host() + "/" + who + "/?api-version=2021-04-12").
		SetPassword(token).
		SetMaxReconnectInterval(20 * time.Millisecond))
	if done := c.Connect(); done.Wait() && done.Error() != nil {
		panic(done.Error())
	}
	return c
}
