package twin

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

const sensor = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "interval_ms": {"type": "integer", "minimum": 100, "maximum": 3600000, "default": 10000},
    "oversampling": {"enum": [1, 2, 4, 8, 16], "default": 4},
    "name": {"type": "string", "maxLength": 20},
    "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.5},
    "on": {"type": "boolean", "default": true},
    "limits": {"$ref": "#/$defs/range", "default": {"low": 0, "high": 8}},
    "codes": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}
  },
  "$defs": {"range": {"type": "object", "required": ["low", "high"],
    "properties": {"low": {"type": "number"}, "high": {"type": "number"}}}}
}`

func sensorSchema(t testing.TB) *Schema {
	t.Helper()
	s, err := ParseSchema([]byte(sensor))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	s := sensorSchema(t)
	for _, c := range []struct{ name, value, want string }{ // want "" means allowed
		{"interval_ms", `100`, ""},
		{"interval_ms", `1000.0`, ""},
		{"interval_ms", `99`, "interval_ms: 99 was asked, allowed is an integer from 100 to 3600000"},
		{"interval_ms", `1.5`, "1.5 was asked"},
		{"interval_ms", `"1000"`, `"1000" was asked, allowed is an integer`},
		{"interval_ms", `1e400`, "1e400 was asked"},
		{"interval_ms", `null`, "null was asked"},
		{"interval_ms", `true`, "true was asked"},
		{"oversampling", `8`, ""},
		{"oversampling", `3`, "allowed is one of 1, 2, 4, 8, 16"},
		{"ratio", `0.1`, ""},
		{"ratio", `0`, "allowed is a number above 0 to 1"},
		{"name", `"a"`, ""},
		{"name", `12`, "12 was asked, allowed is a string of at most 20 characters"},
		{"name", `"123456789012345678901"`, "of at most 20 characters"},
		{"on", `1`, "allowed is true or false"},
		{"limits", `{"low":1,"high":2}`, ""},
		{"limits", `{"low":1}`, "high"},
		{"limits", `{"low":1,"high":"x"}`, `"x"`},
		{"codes", `[1,2]`, ""},
		{"codes", `[1,"2"]`, "allowed is an array of at most 3 items"},
	} {
		err := s.Check(c.name, doc(t, `{"v":`+c.value+`}`)["v"])
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s = %s: %v, want allowed", c.name, c.value, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s = %s: %v, want %q in it", c.name, c.value, err, c.want)
		}
	}
	if err := s.Check("nope", true); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "interval_ms") {
		t.Errorf("unknown setting: %v, want ErrUnknown and the known ones", err)
	}
}

func TestParseSchemaRefuses(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{`{`, "read schema"},
		{`{"type":"array"}`, "want object"},
		{`{"type":"object","oneOf":[{}],"minProperties":1}`, "minProperties, oneOf at the root"},
		{`{"properties":{"a":{"type":"integer","default":"x"}}}`, `default of a: "x" was asked`},
		{`{"properties":{"a":{"$ref":"#/$defs/none"}}}`, "none of the root's $defs"},
		{`{"properties":{"a":{"$ref":"#/properties/a"}}}`, "none of the root's $defs"},
		{`{"properties":{"a":{"items":{"$ref":"#"}}}}`, "none of the root's $defs"},
		{`{"properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"not":{"$ref":"#/$defs/y"}},"y":{"anyOf":[{"$ref":"#/$defs/x"}]}}}`, "refers to itself"},
		{`{"$id":"http://a/","properties":{"a":{"$id":"http://b/","$ref":"#/$defs/y","$defs":{"y":{"$ref":"#/$defs/y"}}}},"$defs":{"y":{}}}`, "$id cannot"},
		{`{"properties":{"a":{"$dynamicRef":"#x","$dynamicAnchor":"x"}}}`, "$dynamic"},
		{`{"properties":{"a":{"pattern":"("}}}`, "compile schema"},
	} {
		if _, err := ParseSchema([]byte(c.schema)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseSchema(%s) = %v, want %q in it", c.schema, err, c.want)
		}
	}
	s, err := ParseSchema(nil)
	if err != nil || len(s.Names()) != 0 || !errors.Is(s.Check("a", "b"), ErrUnknown) {
		t.Errorf("no schema at all: %v, %v; want one without settings", s, err)
	}
}

