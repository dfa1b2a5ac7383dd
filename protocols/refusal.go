package protocols

import (
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// refusalTime is how long a refused connection is kept. An HTTP/1.1 client may
// send on for so long; an HTTP/2 client that tries again at once does so on the
// same connection, instead of opening a new one each time.
const refusalTime = time.Second

// retryAfter is how long a refused client is told to wait, in seconds (RFC 9110 section
// 10.2.3).
const retryAfter = "1"

// RefuseHTTP1 answers an HTTP/1.1 client whose connection is one too many, and
// closes the connection. What the client still sends is read for a moment, so
// that it gets to see the answer instead of a reset (RFC 9112 section 9.6).
func RefuseHTTP1(c net.Conn) {
	const text = "too many connections\n"
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(refusalTime))
	_, err := io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\n"+
		"Content-Length: 21\r\n"+
		"Retry-After: "+retryAfter+"\r\n"+
		"Connection: close\r\n\r\n"+text)
	if err != nil {
		return
	}
	if cw, ok := c.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(struct{ io.Reader }{c}, maxRefusedBytes))
	}
}

// maxRefusedBytes bounds what is read from a client that was refused.
const maxRefusedBytes = 256 << 10

// NewRefusingHTTP2Server returns a server for HTTP/2 connections that are too many. It
// answers gRPC calls UNAVAILABLE and other requests 503, for a second; then it says
// GOAWAY. A connection that is idle for a second goes as well. The settings are those of
// the server that would have served it, because the client may have been told them
// already. The function age says how old a request's connection is. Requests for the paths
// of probes are served by these handlers.
func NewRefusingHTTP2Server(c HTTP2Config, h HTTPHooks, age func(*http.Request) time.Duration, probes map[string]http.Handler) *http.Server {
	h.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		if age(r) >= refusalTime {
			header.Set("Connection", "close") // Net/http says GOAWAY for it.
		}
		if probe, ok := probes[r.URL.Path]; ok {
			probe.ServeHTTP(w, r)
			return
		}
		if IsGRPCContentType(r.Header.Get("Content-Type")) {
			// A response that consists of trailers alone (gRPC over HTTP/2, "Responses").
			header.Set("Content-Type", "application/grpc")
			header.Set("Grpc-Status", "14")
			header.Set("Grpc-Message", "too many connections")
			return
		}
		header.Set("Retry-After", retryAfter)
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
	})
	c.IdleTimeout = refusalTime
	return NewHTTP2Server(c, h)
}

// IsGRPCContentType reports application/grpc, alone or followed by a subtype or a
// parameter. application/grpc-web is another protocol.
func IsGRPCContentType(v string) bool {
	const base = "application/grpc"
	if !strings.HasPrefix(v, base) { // As grpc-go reads it, with case.
		return false
	}
	return len(v) == len(base) || v[len(base)] == '+' || v[len(base)] == ';'
}
