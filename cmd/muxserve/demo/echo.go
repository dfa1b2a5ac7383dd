package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// echo is the answer of /echo: the request as the server saw it.
type echo struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	// Proto is the version that the request names, such as HTTP/1.1.
	Proto string `json:"proto"`
	// Protocol is the pool of the connection.
	Protocol   string        `json:"protocol"`
	TLS        *pool.TLSInfo `json:"tls"`
	RemoteAddr string        `json:"remote_addr"`
	ConnID     uint64        `json:"conn_id"`
	BodyBytes  int64         `json:"body_bytes"`
}

// serveEcho answers any method. It counts the body as it comes and keeps none of
// it. With ?sleep=2s it answers that much later, unless the client leaves first.
func serveEcho(w http.ResponseWriter, r *http.Request) {
	wait, err := sleepTime(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	// The body is read before the wait: only then does net/http notice on an
	// HTTP/1.1 connection that the client has left.
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("the body ended early: %w", err))
		return
	}
	if sleep(r.Context(), wait) != nil {
		return
	}
	answer := echo{
		Method:     r.Method,
		Path:       r.URL.Path,
		Proto:      r.Proto,
		TLS:        pool.NewTLSInfo(r.TLS),
		RemoteAddr: r.RemoteAddr,
		BodyBytes:  n,
	}
	if c, ok := mux.FromContext(r.Context()); ok {
		answer.Protocol, answer.ConnID = c.Protocol, c.ID
	}
	writeJSON(w, http.StatusOK, answer)
}

// sleepTime reads the parameter sleep.
func sleepTime(r *http.Request) (time.Duration, error) {
	value := r.URL.Query().Get("sleep")
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > maxWait {
		return 0, fmt.Errorf("sleep: %q is not a time from 0s to %v, such as 2s", value, maxWait)
	}
	return d, nil
}

// sleep waits, and returns ctx's error if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A client that has left needs no answer.
	_ = json.NewEncoder(w).Encode(value)
}
