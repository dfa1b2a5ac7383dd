package protocols

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// refusalTime is how long a refused connection is kept. An HTTP/1.1 client may
// send on for so long; an HTTP/2 client that tries again at once does so on the
// same connection, instead of opening a new one each time.
const refusalTime = time.Second

// retryAfter is how long a refused client is told to wait, in seconds (RFC 9110 section
// 10.2.3).
const retryAfter = "1"

// RefuseHTTP1 answers an HTTP/1.1 client whose connection is not served with a status and
// a line of text, and closes the connection. What the client still sends is read for a
// moment, so that it gets to see the answer instead of a reset (RFC 9112 section 9.6).
//
// When the answer is out, answered is called once, with the client's request, or nil where
// that does not come or is malformed.
func RefuseHTTP1(c net.Conn, status int, text string, answered func(*http.Request)) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(refusalTime))
	header := "Content-Type: text/plain; charset=utf-8\r\nContent-Length: " + strconv.Itoa(len(text)) + "\r\n"
	if status == http.StatusServiceUnavailable {
		header += "Retry-After: " + retryAfter + "\r\n"
	}
	_, err := io.WriteString(c, "HTTP/1.1 "+strconv.Itoa(status)+" "+http.StatusText(status)+"\r\n"+header+"Connection: close\r\n\r\n"+text)
	cw, ok := c.(interface{ CloseWrite() error })
	if err != nil || !ok || cw.CloseWrite() != nil {
		answered(nil)
		return
	}
	rest := bufio.NewReader(io.LimitReader(struct{ io.Reader }{c}, maxRefusedBytes))
	r, err := http.ReadRequest(rest)
	if err != nil {
		r = nil
	}
	answered(r)
	if _, err := io.Copy(io.Discard, rest); err == nil {
		linger(c)
	}
}

// lingerTick is how long linger lets a client wait for a byte to be read.
const lingerTick = 50 * time.Millisecond

// linger keeps a connection open until its deadline, or the client closes it, and reads next to
// nothing of what comes: behind an upload that does not end, the client has the time to see its
// answer before it is reset.
func linger(c net.Conn) {
	var next [1]byte
	for _, err := c.Read(next[:]); err == nil; _, err = c.Read(next[:]) {
		time.Sleep(lingerTick)
	}
}

// TooManyConnections is the text of answers to clients whose connection is one too many.
const TooManyConnections = tooMany + "\n"

const tooMany = "too many connections"

// maxRefusedBytes bounds what is read from a client that was refused.
const maxRefusedBytes = 256 << 10

// NewRefusingHTTP2Server returns a server for HTTP/2 connections that are too many. It
// answers gRPC calls UNAVAILABLE and other requests 503, for a second; then it says
// GOAWAY. A connection that is idle for a second goes as well. The settings are those of
// the server that would have served it, because the client may have been told them
// already, but for the connection's window, which is not among them: nobody reads what it
// lets in. The function age says how old a request's connection is. Requests for the paths
// of probes are served by these handlers. Each request is passed to count with the handler
// that answers it.
func NewRefusingHTTP2Server(
	c HTTP2Config, h HTTPHooks, age func(*http.Request) time.Duration, probes map[string]http.Handler,
	count func(http.ResponseWriter, *http.Request, http.HandlerFunc),
) *http.Server {
	answer := func(w http.ResponseWriter, r *http.Request) {
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
			header.Set("Grpc-Message", tooMany)
			return
		}
		header.Set("Retry-After", retryAfter)
		http.Error(w, tooMany, http.StatusServiceUnavailable)
	}
	h.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { count(w, r, answer) })
	c.IdleTimeout = refusalTime
	c.ConnectionWindow = minWindow
	return NewHTTP2Server(c, h)
}
