package websocket

import (
	"bufio"
	"errors"
	"net"
	"net/http"
)

// protocolKey is where net/http puts the pseudo-header field :protocol. No header field
// can have this name, because names have no colons.
const protocolKey = ":protocol"

// IsExtendedConnect reports whether an HTTP/2 request asks for another protocol on its
// stream (RFC 8441 section 4).
func IsExtendedConnect(r *http.Request) bool { return r.Header[protocolKey] != nil }

// RefuseExtendedConnect answers an extended CONNECT for a protocol that is not served with
// 501. RFC 8441 names no status; this is what RFC 9220 section 3 says for HTTP/3.
func RefuseExtendedConnect(w http.ResponseWriter) {
	http.Error(w, "this protocol is not served over HTTP/2", http.StatusNotImplemented)
}

// upgradeKey is the example of RFC 6455 section 1.3. It stands for the Sec-WebSocket-Key,
// which a handshake over HTTP/2 does not have (RFC 8441 section 5).
const upgradeKey = "dGhlIHNhbXBsZSBub25jZQ=="

// ServeStream serves a request for which [IsExtendedConnect] holds. It calls h with the
// handshake of RFC 6455 that the request stands for, and with a ResponseWriter that can be
// hijacked, so that h may be a handler for HTTP/1.1. The request still says HTTP/2.0.
// ServeStream returns when h has returned and the WebSocket is closed. When its caller
// returns, the stream ends, and the connection goes on.
//
// A handler can hijack after it has answered 101, as coder/websocket's Accept does. A
// handler that answers 2xx has not understood the handshake. A 2xx would accept it on
// HTTP/2, so the client gets 405. A protocol other than websocket is refused with 501.
func ServeStream(w http.ResponseWriter, r *http.Request, h http.Handler) {
	switch {
	case r.Method != http.MethodConnect:
		http.Error(w, ":protocol without CONNECT", http.StatusBadRequest)
		return
	case r.Header.Get(protocolKey) != "websocket":
		RefuseExtendedConnect(w)
		return
	}
	u := &streamUpgrade{ResponseWriter: w, request: r}
	defer u.finish()
	h.ServeHTTP(u, asHandshake(r))
	u.wait()
}

// asHandshake translates an extended CONNECT to the request of RFC 6455 section 4.1.
func asHandshake(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.Method = http.MethodGet
	delete(r.Header, protocolKey)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Key", upgradeKey)
	r.Body, r.ContentLength = http.NoBody, 0
	return r
}

// streamUpgrade is the ResponseWriter of a handshake on a stream. It belongs to the
// handler's goroutine until it is hijacked.
type streamUpgrade struct {
	http.ResponseWriter

	request *http.Request
	status  int         // of the handler's answer; 0 before
	conn    *streamConn // nil until Hijack
}

var _ http.Hijacker = (*streamUpgrade)(nil)

// Unwrap is for [http.ResponseController].
func (u *streamUpgrade) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// WriteHeader translates the answer to the handshake: 200 accepts it (RFC 8441 section 5).
func (u *streamUpgrade) WriteHeader(status int) {
	h := u.Header()
	// HTTP/2 does not allow these (RFC 9113 section 8.2.2, RFC 8441 section 5). net/http
	// itself removes Connection, after it has looked for "close" in it.
	h.Del("Upgrade")
	h.Del("Sec-WebSocket-Accept")
	switch {
	case u.status != 0:
	case status == http.StatusSwitchingProtocols:
		u.status, status = status, http.StatusOK
	case status >= http.StatusOK:
		u.status = status
		if status < http.StatusMultipleChoices {
			h.Set("Allow", http.MethodGet)
			status = http.StatusMethodNotAllowed
		}
	}
	u.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (u *streamUpgrade) Write(p []byte) (int, error) {
	switch u.status {
	case 0:
		u.WriteHeader(http.StatusOK)
	case http.StatusSwitchingProtocols:
		return 0, http.ErrHijacked
	}
	return u.ResponseWriter.Write(p)
}

// WriteString implements [io.StringWriter].
func (u *streamUpgrade) WriteString(s string) (int, error) { return u.Write([]byte(s)) }

// Flush implements [http.Flusher].
func (u *streamUpgrade) Flush() { _ = u.FlushError() }

// FlushError is what [http.ResponseController] flushes by. It answers 200 where the
// handler has not answered, which is translated.
func (u *streamUpgrade) FlushError() error {
	if u.status == 0 {
		u.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(u.ResponseWriter).Flush()
}

// CloseNotify implements [http.CloseNotifier].
func (u *streamUpgrade) CloseNotify() <-chan bool {
	if n, ok := u.ResponseWriter.(interface{ CloseNotify() <-chan bool }); ok {
		return n.CloseNotify()
	}
	return make(chan bool) // A writer of a test: its client does not leave.
}

// errNotAccepted is what a handler gets that hijacks before it answers.
var errNotAccepted = errors.New("websocket: an HTTP/2 stream can be hijacked only after 101 was answered")

// Hijack implements [http.Hijacker]: the connection is the stream.
func (u *streamUpgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if u.status != http.StatusSwitchingProtocols {
		return nil, nil, errNotAccepted
	}
	if u.conn != nil {
		return nil, nil, http.ErrHijacked
	}
	// The client may wait for the answer before it sends bytes.
	if err := http.NewResponseController(u.ResponseWriter).Flush(); err != nil {
		return nil, nil, err
	}
	u.conn = newStreamConn(u.ResponseWriter, u.request)
	return u.conn, bufio.NewReadWriter(bufio.NewReader(u.conn), bufio.NewWriter(u.conn)), nil
}

// wait returns when either side has closed a stream that was hijacked. A handler may
// hijack, return, and go on in a goroutine.
func (u *streamUpgrade) wait() {
	if u.conn != nil {
		u.conn.wait()
	}
}

func (u *streamUpgrade) finish() {
	if u.conn != nil {
		u.conn.finish()
	}
}
