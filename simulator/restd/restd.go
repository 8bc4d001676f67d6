// Package restd is the HTTPS door of the simulated hub: the service REST API for identities, twins, direct methods,
// statistics and cloud-to-device messages, the API of devices, and, below /_sim, what only a simulator has: the stream
// of its events, fault rules, and what it does not support.
//
// Sources: Azure/azure-iot-hub-node, src/service.json, for paths and shapes; github.com/mwalser/
// terraform-provider-iothub, CONCEPT.md, for what a hub really answers; Microsoft Learn, "Azure IoT Hub error codes".
//
// Where the sources are silent, this door has chosen:
//
//   - Any api-version that reads like a date, with or without -preview, is taken and means 2021-04-12.
//   - An error of a direct method has the form with an error inside, except DeviceNotFound: the Node SDK knows that one
//     in the plain form only.
//   - errorCode in the result of a bulk operation is the error's name, as service.json has it; logs of imports have numbers.
//   - A device and a module may send telemetry and take cloud-to-device messages; sending one to a device answers 204.
//   - File upload notifications are read like feedback, at messages/serviceBound/filenotifications; the cloud has them by
//     AMQP alone.
//   - Names of application properties that come in headers keep their upper and lower case if the server is set up with
//     KeepSpelling, and come in lower case otherwise.
//   - The ETag header of a twin is quoted. The one of an identity is not, as measured.
package restd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twinbay/twinbay/simulator/hub"
)

const (
	maxBody     = 1 << 20  // bytes: a twin is at most 72 KiB, a method's payload 128 KiB, before escapes
	maxBulkBody = 16 << 20 // bytes: a hundred identities with their twins
)

// Server is the door, an http.Handler.
type Server struct {
	hub *hub.Hub
	log *slog.Logger
}

// New returns a door to h. A nil log means none.
func New(h *hub.Hub, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{hub: h, log: log}
}

// route is one operation. A name in braces in path is filled by the request: {device} and {module} come to handle in
// exchange.id, others in exchange.names.
type route struct {
	method, path string
	want         hub.Permission // of a policy's token; 0 where the caller is the identity of the path, by its own credential
	handle       func(*Server, *exchange) error
}

// routes are all operations; each family's stand beside their handlers.
var routes = slices.Concat(queryRoutes, jobRoutes, configurationRoutes, registryRoutes, twinRoutes, methodRoutes, importExportRoutes, messageRoutes, deviceRoutes, fileRoutes, simRoutes)

// exchange is one request and its answer.
type exchange struct {
	w http.ResponseWriter
	r *http.Request

	id    hub.ID            // of the path
	names map[string]string // of the path: what else it names in braces
	grant hub.Grant         // of the identity, where the caller is one
	limit int64             // bytes that the body may have; 0 means maxBody

	asDevice bool // the caller is the path's device, by its own credential
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "Microsoft-HTTPAPI/2.0") // some clients' traces show it
	h.Set("Vary", "Origin")
	h.Set("Date", s.hub.Now().UTC().Format(http.TimeFormat)) // some devices set their clock by it
	h.Set("x-ms-request-id", newGUID())
	r = WithTLS(r)
	x := &exchange{w: w, r: r}
	err := s.serve(x)
	if err == nil {
		return
	}
	s.log.Debug("request refused", "method", r.Method, "path", r.URL.Path, "error", err)
	x.refuse(err)
}

func (s *Server) serve(x *exchange) error {
	rt, err := x.route()
	if err != nil {
		s.hub.NoteUnsupported(x.r.Method + " " + x.r.URL.Path)
		return s.outOfScope(x, err)
	}
	simulators := strings.HasPrefix(rt.path, "_sim/")
	if !simulators {
		version, _ := x.query("api-version")
		if err := checkVersion(version); err != nil {
			return err
		}
	}
	if err := s.authorize(x, rt); err != nil {
		return err
	}
	if !simulators {
		if err := s.fault(x); err != nil {
			return err
		}
		if err := s.throttle(x, rt); err != nil {
			return err
		}
	}
	return rt.handle(s, x)
}

// authorize checks the credential of a request: a policy's token, or the token or the certificate of the identity whose
// path it is.
func (s *Server) authorize(x *exchange, rt route) error {
	token := x.r.Header.Get("Authorization")
	c := hub.Credential{Token: token}
	if x.r.TLS != nil {
		c.Certificates = x.r.TLS.PeerCertificates
	}
	var err error
	switch {
	case rt.devicesOwn():
		x.asDevice, err = s.hub.AuthModules(x.id.Device, c, rt.want, x.r.URL.Path)
	case rt.want != 0:
		err = s.hub.AuthService(token, rt.want, x.r.URL.Path)
	default:
		if x.grant, err = s.hub.Auth(x.id, c); err != nil {
			// The hub's events say why; a stranger is not told.
			err = &hub.Error{Code: 401002, Name: "IotHubUnauthorizedAccess", Text: "Unauthorized"}
		}
	}
	return err
}

