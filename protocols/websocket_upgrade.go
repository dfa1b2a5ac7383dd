package protocols

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"time"
)

// An upgradeWriter is the ResponseWriter of a handshake that net/http has not seen. It knows one answer: 101, and the connection is
// the handler's. For any other the request goes to net/http, whose writer then does what is asked.
//
// It belongs to the handler's goroutine.
type upgradeWriter struct {
	server  *WebSocketServer
	conn    peeked
	head    int // how long the handshake is, which is still to be read
	request *http.Request
	cancel  context.CancelFunc
	header  http.Header

	presence presence    // of the peer
	accepted http.Header // of 101, which is the answer; nil before it is

	hijacked bool
	small    bool // who takes the connection over wants small buffers
	returned bool // the handler has, or its session
	// ended is told of the end of a session, if the handler may leave it behind; nil where it may not.
	ended   func(returned bool)
	session func() // what the handler has left behind

	// passage and writer are net/http's part; nil where it has none.
	passage *passage
	writer  http.ResponseWriter
}

var (
	_ http.Hijacker = (*upgradeWriter)(nil)
	_ io.ReaderFrom = (*upgradeWriter)(nil)
)

// Header implements [http.ResponseWriter].
func (u *upgradeWriter) Header() http.Header {
	if u.header == nil {
		u.header = make(http.Header)
	}
	return u.header
}

// WriteHeader implements [http.ResponseWriter].
func (u *upgradeWriter) WriteHeader(code int) {
	switch {
	case u.hijacked:
	case code == http.StatusSwitchingProtocols && u.passage == nil:
		if u.accepted == nil {
			u.accepted = u.Header().Clone() // What is set from now on comes too late.
		}
	default:
		u.pass().WriteHeader(code)
	}
}

// Write implements [http.ResponseWriter].
func (u *upgradeWriter) Write(p []byte) (int, error) {
	if u.hijacked {
		return 0, http.ErrHijacked
	}
	return u.pass().Write(p)
}

// ReadFrom implements [io.ReaderFrom].
func (u *upgradeWriter) ReadFrom(r io.Reader) (int64, error) {
	if u.hijacked {
		return 0, http.ErrHijacked
	}
	return io.Copy(u.pass(), r)
}

// FlushError and what follows are what an [http.ResponseController] looks for.
func (u *upgradeWriter) FlushError() error {
	return u.control(func(c *http.ResponseController) error { return c.Flush() })
}

// SetReadDeadline is for the [http.ResponseController].
func (u *upgradeWriter) SetReadDeadline(t time.Time) error {
	return u.control(func(c *http.ResponseController) error { return c.SetReadDeadline(t) })
}

// SetWriteDeadline is for the [http.ResponseController].
func (u *upgradeWriter) SetWriteDeadline(t time.Time) error {
	return u.control(func(c *http.ResponseController) error { return c.SetWriteDeadline(t) })
}

// EnableFullDuplex is for the [http.ResponseController].
func (u *upgradeWriter) EnableFullDuplex() error {
	return u.control((*http.ResponseController).EnableFullDuplex)
}

func (u *upgradeWriter) control(f func(*http.ResponseController) error) error {
	if u.hijacked {
		return http.ErrHijacked
	}
	return f(http.NewResponseController(u.pass()))
}

// Hijack implements [http.Hijacker].
func (u *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	switch {
	case u.hijacked:
		return nil, nil, http.ErrHijacked
	case u.passage != nil:
		return http.NewResponseController(u.pass()).Hijack()
	}
	u.presence.end()
	u.hijacked = true
	u.conn.discard(u.head)
	if u.accepted != nil {
		_, _ = u.conn.Write(u.answer()) // It fails again for who writes next, as with net/http.
	}
	u.server.state(u.conn, http.StateHijacked)
	size := hijackedBuffer
	if u.small {
		size = webSocketBuffer
	}
	rw := bufio.NewReadWriter(bufio.NewReaderSize(u.conn, size), bufio.NewWriterSize(u.conn, size))
	if behind := len(u.conn.unread()); behind > 0 && !u.small {
		_, _ = rw.Reader.Peek(min(behind, size)) // It counts as buffered, as with net/http.
	}
	return u.conn, rw, nil
}

// hijackedBuffer is how big the buffers are that net/http gives to who takes a connection over.
const hijackedBuffer = 4 << 10

