package restd

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/conformance"
)

// The support table has a row for each route of the hub's API, and names no other.
func TestEveryRouteIsInTheSupportTable(t *testing.T) {
	var have, told []string
	for _, rt := range routes {
		if !strings.HasPrefix(rt.path, "_sim/") {
			have = append(have, rt.method+" "+rt.path)
		}
	}
	for _, a := range conformance.Table() {
		for _, o := range a.Operations {
			told = append(told, o.Routes...)
		}
	}
	for _, r := range have {
		if !slices.Contains(told, r) {
			t.Errorf("%s: no row of simulator/conformance/support.json has it in routes", r)
		}
	}
	for _, r := range told {
		if !slices.Contains(have, r) {
			t.Errorf("%s: in simulator/conformance/support.json, and the door has no such route", r)
		}
	}
}

func TestUnsupported(t *testing.T) {
	d := newDoor(t)
	d.refused("digital twins", d.do("GET /digitaltwins/d", ""), 404, "GenericNotFound", "/digitaltwins/d")
	d.refused("method", d.do("PATCH /devices/d", ""), 405, "GenericMethodNotAllowed", "PATCH")
	var got struct {
		Unsupported []conformance.Gap
		Attempts    []struct {
			What  string
			Count int
		}
	}
	if err := json.Unmarshal([]byte(read(d.do("GET /_sim/unsupported", ""))), &got); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(got.Unsupported, func(g conformance.Gap) bool { return strings.Contains(g.Name, "AMQP") }) {
		t.Error("AMQP is not in the list")
	}
	if len(got.Attempts) != 2 || got.Attempts[0].What != "GET /digitaltwins/d" || got.Attempts[1].What != "PATCH /devices/d" {
		t.Errorf("attempts: %+v", got.Attempts)
	}
}
