package restd

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// The API of devices: Microsoft Learn, "Choose a device communication protocol", and what the HTTP transports of
// azure-iot-sdk-c (iothubtransporthttp.c), azure-iot-sdk-node and azure-iot-sdk-java send. Java forms the paths of
// modules.
var deviceRoutes = []route{
	{"POST", "devices/{device}/messages/events", 0, (*Server).sendTelemetry},
	{"POST", "devices/{device}/modules/{module}/messages/events", 0, (*Server).sendTelemetry},
	{"GET", "devices/{device}/messages/devicebound", 0, (*Server).receiveC2D},
	{"GET", "devices/{device}/modules/{module}/messages/devicebound", 0, (*Server).receiveC2D},
	{"DELETE", "devices/{device}/messages/devicebound/{lock}", 0, (*Server).settleC2D},
	{"DELETE", "devices/{device}/modules/{module}/messages/devicebound/{lock}", 0, (*Server).settleC2D},
	{"POST", "devices/{device}/messages/devicebound/{lock}/abandon", 0, (*Server).abandonC2D},
	{"POST", "devices/{device}/modules/{module}/messages/devicebound/{lock}/abandon", 0, (*Server).abandonC2D},
}

const (
	batchType = "application/vnd.microsoft.iothub.json"
	maxBatch  = 256 << 10 // bytes of all messages together: "IoT Hub quotas and throttling"
)

func (s *Server) sendTelemetry(x *exchange) error {
	kind, _, _ := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if kind != batchType {
		m, err := x.message()
		if err != nil {
			return err
		}
		return x.settled(s.hub.Telemetry(x.grant, m))
	}
	body, err := x.body()
	if err != nil {
		return err
	}
	batch, err := parseBatch(body)
	if err != nil {
		return err
	}
	for _, m := range batch {
		if err := s.hub.Telemetry(x.grant, m); err != nil {
			return err
		}
	}
	return x.nothing()
}

// parseBatch reads [{"body":"…","base64Encoded":true,"properties":{"iothub-app-k":"v"}}]. A body is base64 unless the
// message says otherwise: Node never says it, and C says so of texts alone.
func parseBatch(text []byte) ([]hub.Message, error) {
	var in []struct {
		Body          string
		Base64Encoded *bool
		Properties    map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, &hub.Error{Code: 400006, Name: "IotHubFormatError", Text: "the body is not an array of messages: " + err.Error()}
	}
	size := 0
	batch := make([]hub.Message, 0, len(in))
	for i, one := range in {
		m := hub.Message{Body: []byte(one.Body), Properties: map[string]string{}, System: map[string]string{}}
		if one.Base64Encoded == nil || *one.Base64Encoded {
			raw, err := base64.StdEncoding.DecodeString(one.Body)
			if err != nil {
				return nil, &hub.Error{Code: 400004, Name: "ArgumentInvalid",
					Text: "body of message " + strconv.Itoa(i) + " is not base64; a text needs \"base64Encoded\":false"}
			}
			m.Body = raw
		}
		size += len(m.Body)
		for name, raw := range one.Properties {
			value := string(raw)
			_ = json.Unmarshal(raw, &value) // what is no string, a number say, stands as it is
			size += len(name) + len(value)
			if system := systemHeaders[strings.ToLower(name)]; system != "" {
				m.System[system] = value
			} else {
				m.Properties[trimApp(name)] = value
			}
		}
		batch = append(batch, m)
	}
	if size > maxBatch {
		return nil, &hub.Error{Code: 413001, Name: "MessageTooLarge", Text: "a batch is at most 262144 bytes with its properties"}
	}
	return batch, nil
}

// trimApp takes the prefix off an application property's name. Without one, the name is the property's own.
func trimApp(name string) string {
	if len(name) > len(appPrefix) && strings.EqualFold(name[:len(appPrefix)], appPrefix) {
		return name[len(appPrefix):]
	}
	return name
}

func (s *Server) receiveC2D(x *exchange) error {
	d, ok, err := s.hub.ReceiveC2D(x.id)
	if err != nil {
		return err
	}
	if !ok {
		return x.nothing()
	}
	h := x.w.Header()
	h.Set("ETag", `"`+d.Token+`"`)
	h.Set("Content-Type", "application/octet-stream")
	put := func(name, value string) { h[name] = []string{value} } // written as they are: to some clients the case matters
	put("iothub-messageid", d.System["message-id"])
	put("iothub-correlationid", d.System["correlation-id"]) // these are there even when they are empty
	put("iothub-userid", d.System["user-id"])
	put("iothub-to", d.System["to"])
	put("iothub-ack", d.Ack)
	put("iothub-sequencenumber", strconv.FormatUint(d.Sequence, 10))
	put("iothub-enqueuedtime", headerTime(d.Enqueued))
	put("iothub-deliverycount", strconv.Itoa(d.Count))
	put("iothub-expiry", "")
	if !d.Expires.IsZero() {
		put("iothub-expiry", d.Expires.UTC().Format(time.RFC3339Nano))
	}
	for _, both := range [...][2]string{{"content-type", "ContentType"}, {"content-encoding", "ContentEncoding"}} {
		if v := d.System[both[0]]; v != "" {
			put(both[1], v)
			put("iothub-"+strings.ReplaceAll(both[0], "-", ""), v)
		}
	}
	for name, value := range d.Properties {
		put(appPrefix+name, value)
	}
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(d.Body) // nobody is left to be told of a failure: the lock runs out
	return nil
}

func (s *Server) settleC2D(x *exchange) error {
	return x.settled(s.hub.SettleC2D(x.id, x.lock(), x.outcome()))
}

func (s *Server) abandonC2D(x *exchange) error {
	return x.settled(s.hub.SettleC2D(x.id, x.lock(), hub.Abandon))
}