// answer returns the head of the answer that accepts the handshake, as net/http writes it: without a length, which
// it cannot have (RFC 9110 section 8.6, RFC 9112 section 6.1). It is not to be a part of Hijack, whose stack is the handler's.
//
//go:noinline
func (u *upgradeWriter) answer() []byte {
	var b bytes.Buffer
	b.Grow(256) // Enough for what there usually is.
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	h := u.accepted
	if _, ok := h["Date"]; !ok {
		h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	_ = h.WriteSubset(&b, map[string]bool{"Content-Length": true, "Transfer-Encoding": true})
	b.WriteString("\r\n")
	return b.Bytes()
}

// pass returns net/http's writer, with the header as the handler has it now.
func (u *upgradeWriter) pass() http.ResponseWriter {
	if u.passage == nil {
		u.presence.end()
		u.passage = &passage{
			cancel: u.cancel,
			writer: make(chan http.ResponseWriter),
			lost:   make(chan struct{}),
			done:   make(chan struct{}),
		}
		var ok bool
		if u.writer, ok = u.server.passTo(u.conn, u.passage); !ok {
			u.writer = lostWriter{}
		}
		if u.accepted != nil { // It was not followed by Hijack.
			u.setHeader(u.accepted)
			u.writer.WriteHeader(http.StatusSwitchingProtocols)
		}
	}
	u.setHeader(u.header) // It may be of use behind the answer as well: there are trailers.
	return u.writer
}

// setHeader gives net/http's writer that header.
func (u *upgradeWriter) setHeader(header http.Header) {
	h := u.writer.Header()
	clear(h)
	maps.Copy(h, header)
}

// end is deferred around the handler.
func (u *upgradeWriter) end() {
	u.recovered(recover())
	if u.session != nil {
		u.returned = false // The session has not.
		return
	}
	defer u.cancel()
	switch {
	case u.hijacked: // The connection is the handler's.
		return
	case !u.returned && u.passage == nil: // It has panicked and answered nothing, so there will be no answer.
		_ = u.conn.Close()
		u.server.state(u.conn, http.StateClosed)
		return
	}
	u.pass() // What the handler has left unsaid is net/http's to say.
	u.passage.failed = !u.returned
	close(u.passage.done)
}

// endSession is deferred around a session that the handler has left behind.
func (u *upgradeWriter) endSession() {
	u.recovered(recover())
	defer u.cancel()
	defer func() { u.recovered(recover()) }() // A panic in ended would be nobody's either.
	u.ended(u.returned)
}

// recovered logs v, if it is what somebody has panicked with.
func (u *upgradeWriter) recovered(v any) {
	if v != nil {
		u.server.logPanic(u.conn, v)
	}
}

// LetDetach lets the handler of a [WebSockets] return to the server of w when the handshake is done, and the WebSocket be
// served behind it: that takes half the stack. It must not be asked for where somebody between the server and that handler
// does anything when it returns. The function ended is called when the WebSocket has ended, and told whether its handler
// has returned. LetDetach reports false where w is not that of a [WebSocketServer], which can do it.
func LetDetach(w http.ResponseWriter, ended func(returned bool)) bool {
	u, ok := w.(*upgradeWriter)
	if ok {
		u.ended = ended
	}
	return ok
}

// IsDetached reports whether a handler has made use of that.
func IsDetached(w http.ResponseWriter) bool {
	u, ok := w.(*upgradeWriter)
	return ok && u.session != nil
}

// upgradeWriterOf returns the upgradeWriter that w wraps, or nil.
func upgradeWriterOf(w http.ResponseWriter) *upgradeWriter {
	for {
		switch wrapper := w.(type) {
		case *upgradeWriter:
			return wrapper
		case interface{ Unwrap() http.ResponseWriter }:
			w = wrapper.Unwrap()
		default:
			return nil
		}
	}
}

// A lostWriter takes the answer for a connection that is closed.
type lostWriter struct{}

// Header implements [http.ResponseWriter].
func (lostWriter) Header() http.Header { return make(http.Header) }

// WriteHeader implements [http.ResponseWriter].
func (lostWriter) WriteHeader(int) {}

// Write implements [http.ResponseWriter].
func (lostWriter) Write([]byte) (int, error) { return 0, net.ErrClosed }
