// Package conformance is what the simulated hub has and what it lacks of IoT Hub, each with the tests that prove it, and the
// wire vectors that tests of both sides read.
package conformance

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

//go:generate go run ./gen ../../docs/support.md

//go:embed support.json
var supportText []byte

//go:embed node/cases.txt
var casesText string

// Support is how far an operation goes.
type Support string

// Yes is as the source says; Partly is that with the difference that the note tells; No is refused.
const (
	Yes    Support = "yes"
	Partly Support = "partly"
	No     Support = "no"
)

// Operation is a row of the support table.
type Operation struct {
	Name   string   `json:"name"`
	Status Support  `json:"status"`
	Note   string   `json:"note,omitempty"`
	Source string   `json:"source"`           // where it is written what IoT Hub does
	Routes []string `json:"routes,omitempty"` // of the REST door that it covers: "GET devices/{device}"
	Go     []string `json:"go,omitempty"`     // tests that prove it: "simulator/mqttd TestTwin"
	Node   []string `json:"node,omitempty"`   // cases of node/ that prove it; a * at the end stands for any text
}

// Area is a part of the table.
type Area struct {
	Name       string      `json:"area"`
	Operations []Operation `json:"operations"`
}

// Gap is an operation that is refused, or only partly there.
type Gap struct {
	Area   string  `json:"area"`
	Name   string  `json:"operation"`
	Status Support `json:"status"`
	Note   string  `json:"note,omitempty"`
}

// Table is the support table.
func Table() []Area {
	var all []Area
	d := json.NewDecoder(bytes.NewReader(supportText))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		panic("conformance: support.json: " + err.Error()) // embedded, and held by a test
	}
	return all
}

// Gaps are what is missing of IoT Hub.
func Gaps() []Gap {
	gaps := []Gap{}
	for _, a := range Table() {
		for _, o := range a.Operations {
			if o.Status != Yes {
				gaps = append(gaps, Gap{a.Name, o.Name, o.Status, o.Note})
			}
		}
	}
	return gaps
}

// Cases are the names of the cases that node/ runs.
func Cases() []string { return strings.Split(strings.TrimSpace(casesText), "\n") }

// cases are those that a row's names stand for.
func (o *Operation) cases() []string {
	var found []string
	for _, c := range Cases() {
		for _, name := range o.Node {
			if prefix, ok := strings.CutSuffix(name, "*"); c == name || ok && strings.HasPrefix(c, prefix) {
				found = append(found, c)
				break
			}
		}
	}
	return found
}

// Page is docs/support.md.
func Page() []byte {
	var b bytes.Buffer
	b.WriteString(`<!-- Made of simulator/conformance/support.json by go generate ./simulator/conformance; change it there. -->

# What the simulated hub supports

Each row names where it is written what IoT Hub does, and how many tests prove that the simulator does it: Go tests of this
repository, and cases in which Microsoft's own SDKs for Node.js or MQTT.js are the client (` + "`make conformance`" + `). A test of the
repository fails when a named test does not exist. What is not supported is refused with an error of the hub; a running simulator lists it, and
what its clients have asked for in vain, at ` + "`GET /_sim/unsupported`" + `.
`)
	for _, a := range Table() {
		fmt.Fprintf(&b, "\n## %s\n\n| Operation | Supported | Proved by | Source |\n|---|---|---|---|\n", a.Name)
		for _, o := range a.Operations {
			name := o.Name
			if o.Note != "" {
				name += ". " + o.Note
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, o.Status, o.proof(), o.Source)
		}
	}
	return b.Bytes()
}

func (o *Operation) proof() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{len(o.Go), "Go test"}, {len(o.cases()), "SDK case"}} {
		switch p.n {
		case 0:
		case 1:
			parts = append(parts, "1 "+p.what)
		default:
			parts = append(parts, fmt.Sprintf("%d %ss", p.n, p.what))
		}
	}
	if parts == nil {
		return "–"
	}
	return strings.Join(parts, ", ")
}
