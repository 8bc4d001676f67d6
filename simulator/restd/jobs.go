package restd

import "github.com/twinbay/twinbay/simulator/hub"

var jobRoutes = []route{
	{"GET", "jobs/v2/query", hub.ServiceConnect, (*Server).listJobs},
	{"PUT", "jobs/v2/{job}", hub.ServiceConnect, (*Server).scheduleJob},
	{"GET", "jobs/v2/{job}", hub.ServiceConnect, (*Server).showJob},
	{"POST", "jobs/v2/{job}/cancel", hub.ServiceConnect, (*Server).cancelJob},
}

func (s *Server) scheduleJob(x *exchange) error {
	var in hub.JobRequest
	if err := x.decode(&in); err != nil {
		return err
	}
	if err := sameID("jobId", &in.JobID, x.names["job"]); err != nil {
		return err
	}
	j, err := s.hub.ScheduleJob(in)
	if err != nil {
		return err
	}
	return x.answer(j)
}

func (s *Server) showJob(x *exchange) error { return x.answer(s.hub.Job(x.names["job"])) }

func (s *Server) cancelJob(x *exchange) error {
	j, err := s.hub.CancelJob(x.names["job"])
	if err != nil {
		return err
	}
	return x.answer(j)
}

func (s *Server) listJobs(x *exchange) error {
	size, err := x.pageSize()
	if err != nil {
		return err
	}
	kind, _ := x.query("jobType")
	status, _ := x.query("jobStatus")
	p, err := s.hub.Jobs(kind, status, size, x.r.Header.Get("x-ms-continuation"))
	if err != nil {
		return err
	}
	return x.page(p)
}
