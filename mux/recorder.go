package mux

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// recorder is a ResponseWriter that remembers the status. It passes through what
// net/http's own writers can do, so that handlers find it, sendfile included.
type recorder struct {
	http.ResponseWriter
	code int   // 0 until the status is decided
	sent int64 // bytes of the response's body that the handler has written
	conn *conn // of an HTTP/1.1 request; nil for others

	watched   *bodyWatch // nil for a request without a body, and for a WebSocket or a call
	upload    *body1     // of an HTTP/1.1 request with a body; nil for others
	handshake *handshake // of a WebSocket in HTTP/1.1; nil for other requests
}

// recorder1 is for HTTP/1.1 and recorder2 for HTTP/2: a handler that asks whether it can
// hijack or push must get the true answer. HTTP/2 is watched by the stream.
type (
	recorder1 struct{ recorder }
	recorder2 struct {
		recorder
		exchange
		flushed  bool   // by the handler
		accepted func() // called before a WebSocket is accepted; nil for other requests
	}
)

// A fullWriter has what both of net/http's writers have beside [http.ResponseWriter].
type fullWriter interface {
	http.Flusher
	io.StringWriter
	closeNotifier
	FlushError() error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	EnableFullDuplex() error
}

// closeNotifier is [http.CloseNotifier], which is deprecated and still looked for.
type closeNotifier interface{ CloseNotify() <-chan bool }

var (
	_ fullWriter    = (*recorder1)(nil)
	_ http.Hijacker = (*recorder1)(nil)
	_ io.ReaderFrom = (*recorder1)(nil)
	_ fullWriter    = (*recorder2)(nil)
	_ http.Pusher   = (*recorder2)(nil)
)

// status returns the status that the client got, or gets when the handler returns.
func (r *recorder) status() int {
	if r.code == 0 {
		return http.StatusOK
	}
	return r.code
}

