package restd

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/twinbay/twinbay/simulator/hub"
)

var registryRoutes = []route{
	{"GET", "devices", hub.RegistryRead, (*Server).listDevices},
	{"POST", "devices", hub.RegistryWrite, (*Server).bulk},
	{"POST", "devices/keys/regenerate", hub.RegistryWrite, (*Server).regenerateKeys},
	{"GET", "devices/{device}", hub.RegistryRead, (*Server).showDevice},
	{"PUT", "devices/{device}", hub.RegistryWrite, (*Server).putDevice},
	{"DELETE", "devices/{device}", hub.RegistryWrite, (*Server).deleteDevice},
	{"GET", "devices/{device}/modules", hub.RegistryRead, (*Server).listModules},
	{"GET", "devices/{device}/modules/{module}", hub.RegistryRead, (*Server).showModule},
	{"PUT", "devices/{device}/modules/{module}", hub.RegistryWrite, (*Server).putModule},
	{"DELETE", "devices/{device}/modules/{module}", hub.RegistryWrite, (*Server).deleteModule},
	{"PUT", "devices/{device}/modules/{module}/modules/{below}", hub.RegistryWrite, (*Server).moduleOfModule},
	{"GET", "statistics/devices", hub.RegistryRead, (*Server).deviceStatistics},
	{"GET", "statistics/service", hub.RegistryRead, (*Server).serviceStatistics},
}

// devicesOwn tells whether a device may do this by its own credential: manage its modules.
func (rt route) devicesOwn() bool {
	return rt.want&(hub.RegistryRead|hub.RegistryWrite) != 0 && strings.HasPrefix(rt.path, "devices/{device}/modules")
}

func (s *Server) listDevices(x *exchange) error {
	text, _ := x.query("top")
	top, _ := strconv.Atoi(text) // what is no number means the most, as what is out of range
	return x.answer(s.hub.Devices(top))
}

// bulk answers 400 with the same body if an identity was refused. The C# SDK takes that for a result, and not for an
// error, by a header of its own (Azure/azure-iot-sdk-csharp, HttpClientHelper.cs).
func (s *Server) bulk(x *exchange) error {
	x.limit = maxBulkBody
	var all []hub.ExportImportDevice
	if err := x.decode(&all); err != nil {
		return err
	}
	if err := s.bulkThrottle(x, len(all)); err != nil {
		return err
	}
	result, err := s.hub.BulkRegistry(all)
	switch {
	case err != nil:
		return err
	case result.IsSuccessful:
		return x.answer(result)
	}
	const failure = "BulkRegistryOperationFailure"
	x.w.Header().Set("iothub-errorcode", failure)
	x.w.Header().Set("IotHubErrorCode", failure)
	x.send(http.StatusBadRequest, result)
	return nil
}

// regenerateKeys answers 200, 207 if some identities keep their keys, and 400 if all do.
func (s *Server) regenerateKeys(x *exchange) error {
	x.limit = maxBulkBody
	var in struct {
		PolicyKey string
		Devices   []hub.KeyOwner
	}
	if err := x.decode(&in); err != nil {
		return err
	}
	if err := s.bulkThrottle(x, len(in.Devices)); err != nil {
		return err
	}
	result, err := s.hub.RegenerateKeys(in.PolicyKey, in.Devices)
	switch {
	case err != nil:
		return err
	case len(result.Errors) == 0:
		return x.answer(result)
	case len(result.RotatedKeys) > 0:
		x.send(http.StatusMultiStatus, result)
		return nil
	}
	x.w.Header().Set("iothub-errorcode", "BulkRegenerateDeviceKeyOperationFailure")
	x.send(http.StatusBadRequest, result)
	return nil
}

func (s *Server) moduleOfModule(x *exchange) error {
	return &hub.Error{Code: 400301, Name: "CannotRegisterModuleToModule", Text: "module " + x.id.String() + " can't have modules"}
}

func (s *Server) showDevice(x *exchange) error {
	d, err := s.hub.Device(x.id.Device)
	if err != nil {
		return err
	}
	return x.identity(d, d.ETag)
}

func (s *Server) putDevice(x *exchange) error {
	var in hub.Device
	if err := x.decode(&in); err != nil {
		return err
	}
	if err := sameID("deviceId", &in.DeviceID, x.id.Device); err != nil {
		return err
	}
	d, err := s.hub.PutDevice(in, x.ifMatch())
	if err != nil {
		return err
	}
	return x.identity(d, d.ETag)
}

func (s *Server) deleteDevice(x *exchange) error {
	if err := s.hub.DeleteDevice(x.id.Device, x.ifMatch()); err != nil {
		return err
	}
	return x.nothing()
}

func (s *Server) listModules(x *exchange) error {
	all, err := s.hub.Modules(x.id.Device)
	if err != nil {
		return err
	}
	return x.answer(all)
}

func (s *Server) showModule(x *exchange) error {
	m, err := s.hub.Module(x.id)
	if err != nil {
		return err
	}
	return x.identity(m, m.ETag)
}

func (s *Server) putModule(x *exchange) error {
	var in hub.Module
	if err := x.decode(&in); err != nil {
		return err
	}
	if err := sameID("deviceId", &in.DeviceID, x.id.Device); err != nil {
		return err
	}
	if err := sameID("moduleId", &in.ModuleID, x.id.Module); err != nil {
		return err
	}
	put := s.hub.PutModule
	if x.asDevice {
		put = s.hub.PutModuleAsDevice
	}
	m, err := put(in, x.ifMatch())
	if err != nil {
		return err
	}
	return x.identity(m, m.ETag)
}

func (s *Server) deleteModule(x *exchange) error {
	if err := s.hub.DeleteModule(x.id, x.ifMatch()); err != nil {
		return err
	}
	return x.nothing()
}

func (s *Server) deviceStatistics(x *exchange) error {
	all, _ := s.hub.Statistics()
	return x.answer(all)
}

func (s *Server) serviceStatistics(x *exchange) error {
	_, connected := s.hub.Statistics()
	return x.answer(map[string]int{"connectedDeviceCount": connected})
}

// identity answers an identity, whose etag is not quoted in the header.
func (x *exchange) identity(v any, etag string) error {
	x.w.Header().Set("ETag", etag)
	return x.answer(v)
}

// sameID holds the body to the path; a body may leave its id out.
func sameID(name string, body *string, path string) error {
	if *body != "" && *body != path {
		return &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: name + " of the body is " + strconv.Quote(*body) + ", of the path " + strconv.Quote(path)}
	}
	*body = path
	return nil
}
