package modkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Handover lets Apply and Invoke, which arrive on goroutines of their own, work on state that Run's goroutine owns,
// without a lock around every field. The zero value is ready: before Run has taken the state, and after it has given
// it back, calls run one at a time where they arrive.
//
//	calls, release := m.handover.Own()
//	defer release()
//	for {
//		select {
//		case call := <-calls:
//			call()
type Handover struct {
	mu    sync.Mutex
	calls chan func() // nil while nobody owns the state
	gone  chan struct{}
}

// Own takes the state for the calling goroutine, which must receive and run what comes on calls until release.
func (h *Handover) Own() (calls <-chan func(), release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls, h.gone = make(chan func()), make(chan struct{})
	gone := h.gone
	return h.calls, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.calls = nil
		close(gone)
	}
}

// Do runs f where the state is owned and answers its result. When ctx ends first it answers ctx's error; f may then
// still run, and its result is dropped.
func Do[T any](ctx context.Context, h *Handover, f func() (T, error)) (T, error) {
	var none T
	h.mu.Lock()
	if h.calls == nil {
		defer h.mu.Unlock()
		return f()
	}
	calls, gone := h.calls, h.gone
	h.mu.Unlock()

	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	call := func() {
		v, err := f()
		done <- result{v, err}
	}
	select {
	case calls <- call:
	case <-gone:
		return none, ErrEnded
	case <-ctx.Done():
		return none, ctx.Err()
	}
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Decode reads a whole JSON object (settings, wiring, a method's payload) into v and refuses members that v does not
// know: a misspelt name must not pass in silence. Empty raw is an empty object.
func Decode(raw json.RawMessage, v any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("decode %T: more follows the object", v)
	}
	return nil
}
