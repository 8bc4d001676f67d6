package restd

import "github.com/twinbay/twinbay/simulator/hub"

// File uploads: Microsoft Learn, "Upload files with IoT Hub". They are for devices alone. The Node SDK puts the correlation id into the path.
var fileRoutes = []route{
	{"POST", "devices/{device}/files", 0, (*Server).beginUpload},
	{"POST", "devices/{device}/files/notifications", 0, (*Server).endUpload},
	{"POST", "devices/{device}/files/notifications/{correlation}", 0, (*Server).endUpload},
	{"POST", "devices/{device}/modules/{module}/files", 0, (*Server).beginUpload}, // refused with the reason
	{"GET", "messages/servicebound/filenotifications", hub.ServiceConnect, (*Server).fileNotice},
	{"DELETE", "messages/servicebound/filenotifications/{lock}", hub.ServiceConnect, (*Server).settleFileNotice},
	{"POST", "messages/servicebound/filenotifications/{lock}/abandon", hub.ServiceConnect, (*Server).abandonFileNotice},
}

func (s *Server) beginUpload(x *exchange) error {
	var in struct{ BlobName string }
	if err := x.decode(&in); err != nil {
		return err
	}
	u, err := s.hub.BeginUpload(x.grant, in.BlobName)
	if err != nil {
		return err
	}
	return x.answer(u)
}

func (s *Server) endUpload(x *exchange) error {
	var in struct {
		CorrelationID     string
		IsSuccess         bool
		StatusCode        int
		StatusDescription string
	}
	if err := x.decode(&in); err != nil {
		return err
	}
	if id := x.names["correlation"]; id != "" {
		in.CorrelationID = id
	}
	return x.settled(s.hub.EndUpload(x.r.Context(), x.grant, in.CorrelationID, in.IsSuccess))
}

func (s *Server) fileNotice(x *exchange) error {
	n, ok := s.hub.ReceiveFileNotice()
	return x.notice(n, ok, "application/vnd.microsoft.iothub.filenotification.json", s.hub.HostName())
}

func (s *Server) settleFileNotice(x *exchange) error {
	return x.settled(s.hub.SettleFileNotice(x.lock(), x.outcome()))
}

func (s *Server) abandonFileNotice(x *exchange) error {
	return x.settled(s.hub.SettleFileNotice(x.lock(), hub.Abandon))
}