// outOfScope tells a policy's token that does not cover a path no more about it, not even that nothing is there.
func (s *Server) outOfScope(x *exchange, nothing error) error {
	token := x.r.Header.Get("Authorization")
	if !strings.Contains(token, "skn=") {
		return nothing
	}
	if err := s.hub.AuthService(token, 0, x.r.URL.Path); err != nil {
		x.w.Header().Del("Allow")
		return err
	}
	return nothing
}

// route finds the operation by the path after one unescape: some clients escape the slashes, too. An id holds no slash,
// so nothing is lost by that.
func (x *exchange) route() (route, error) {
	clean := strings.Replace(x.r.URL.Path, "//messages/", "/messages/", 1) // the Java SDK doubles one (IotHubUri.java)
	path := strings.Split(strings.TrimSuffix(strings.TrimPrefix(clean, "/"), "/"), "/")
	known := false
	for _, rt := range routes {
		if !x.match(rt.path, path) {
			continue
		}
		if rt.method == x.r.Method {
			x.w.Header().Del("Allow") // of routes before this one
			return rt, nil
		}
		known = true
		x.w.Header().Add("Allow", rt.method)
	}
	if known {
		return route{}, &hub.Error{Code: 405000, Name: "GenericMethodNotAllowed", Text: "this hub is simulated and has no " + x.r.Method + " here"}
	}
	return route{}, &hub.Error{Code: 404000, Name: "GenericNotFound", Text: "this hub is simulated and has nothing at " + x.r.URL.Path}
}

// match fills the names in a pattern.
func (x *exchange) match(pattern string, path []string) bool {
	parts := strings.Split(pattern, "/")
	if len(parts) != len(path) {
		return false
	}
	x.id, x.names = hub.ID{}, nil
	for i, part := range parts {
		name, isName := strings.CutPrefix(part, "{")
		switch {
		case !isName:
			if !strings.EqualFold(part, path[i]) {
				return false
			}
		case path[i] == "":
			return false
		case name == "device}":
			x.id.Device = path[i]
		case name == "module}":
			x.id.Module = path[i]
		default:
			if x.names == nil {
				x.names = map[string]string{}
			}
			x.names[strings.TrimSuffix(name, "}")] = path[i]
		}
	}
	return true
}

var versionText = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$`)

func checkVersion(v string) error {
	if !versionText.MatchString(v) {
		return &hub.Error{Code: 400001, Name: "InvalidProtocolVersion", Text: "api-version is missing or unknown; send api-version=2021-04-12"}
	}
	return nil
}

// query is a parameter of the query, whose name may be in any case.
func (x *exchange) query(name string) (value string, given bool) {
	all := x.r.URL.Query()
	if all.Has(name) {
		return all.Get(name), true
	}
	for key, values := range all {
		if strings.EqualFold(key, name) {
			return values[0], true
		}
	}
	return "", false
}

func (x *exchange) ifMatch() string { return strings.TrimSpace(x.r.Header.Get("If-Match")) }

// body reads the request's body.
func (x *exchange) body() ([]byte, error) {
	limit := cmp.Or(x.limit, maxBody)
	text, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &hub.Error{Code: 413000, Name: "GenericRequestEntityTooLarge", Text: fmt.Sprintf("a body is at most %d MiB here", limit>>20)}
	}
	if err != nil {
		return nil, &hub.Error{Code: 400000, Name: "GenericBadRequest", Text: "the body broke off"}
	}
	return text, nil
}

// decode reads the request's body into v. Names match without regard to case, as the hub has it, and members that v
// lacks are ignored.
func (x *exchange) decode(v any) error {
	text, err := x.body()
	if err != nil {
		return err
	}
	if !utf8.Valid(text) {
		return &hub.Error{Code: 400006, Name: "IotHubFormatError", Text: "the body is not UTF-8"}
	}
	if err := json.Unmarshal(text, v); err != nil {
		return &hub.Error{Code: 400006, Name: "IotHubFormatError", Text: "the body is not the JSON wanted here: " + err.Error()}
	}
	return nil
}

// answer sends v as JSON, 200.
func (x *exchange) answer(v any) error {
	x.send(http.StatusOK, v)
	return nil
}

func (x *exchange) send(status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("restd: an answer that is not JSON: " + err.Error())
	}
	x.w.Header().Set("Content-Type", "application/json; charset=utf-8")
	x.w.WriteHeader(status)
	_, _ = x.w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n"))) // nobody is left to be told of a failure
}

// nothing answers 204.
func (x *exchange) nothing() error {
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}
