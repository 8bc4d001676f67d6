package payload

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/agent/iothub"
)

func TestTwin(t *testing.T) {
	got, err := Twin([]byte(`{"desired":{"b":1.50,"a":"<&>","$version":7},"reported":{"$version":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Desired) != `{"a":"<&>","b":1.50}` || got.DesiredVersion != 7 || string(got.Reported) != `{}` || got.ReportedVersion != 2 {
		t.Errorf("twin = %+v", got)
	}
	for _, bad := range []string{``, `[]`, `{}`, `null`, `{"desired":{"$version":1}}`, `{"desired":{},"reported":{"$version":1}}`,
		`{"desired":[],"reported":{"$version":1}}`, `{"desired":{"$version":"1"},"reported":{"$version":1}}`} {
		if got, err := Twin([]byte(bad)); err == nil {
			t.Errorf("%s: %+v, want an error", bad, got)
		}
	}
}

func TestPatch(t *testing.T) {
	for _, test := range []struct {
		body    string
		version int64
		want    string
		is      int64
	}{
		{`{"a":null,"$version":7}`, 7, `{"a":null}`, 7},
		{`{"a":1}`, 8, `{"a":1}`, 8},
		{`{"a":1,"$version":9}`, 0, `{"a":1}`, 9},
	} {
		got, err := Patch([]byte(test.body), test.version)
		if err != nil || string(got.Patch) != test.want || got.Version != test.is {
			t.Errorf("%s: %s %d, %v", test.body, got.Patch, got.Version, err)
		}
	}
	for _, bad := range []string{``, `null`, `[1]`, `{"a":1}`, `{"a":1,"$version":1.5}`, `{"$version":-1}`} {
		if got, err := Patch([]byte(bad), 0); err == nil {
			t.Errorf("%s: %+v, want an error", bad, got)
		}
	}
}

func TestError(t *testing.T) {
	body := []byte(`{"errorCode":429001,"trackingId":"x","message":"Too\nmany","timestampUtc":"2024-01-01T00:00:00Z"}`)
	for _, test := range []struct {
		status int
		body   []byte
		kind   error
		want   string
	}{
		{429, body, iothub.ErrThrottled, "429001 Too many"},
		{400, []byte(`not JSON`), iothub.ErrRejected, "status 400"},
		{412, nil, iothub.ErrStale, "status 412"},
		{404, nil, nil, "status 404"},
		{413, nil, iothub.ErrRejected, "status 413"},
		{401, nil, iothub.ErrUnauthorized, "status 401"},
		{500, nil, nil, "status 500"},
	} {
		err := Error("twin", test.status, test.body)
		if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d: %v", test.status, err)
		}
		for _, kind := range []error{iothub.ErrThrottled, iothub.ErrRejected, iothub.ErrUnauthorized, iothub.ErrStale, iothub.ErrOffline} {
			if is := errors.Is(err, kind); is != (kind == test.kind) {
				t.Errorf("%d: is %q: %v", test.status, kind, is)
			}
		}
	}
}

func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"desired":{"a":{"b":[1,null]},"$version":3},"reported":{"$version":1}}`))
	f.Add([]byte(`{"errorCode":400004,"message":"bad"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if twin, err := Twin(body); err == nil && (!json.Valid(twin.Desired) || !json.Valid(twin.Reported)) {
			t.Errorf("%q gives what is not JSON: %+v", body, twin)
		}
		if p, err := Patch(body, 0); err == nil && (!json.Valid(p.Patch) || p.Version <= 0) {
			t.Errorf("%q gives %+v", body, p)
		}
		if text := Error("x", 400, body).Error(); strings.ContainsAny(text, "\r\n") {
			t.Errorf("%q gives more than a line: %q", body, text)
		}
	})
}
