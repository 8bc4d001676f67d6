package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxPayload bounds a direct method's payload (Microsoft Learn, "Understand and invoke direct methods from IoT Hub": 128 KB).
const maxPayload = 128 << 10

// shutdown is how long open requests may take once the agent ends.
const shutdown = 500 * time.Millisecond

// Serve answers requests on l until ctx ends; it closes l, which removes the socket. Nil means as asked.
func Serve(ctx context.Context, l net.Listener, a Agent) error { return answerOn(ctx, l, Handler(a)) }

func answerOn(ctx context.Context, l net.Listener, h http.Handler) error {
	base, cancel := context.WithCancel(ctx) // ends what follows the log
	defer cancel()
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve at %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	late, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer stop()
	if srv.Shutdown(late) != nil {
		srv.Close() // cuts what has not ended by itself
	}
	<-done
	return nil
}

// Handler is the API without its socket.
func Handler(a Agent) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, a.Status())
	})
	mux.HandleFunc("GET /v1/components/{component}/twin", func(w http.ResponseWriter, r *http.Request) {
		t, err := a.Twin(r.Context(), r.PathValue("component"))
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, t)
	})
	mux.HandleFunc("POST /v1/components/{component}/methods/{method}", func(w http.ResponseWriter, r *http.Request) {
		invoke(w, r, a)
	})
	mux.HandleFunc("POST /v1/components/{component}/restart", func(w http.ResponseWriter, r *http.Request) {
		done, err := a.Restart(r.Context(), r.PathValue("component"))
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, done)
	})
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		done, err := a.Reload(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, done)
	})
	mux.Handle("GET /metrics", MetricsHandler(a))
	mux.HandleFunc("POST /v1/resume", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Resume(r.Context()); err != nil {
			refuse(w, err)
			return
		}
		answer(w, struct{}{})
	})
	mux.HandleFunc("GET /v1/messages", func(w http.ResponseWriter, r *http.Request) {
		m, err := a.Messages(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, m)
	})
	mux.HandleFunc("DELETE /v1/messages/{which}", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Dismiss(r.Context(), r.PathValue("which")); err != nil {
			refuse(w, err)
			return
		}
		answer(w, struct{}{})
	})
	mux.HandleFunc("GET /v1/logs", func(w http.ResponseWriter, r *http.Request) {
		logs(w, r, a)
	})
	return mux
}

func invoke(w http.ResponseWriter, r *http.Request, a Agent) {
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "too-large", "the payload is over 128 KiB")
		return
	}
	if len(payload) > 0 && !json.Valid(payload) {
		fail(w, http.StatusBadRequest, "bad-json", "the payload is not JSON")
		return
	}
	status, out, err := a.Invoke(r.Context(), r.PathValue("component"), r.PathValue("method"), payload)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, MethodResult{Status: status, Payload: out})
}

func logs(w http.ResponseWriter, r *http.Request, a Agent) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	q := LogQuery{Component: r.FormValue("component"), Follow: r.FormValue("follow") == "1"}
	if n := r.FormValue("lines"); n != "" {
		var err error
		if q.Lines, err = strconv.Atoi(n); err != nil {
			fail(w, http.StatusBadRequest, "bad-query", "lines is not a number")
			return
		}
	}
	lines, err := a.Logs(ctx, q)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	flush.Flush() // a follower learns at once that it is connected
	enc := json.NewEncoder(w)
	for line := range lines {
		if enc.Encode(line) != nil || flush.Flush() != nil {
			return
		}
	}
}

// failure is the body of a failed request.
type failure struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

// codes are the sentinels that pass through the socket.
var codes = []struct {
	err    error
	code   string
	status int
}{
	{ErrNoComponent, "no-component", http.StatusNotFound},
	{ErrNotRunning, "not-running", http.StatusServiceUnavailable},
	{ErrInvalidFile, "invalid-file", http.StatusUnprocessableEntity},
	{ErrNotSafe, "not-safe", http.StatusConflict},
	{ErrTimeout, "timeout", http.StatusGatewayTimeout},
	{ErrNoMessage, "no-message", http.StatusNotFound},
	{context.DeadlineExceeded, "timeout", http.StatusGatewayTimeout},
}

func refuse(w http.ResponseWriter, err error) {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			fail(w, c.status, c.code, err.Error())
			return
		}
	}
	fail(w, http.StatusInternalServerError, "internal", err.Error())
}

func fail(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(failure{Error: text, Code: code})
}

// answer encodes before it writes, so that a value that cannot be encoded is a clean 500.
func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, "internal", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}
