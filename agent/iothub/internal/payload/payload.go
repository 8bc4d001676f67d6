// Package payload reads and writes the JSON that both wires carry: twins, patches and error bodies.
//
// Source: Microsoft Learn, "Communicate with your IoT hub by using the MQTT protocol" (twin) and "Understand and use
// device twins in IoT Hub".
package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/twinbay/twinbay/agent/iothub"
)

// Twin reads the body of a twin's answer: {"desired":{…,"$version":n},"reported":{…,"$version":n}}.
func Twin(body []byte) (iothub.Twin, error) {
	var doc struct {
		Desired  json.RawMessage `json:"desired"`
		Reported json.RawMessage `json:"reported"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return iothub.Twin{}, fmt.Errorf("the twin is not JSON: %w", err)
	}
	var t iothub.Twin
	var err error
	if t.Desired, t.DesiredVersion, err = split(doc.Desired); err != nil {
		return iothub.Twin{}, fmt.Errorf("the twin's desired properties: %w", err)
	}
	if t.Reported, t.ReportedVersion, err = split(doc.Reported); err != nil {
		return iothub.Twin{}, fmt.Errorf("the twin's reported properties: %w", err)
	}
	if t.DesiredVersion == 0 || t.ReportedVersion == 0 {
		return iothub.Twin{}, errors.New("the twin has a section without $version")
	}
	return t, nil
}

// Patch reads the body of a desired patch. version is what the topic or a property says, 0 when they say nothing; then
// the "$version" of the body counts.
func Patch(body []byte, version int64) (iothub.DesiredPatch, error) {
	patch, inside, err := split(body)
	if err != nil {
		return iothub.DesiredPatch{}, fmt.Errorf("a desired patch: %w", err)
	}
	if version == 0 {
		version = inside
	}
	if version <= 0 {
		return iothub.DesiredPatch{}, errors.New("a desired patch has no version")
	}
	return iothub.DesiredPatch{Version: version, Patch: patch}, nil
}

// split takes "$version" out of a JSON object.
func split(object json.RawMessage) (json.RawMessage, int64, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil {
		return nil, 0, fmt.Errorf("not a JSON object: %w", err)
	}
	if fields == nil {
		return nil, 0, errors.New("not a JSON object but null")
	}
	var version int64
	if text, ok := fields["$version"]; ok {
		if err := json.Unmarshal(text, &version); err != nil {
			return nil, 0, errors.New("$version is not an integer")
		}
		delete(fields, "$version")
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // the owner compares what it gets with what it has
	if err := enc.Encode(fields); err != nil {
		return nil, 0, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), version, nil
}

// Error is the error of an answer with an HTTP status of 400 or more: one of the session's errors where there is one
// for the status, with the hub's own message.
func Error(what string, status int, body []byte) error {
	var kind error // nil passes, or is nobody's fault on this side
	switch status {
	case 400, 405, 413, 415:
		kind = iothub.ErrRejected
	case 401, 403:
		kind = iothub.ErrUnauthorized
	case 412:
		kind = iothub.ErrStale
	case 429:
		kind = iothub.ErrThrottled
	}
	text := fmt.Sprintf("%s: status %d", what, status)
	if m := message(body); m != "" {
		text += ": " + m
	}
	if kind == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%w: %s", kind, text)
}

// message takes the text for a person out of an error's body:
// {"errorCode":400004,"trackingId":"…","message":"…","timestampUtc":"…"}.
func message(body []byte) string {
	var doc struct {
		ErrorCode int    `json:"errorCode"`
		Message   string `json:"message"`
	}
	if json.Unmarshal(body, &doc) != nil || doc.Message == "" && doc.ErrorCode == 0 {
		return ""
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", doc.ErrorCode, Line(doc.Message)))
}

// Line is text from outside, fit for one line of a log: no control characters, not too long.
func Line(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + "…"
	}
	return text
}
