package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// echo is the answer of /echo. It describes the request as the server received it.
type echo struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	// Proto is the version of the request, such as HTTP/1.1.
	Proto string `json:"proto"`
	// Protocol is the pool of the connection.
	Protocol   string        `json:"protocol"`
	TLS        *pool.TLSInfo `json:"tls"`
	RemoteAddr string        `json:"remote_addr"`
	ConnID     uint64        `json:"conn_id"`
	BodyBytes  int64         `json:"body_bytes"`
}

// serveEcho answers any method. It counts the bytes of the body and keeps none. With
// ?sleep=2s it waits 2 s before it answers, unless the client leaves first.
func serveEcho(w http.ResponseWriter, r *http.Request) {
	wait, err := sleepTime(r)
	if err != nil {
		page.Error(w, http.StatusBadRequest, err)
		return
	}
	// The body is read before the wait, because net/http only notices after that when the
	// client of an HTTP/1.1 connection leaves.
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		page.Error(w, http.StatusBadRequest, fmt.Errorf("the body ended early: %w", err))
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
	if c, ok := mux.ConnOf(r.Context()); ok {
		answer.Protocol, answer.ConnID = c.Protocol, c.ID
	}
	page.JSON(w, http.StatusOK, answer)
}

// serveDuplex answers with the body while it comes, as a stream of messages in both
// directions does.
func serveDuplex(w http.ResponseWriter, r *http.Request) {
	response := http.NewResponseController(w)
	_ = response.EnableFullDuplex() // HTTP/2 needs no leave for it.
	w.Header().Set("Content-Type", "application/octet-stream")
	for buf, err := make([]byte, 32<<10), response.Flush(); err == nil; err = response.Flush() {
		n, end := r.Body.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil || end == io.EOF {
			return
		}
		if end != nil {
			panic(http.ErrAbortHandler) // The client is to see that this is not all.
		}
	}
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

// keptBuffer is the largest buffer that is kept for the next message. A connection does
// not keep the memory of one huge message for ever.
const keptBuffer = 64 << 10

// echoWebSocket sends every message back until the client closes. Text that is not UTF-8
// closes the connection with 1007, and a message above the read limit with 1009.
func echoWebSocket(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	var message bytes.Buffer
	for {
		kind, err := mux.ReadMessage(ctx, c, &message)
		if err != nil {
			return closedByPeer(err)
		}
		if err := c.Write(ctx, kind, message.Bytes()); err != nil {
			return closedByPeer(err)
		}
		if message.Cap() > keptBuffer {
			message = bytes.Buffer{}
		}
	}
}

// closedByPeer returns nil for the error of a client that has closed properly.
func closedByPeer(err error) error {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return nil
	default:
		return err
	}
}