// setStatus fixes the status. The client of an HTTP/1.1 connection that is to leave is told
// now, because that may have been decided since the request came.
func (r *recorder) setStatus(code int) {
	if r.code != 0 {
		return
	}
	if h := r.handshake; h != nil && h.only && isContent(code) {
		code = http.StatusUpgradeRequired
	}
	r.code = code
	if r.watched != nil {
		r.watched.answered.Store(true)
	}
	r.upload.endLimited(r.ResponseWriter)
	c := r.conn
	if c == nil || code == http.StatusSwitchingProtocols {
		return
	}
	if c.isLast() {
		c.root.departures.leaveNow(c, reasonRequests, 0)
	}
	if goesOn := r.handshake == nil || r.handshake.fail(c); !goesOn || c.isTold() {
		r.Header().Set("Connection", "close")
	}
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// maxStatus is the greatest status that net/http takes. It panics for a greater one.
const maxStatus = 999

// WriteHeader implements [http.ResponseWriter]. An informational status is not the answer
// yet (RFC 9110 section 15.2).
func (r *recorder) WriteHeader(code int) {
	if code >= http.StatusOK && code <= maxStatus || code == http.StatusSwitchingProtocols {
		r.setStatus(code)
	} else if r.watched != nil && code != http.StatusContinue {
		r.watched.answered.Store(true) // The client hears something.
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write implements [http.ResponseWriter].
func (r *recorder) Write(p []byte) (int, error) {
	r.setStatus(http.StatusOK)
	r.watched.beginWrite()
	defer r.watched.endWrite()
	n, err := r.ResponseWriter.Write(p)
	r.sent += int64(n)
	return n, err
}

// WriteString implements [io.StringWriter].
func (r *recorder) WriteString(s string) (int, error) {
	r.setStatus(http.StatusOK)
	r.watched.beginWrite()
	defer r.watched.endWrite()
	n, err := io.WriteString(r.ResponseWriter, s)
	r.sent += int64(n)
	return n, err
}

// Flush implements [http.Flusher].
func (r *recorder) Flush() { _ = r.FlushError() }

// FlushError is what [http.ResponseController] flushes by.
func (r *recorder) FlushError() error {
	r.setStatus(http.StatusOK)
	r.watched.beginWrite()
	defer r.watched.endWrite()
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// CloseNotify implements [http.CloseNotifier].
func (r *recorder) CloseNotify() <-chan bool {
	for w := r.ResponseWriter; ; {
		if n, ok := w.(closeNotifier); ok {
			return n.CloseNotify()
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return make(chan bool) // A writer of a test: its client does not leave.
		}
		w = u.Unwrap()
	}
}

// SetReadDeadline is what [http.ResponseController] calls. From here on the handler bounds
// the request's body, and the sweep does not.
func (r *recorder) SetReadDeadline(t time.Time) error {
	if r.watched != nil {
		r.watched.owned.Store(true)
	}
	return http.NewResponseController(r.ResponseWriter).SetReadDeadline(t)
}

// SetWriteDeadline is SetReadDeadline for the response.
func (r *recorder1) SetWriteDeadline(t time.Time) error {
	if r.conn != nil {
		r.conn.ensureRare().ownWrites.Store(true)
	}
	return http.NewResponseController(r.ResponseWriter).SetWriteDeadline(t)
}

// SetWriteDeadline is SetReadDeadline for the response.
func (r *recorder2) SetWriteDeadline(t time.Time) error {
	r.exchange.owned.Store(true)
	return http.NewResponseController(r.ResponseWriter).SetWriteDeadline(t)
}

// EnableFullDuplex is what [http.ResponseController] calls. HTTP/2 is always so.
func (r *recorder2) EnableFullDuplex() error { return nil }

// EnableFullDuplex is what [http.ResponseController] calls.
func (r *recorder1) EnableFullDuplex() error {
	if r.watched != nil {
		r.watched.duplex.Store(true)
	}
	return http.NewResponseController(r.ResponseWriter).EnableFullDuplex()
}

// ReadFrom implements [io.ReaderFrom]. HTTP/2 has none, as in net/http. Beside a body that may
// have to be read, only a file is handed on whole: while another source waits, the handler does
// not write.
func (r *recorder1) ReadFrom(src io.Reader) (int64, error) {
	if r.watched != nil && !r.watched.ended.Load() && !isFile(src) {
		return io.Copy(struct{ io.Writer }{r}, src)
	}
	r.setStatus(http.StatusOK)
	r.watched.beginWrite()
	defer r.watched.endWrite() // A middleware may recover from a panic of src.
	n, err := io.Copy(r.ResponseWriter, src)
	r.sent += n
	return n, err
}

// isFile reports whether src, or what it is a part of, is a file with an end: it does not
// wait.
func isFile(src io.Reader) bool {
	if limited, ok := src.(*io.LimitedReader); ok {
		src = limited.R
	}
	file, ok := src.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode().IsRegular()
}

// Hijack implements [http.Hijacker]. A handler that hijacks before it has answered
// switches to another protocol.
func (r *recorder1) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if h := r.handshake; h != nil && !h.succeed(r.conn) {
		return nil, nil, errNoPlace
	}
	r.watched.beginWrite() // Of a header that is not sent yet.
	conn, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	r.watched.endWrite()
	if err == nil && r.watched != nil && r.watched.slow.Load() {
		_ = conn.Close() // The rest of the body would be taken for the new protocol.
		return nil, nil, errSlowBody
	}
	if err == nil && r.code == 0 {
		r.code = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// Push implements [http.Pusher].
func (r *recorder2) Push(target string, options *http.PushOptions) error {
	if p, ok := r.ResponseWriter.(http.Pusher); ok {
		return p.Push(target, options)
	}
	return http.ErrNotSupported
}

// writeStep is how much of a response is written to its stream at a time: a frame, so that
// the sweep sees a slow client move. The last step is longer where net/http would keep a rest
// in its buffer, which it sends at once where all is written at a time.
const writeStep = 16 << 10

// WriteHeader implements [http.ResponseWriter].
func (r *recorder2) WriteHeader(code int) {
	if code == http.StatusOK && r.accepted != nil {
		r.accepted()
	}
	r.recorder.WriteHeader(code)
}

// Write implements [http.ResponseWriter].
func (r *recorder2) Write(p []byte) (written int, err error) {
	r.writing.Store(true)
	defer r.writing.Store(false)
	for {
		step := len(p)
		if step > writeStep+responseBuffer {
			step = writeStep
		}
		n, err := r.recorder.Write(p[:step])
		r.written.Add(uint64(n) + 1)
		written += n
		if err != nil {
			return written, err
		}
		if p = p[n:]; len(p) == 0 {
			return written, nil
		}
	}
}

// WriteString implements [io.StringWriter].
func (r *recorder2) WriteString(s string) (int, error) {
	if len(s) > writeStep+responseBuffer {
		return r.Write([]byte(s))
	}
	r.writing.Store(true)
	defer r.writing.Store(false)
	n, err := r.recorder.WriteString(s)
	r.written.Add(uint64(n) + 1)
	return n, err
}

// Flush implements [http.Flusher].
func (r *recorder2) Flush() { _ = r.FlushError() }

// FlushError is what [http.ResponseController] flushes by.
func (r *recorder2) FlushError() error {
	r.writing.Store(true)
	defer r.writing.Store(false)
	defer r.written.Add(1)
	r.flushed = true
	return r.recorder.FlushError()
}
