package restd

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/hub"
)

// plainError is the form of most errors.
type plainError struct {
	Message          string
	ExceptionMessage string
}

// numberedError is the form of ModuleAlreadyExistsOnDevice, and of the errors inside those of direct methods.
type numberedError struct {
	ErrorCode    int    `json:"errorCode"`
	TrackingID   string `json:"trackingId"`
	Message      string `json:"message"`
	Info         *info  `json:"info,omitempty"`
	TimestampUTC string `json:"timestampUtc"`
}

type info struct {
	Timeout string `json:"timeout,omitempty"`
}

// methodError is an error of a direct method.
type methodError struct {
	error
	connect time.Duration // how long the caller would have waited for the device
}

func (e methodError) Unwrap() error { return e.error }

// refuse answers an error. Each has the header iothub-errorcode; which form the body has depends on the operation.
func (x *exchange) refuse(err error) {
	e, ok := errors.AsType[*hub.Error](err)
	if !ok {
		e = &hub.Error{Code: 500001, Name: "ServerError", Text: err.Error()}
	}
	x.w.Header().Set("iothub-errorcode", e.Name)
	now := time.Now().UTC()
	id := trackingID()
	of, isMethod := errors.AsType[methodError](err)
	switch {
	case isMethod && e.Name != "DeviceNotFound":
		x.send(e.Status(), nested(e, id, now, of.connect))
	case e.Name == "ModuleAlreadyExistsOnDevice":
		x.send(e.Status(), numbered(e, id, now))
	default:
		x.send(e.Status(), plainError{
			Message:          "ErrorCode:" + e.Name + ";" + e.Text,
			ExceptionMessage: "Tracking ID:" + id + "-TimeStamp:" + now.Format("01/02/2006 15:04:05"),
		})
	}
}

func numbered(e *hub.Error, id string, now time.Time) numberedError {
	return numberedError{
		ErrorCode:    e.Code,
		TrackingID:   id + "-TimeStamp:" + now.Format("01/02/2006 15:04:05"),
		Message:      e.Text,
		TimestampUTC: now.Format("2006-01-02T15:04:05.0000000Z"),
	}
}

// nested puts the numbered form as text into the plain one.
func nested(e *hub.Error, id string, now time.Time, connect time.Duration) plainError {
	inner := numbered(e, id, now)
	inner.Info = &info{}
	if e.Name == "DeviceNotOnline" {
		inner.Info.Timeout = fmt.Sprintf("%02d:%02d:%02d", int(connect.Hours()), int(connect.Minutes())%60, int(connect.Seconds())%60)
	}
	text, err := json.Marshal(inner)
	if err != nil {
		panic(http.ErrAbortHandler) // a struct of numbers and texts is always JSON
	}
	return plainError{Message: string(text)}
}

// trackingID names one error in the hub's own log.
func trackingID() string {
	return strings.ToUpper(strings.ReplaceAll(newGUID(), "-", "")) + "-G:0"
}

// newGUID is a random UUID (RFC 9562, version 4).
func newGUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
