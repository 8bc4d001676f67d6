package restd

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// Cloud-to-device messages from the service's side. Sending by HTTPS stands in no document: Azure/azure-iot-explorer
// does it. A module's queue is purged at a path of ours; the cloud knows that of devices.
var messageRoutes = []route{
	{"POST", "devices/{device}/messages/devicebound", hub.ServiceConnect, (*Server).sendC2D},
	{"POST", "devices/{device}/modules/{module}/messages/devicebound", hub.ServiceConnect, (*Server).sendC2D},
	{"DELETE", "devices/{device}/commands", hub.ServiceConnect, (*Server).purgeC2D},
	{"DELETE", "devices/{device}/modules/{module}/commands", hub.ServiceConnect, (*Server).purgeC2D},
	{"GET", "messages/servicebound/feedback", hub.ServiceConnect, (*Server).feedback},
	{"DELETE", "messages/servicebound/feedback/{lock}", hub.ServiceConnect, (*Server).settleFeedback},
	{"POST", "messages/servicebound/feedback/{lock}/abandon", hub.ServiceConnect, (*Server).abandonFeedback},
}

const appPrefix = "iothub-app-" // of an application property's header

// systemHeaders are the headers that carry system properties, by the hub's names for them: azure-iot-sdk-c,
// iothubtransporthttp.c; azure-iot-cli-extension, constants.
var systemHeaders = map[string]string{
	"iothub-messageid":         "message-id",
	"iothub-correlationid":     "correlation-id",
	"iothub-userid":            "user-id",
	"iothub-to":                "to",
	"iothub-expiry":            "absolute-expiry-time",
	"iothub-contenttype":       "content-type",
	"iothub-contentencoding":   "content-encoding",
	"iothub-interface-id":      "iothub-interface-id",
	"iothub-creation-time-utc": "iothub-creation-time-utc",
	"dt-subject":               "dt-subject",
}

// message makes one of the request's headers and body.
func (x *exchange) message() (hub.Message, error) {
	body, err := x.body()
	if err != nil {
		return hub.Message{}, err
	}
	m := hub.Message{Body: body, Properties: map[string]string{}, System: map[string]string{}}
	for name, values := range x.r.Header {
		name = strings.ToLower(name)
		if app, ok := strings.CutPrefix(name, appPrefix); ok && app != "" {
			m.Properties[spelling(x.r, app)] = values[0]
		} else if system := systemHeaders[name]; system != "" && values[0] != "" {
			m.System[system] = values[0]
		}
	}
	return m, nil
}

func (s *Server) sendC2D(x *exchange) error {
	m, err := x.message()
	if err != nil {
		return err
	}
	c := hub.C2D{Message: m, Ack: strings.ToLower(x.r.Header.Get("iothub-ack"))}
	if text := m.System["absolute-expiry-time"]; text != "" {
		if c.Expires, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: "iothub-expiry: want a time like 2026-01-31T12:00:00Z"}
		}
	}
	err = s.hub.SendC2D(x.id, c)
	if id, twice := x.escapedTwice(); twice && isNotFound(err) {
		if err := s.hub.AuthService(x.r.Header.Get("Authorization"), hub.ServiceConnect, "/devices/"+id.Device+"/messages/devicebound"); err != nil {
			return err
		}
		err = s.hub.SendC2D(id, c)
	}
	return x.settled(err)
}

// escapedTwice answers the device that Azure IoT Explorer means here: it escapes the id, and then the whole path.
func (x *exchange) escapedTwice() (hub.ID, bool) {
	plain, err := url.PathUnescape(x.id.Device)
	whole := strings.Contains(strings.ToLower(x.r.URL.EscapedPath()), "%2fmessages%2f")
	return hub.ID{Device: plain}, whole && err == nil && plain != x.id.Device && x.id.Module == ""
}

func isNotFound(err error) bool {
	e, ok := errors.AsType[*hub.Error](err)
	return ok && e.Code == 404001
}

func (s *Server) purgeC2D(x *exchange) error {
	n, err := s.hub.PurgeC2D(x.id)
	if err != nil {
		return err
	}
	answer := struct {
		TotalMessagesPurged int     `json:"totalMessagesPurged"`
		DeviceID            string  `json:"deviceId"`
		ModuleID            *string `json:"moduleId"`
	}{n, x.id.Device, nil}
	if x.id.Module != "" {
		answer.ModuleID = &x.id.Module
	}
	return x.answer(answer)
}

func (s *Server) feedback(x *exchange) error {
	n, ok := s.hub.ReceiveFeedback()
	return x.notice(n, ok, "application/vnd.microsoft.iothub.feedback.json", s.hub.HostName())
}

// notice hands out a notification. Its lock token comes as that of a device's message does: in ETag.
func (x *exchange) notice(n hub.Notice, ok bool, kind, hubName string) error {
	if !ok {
		return x.nothing()
	}
	h := x.w.Header()
	h.Set("ETag", `"`+n.Token+`"`)
	h.Set("Content-Type", kind)
	put := func(name, value string) { h[name] = []string{value} } // these names are written in lower case
	put("iothub-sequencenumber", strconv.FormatUint(n.Sequence, 10))
	put("iothub-enqueuedtime", headerTime(n.Enqueued))
	put("iothub-deliverycount", strconv.Itoa(n.Count))
	put("iothub-userid", hubName)
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(n.Body) // nobody is left to be told of a failure
	return nil
}

func (s *Server) settleFeedback(x *exchange) error {
	return x.settled(s.hub.SettleFeedback(x.lock(), x.outcome()))
}

// outcome is that of a DELETE: completed, or rejected with the flag reject.
func (x *exchange) outcome() hub.Outcome {
	if _, reject := x.query("reject"); reject {
		return hub.Reject
	}
	return hub.Complete
}

func (s *Server) abandonFeedback(x *exchange) error {
	return x.settled(s.hub.SettleFeedback(x.lock(), hub.Abandon))
}

// lock is the lock token of the path, which some clients leave in the quotes of the ETag that it came in.
func (x *exchange) lock() string { return strings.Trim(x.names["lock"], `"`) }

func (x *exchange) settled(err error) error {
	if err != nil {
		return err
	}
	return x.nothing()
}

// headerTime is a time as the hub writes it into headers (azure-iot-cli-extension, tests of c2d-message receive).
func headerTime(t time.Time) string { return t.UTC().Format("01/02/2006 3:04:05 PM") }
