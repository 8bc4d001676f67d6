package restd

import (
	"strconv"

	"github.com/twinbay/twinbay/simulator/hub"
)

var queryRoutes = []route{
	{"POST", "devices/query", hub.ServiceConnect, (*Server).query},
}

func (s *Server) query(x *exchange) error {
	var in struct{ Query *string }
	if err := x.decode(&in); err != nil {
		return err
	}
	if in.Query == nil {
		return &hub.Error{Code: 400005, Name: "ArgumentNull", Text: "the body has no query; send {\"query\": \"SELECT * FROM devices\"}"}
	}
	size, err := x.pageSize()
	if err != nil {
		return err
	}
	p, err := s.hub.Query(*in.Query, size, x.r.Header.Get("x-ms-continuation"))
	if err != nil {
		return err
	}
	return x.page(p)
}

// pageSize is how many items the caller wants on a page; 0 if it does not say.
func (x *exchange) pageSize() (int, error) {
	text := x.r.Header.Get("x-ms-max-item-count")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, &hub.Error{Code: 400004, Name: "ArgumentInvalid", Text: "x-ms-max-item-count is " + strconv.Quote(text) + ": want a number from 1"}
	}
	return n, nil
}

// page answers a page. Its last one has no x-ms-continuation: an empty one makes the Node SDK ask for ever.
func (x *exchange) page(p hub.Page) error {
	x.w.Header().Set("x-ms-item-type", p.Type)
	if p.Continuation != "" {
		x.w.Header().Set("x-ms-continuation", p.Continuation)
	}
	return x.answer(p.Items)
}