func TestProblems(t *testing.T) {
	s, err := ParseSchema([]byte(`{"type":"object","required":["bus","address"],"properties":{
		"bus":{"type":"string"},"address":{"type":"integer","default":118},"mode":{"enum":["a","b"]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range s.Problems(doc(t, `{"mode":"c","buss":"i2c:1","address":1}`)) {
		names = append(names, p.Name+" "+p.Err.Error())
	}
	want := []string{
		"bus bus is missing, allowed is a string",
		"buss buss: no such setting; known are address, bus, mode",
		`mode mode: "c" was asked, allowed is one of "a", "b"`,
	}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("problems\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	if p := s.Problems(doc(t, `{"bus":"i2c:1"}`)); len(p) != 0 {
		t.Errorf("a good document has problems: %v", p)
	}
}

func TestCompose(t *testing.T) {
	s, err := ParseSchema([]byte(`{"properties":{
		"period":{"type":"integer","minimum":1,"maximum":100,"default":10},
		"mode":{"enum":["slow","fast"]},
		"box":{"type":"object","default":{"w":1,"h":2}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, desired, good, effective, acks string }{
		{"defaults", `{}`, `{}`, `{}`,
			`{"period":10,"box":{"w":1,"h":2}}`,
			`{"period":{"value":10,"ac":203,"av":0},"box":{"value":{"w":1,"h":2},"ac":203,"av":0}}`},
		{"file over defaults", `{"period":20,"mode":"slow"}`, `{}`, `{}`,
			`{"period":20,"mode":"slow","box":{"w":1,"h":2}}`,
			`{"period":{"value":20,"ac":203,"av":0},"mode":{"value":"slow","ac":203,"av":0},"box":{"value":{"w":1,"h":2},"ac":203,"av":0}}`},
		{"desired over file, whole", `{"period":20,"box":{"w":5,"h":5}}`, `{"period":30,"box":{"w":7}}`, `{"period":20}`,
			`{"period":30,"box":{"w":7}}`,
			`{"period":{"value":30,"ac":200,"av":7},"box":{"value":{"w":7},"ac":200,"av":7}}`},
		{"null restores", `{"period":20}`, `{"period":null}`, `{"period":30}`,
			`{"period":20,"box":{"w":1,"h":2}}`,
			`{"period":{"value":20,"ac":203,"av":7},"box":{"value":{"w":1,"h":2},"ac":203,"av":0}}`},
		{"refused keeps the last good", `{"period":20}`, `{"period":0}`, `{"period":30}`,
			`{"period":30,"box":{"w":1,"h":2}}`,
			`{"period":{"value":30,"ac":400,"av":7,"ad":"period: 0 was asked, allowed is an integer from 1 to 100"},
			  "box":{"value":{"w":1,"h":2},"ac":203,"av":0}}`},
		{"refused without a last good", `{"period":20}`, `{"period":"x","mode":5}`, `{}`,
			`{"period":20,"box":{"w":1,"h":2}}`,
			`{"period":{"value":20,"ac":400,"av":7,"ad":"period: \"x\" was asked, allowed is an integer from 1 to 100"},
			  "mode":{"ac":400,"av":7,"ad":"mode: 5 was asked, allowed is one of \"slow\", \"fast\""},
			  "box":{"value":{"w":1,"h":2},"ac":203,"av":0}}`},
		{"unknown", `{}`, `{"perod":5}`, `{}`,
			`{"period":10,"box":{"w":1,"h":2}}`,
			`{"perod":{"ac":404,"av":7,"ad":"perod: no such setting; known are box, mode, period"},
			  "period":{"value":10,"ac":203,"av":0},"box":{"value":{"w":1,"h":2},"ac":203,"av":0}}`},
		{"a bad value in the file is left out", `{"period":999}`, `{}`, `{}`,
			`{"period":10,"box":{"w":1,"h":2}}`,
			`{"period":{"value":10,"ac":203,"av":0},"box":{"value":{"w":1,"h":2},"ac":203,"av":0}}`},
	} {
		desired := doc(t, c.desired)
		effective, acks := s.Compose(doc(t, c.file), desired, doc(t, c.good))
		if !Equal(effective, doc(t, c.effective)) {
			t.Errorf("%s: effective %s, want %s", c.name, text(effective), c.effective)
		}
		inForce, settled := Settle(effective, acks, nil, func(name string) int64 {
			if _, asked := desired[name]; asked {
				return 7
			}
			return 0
		})
		if got := Acks(settled); !Equal(got, doc(t, c.acks)) {
			t.Errorf("%s: acks %s, want %s", c.name, text(got), c.acks)
		}
		if !Equal(inForce, effective) {
			t.Errorf("%s: in force %s, want %s", c.name, text(inForce), text(effective))
		}
	}
}

// The module has the last word on a value that the schema allows.
func TestSettleModuleRefuses(t *testing.T) {
	s := sensorSchema(t)
	effective, acks := s.Compose(nil, doc(t, `{"interval_ms":500,"oversampling":3,"ratio":0.25}`), doc(t, `{"oversampling":8}`))
	inForce, settled := Settle(effective, acks, map[string]Outcome{
		"interval_ms":  {Value: json.Number("2000"), Refused: true, Reason: "the sensor needs 1 s at this oversampling"},
		"oversampling": {Value: json.Number("8"), Refused: true, Reason: "never shown: the schema's reason stands"},
		"ratio":        {Value: json.Number("0.26"), Reason: "rounded to the register's step"},
		"ghost":        {Value: "x", Refused: true},
	}, func(string) int64 { return 3 })
	if text(inForce["interval_ms"]) != "2000" || text(inForce["ratio"]) != "0.26" || text(inForce["oversampling"]) != "8" {
		t.Errorf("in force %s", text(inForce))
	}
	for name, want := range map[string]Ack{
		"interval_ms":  {json.Number("2000"), Refused, 3, "the sensor needs 1 s at this oversampling"},
		"oversampling": {json.Number("8"), Refused, 3, "oversampling: 3 was asked, allowed is one of 1, 2, 4, 8, 16"},
		"ratio":        {json.Number("0.26"), InForce, 3, "rounded to the register's step"},
		"on":           {true, Default, 3, ""},
	} {
		if settled[name] != want {
			t.Errorf("%s: %+v, want %+v", name, settled[name], want)
		}
	}
	if _, ok := settled["ghost"]; ok {
		t.Error("an acknowledgement of a setting that does not exist")
	}
	if text(effective["interval_ms"]) != "500" {
		t.Error("Settle changed its argument")
	}
}

func TestReported(t *testing.T) {
	got := Reported(doc(t, `{"serial":"A1","period":"lost"}`), map[string]Ack{"period": {Value: json.Number("5"), AC: 200, AV: 2}})
	if want := doc(t, `{"serial":"A1","period":{"value":5,"ac":200,"av":2}}`); !Equal(got, want) {
		t.Errorf("%s, want %s", text(got), text(want))
	}
	if got := Reported(nil, nil); got == nil || len(got) != 0 {
		t.Errorf("nothing to report is %v, want an empty object", got)
	}
}

func FuzzParseSchema(f *testing.F) {
	f.Add(sensor, `{"interval_ms":5,"limits":{"low":1e999}}`)
	f.Add(`{"properties":{"a":{"not":{},"default":1}}}`, `{"a":[{}]}`)
	f.Fuzz(func(t *testing.T, schema, desired string) {
		s, err := ParseSchema([]byte(schema))
		d, bad := Parse([]byte(desired))
		if err != nil || bad != nil {
			return
		}
		effective, acks := s.Compose(nil, d, nil)
		for name, v := range effective {
			if err := s.Check(name, v); err != nil {
				t.Fatalf("a refused value is in force: %v", err)
			}
		}
		if _, err := json.Marshal(Acks(acks)); err != nil {
			t.Fatalf("acknowledgements are no JSON: %v", err)
		}
	})
}
