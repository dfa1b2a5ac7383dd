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
	conn    net.Conn
	head    int // how long the handshake is, which is still to be read
	request *http.Request
	cancel  context.CancelFunc
	header  http.Header

	switching bool // 101 is the answer
	hijacked  bool
	small     bool // who takes the connection over wants small buffers
	returned  bool // the handler has
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
		u.switching = true
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
	u.hijacked = true
	u.conn.(peeked).discard(u.head) //nolint:forcetypeassert // It was one when the handshake was read from it.
	if u.switching {
		_, _ = u.conn.Write(u.answer()) // It fails again for who writes next, as with net/http.
	}
	u.server.state(u.conn, http.StateHijacked)
	size := hijackedBuffer
	if u.small {
		size = webSocketBuffer
	}
	return u.conn, bufio.NewReadWriter(bufio.NewReaderSize(u.conn, size), bufio.NewWriterSize(u.conn, size)), nil
}

// hijackedBuffer is how big the buffers are that net/http gives to who takes a connection over.
const hijackedBuffer = 4 << 10

// answer returns the head of the answer that accepts the handshake, as net/http writes it.
//
//go:noinline
func (u *upgradeWriter) answer() []byte {
	var b bytes.Buffer
	b.Grow(256) // Enough for what there usually is.
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	if _, ok := u.header["Date"]; !ok {
		u.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	_ = u.header.Write(&b)
	b.WriteString("\r\n")
	return b.Bytes()
}

// pass returns net/http's writer, with the header as the handler has it now.
func (u *upgradeWriter) pass() http.ResponseWriter {
	if u.passage == nil {
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
		if u.switching { // It was not followed by Hijack.
			u.copyHeader()
			u.writer.WriteHeader(http.StatusSwitchingProtocols)
		}
	}
	u.copyHeader()
	return u.writer
}

// copyHeader brings net/http's header up to date, which may be of use behind the answer as well: there are trailers.
func (u *upgradeWriter) copyHeader() {
	h := u.writer.Header()
	clear(h)
	maps.Copy(h, u.header)
}

// end is deferred around the handler.
func (u *upgradeWriter) end() {
	if v := recover(); v != nil {
		u.server.logPanic(u.conn, v)
	}
	if u.session != nil {
		u.returned = false // The session has not.
		return
	}
	u.cancel()
	switch {
	case u.hijacked:
		return
	case !u.returned && u.passage == nil:
		_ = u.conn.Close()
		u.server.state(u.conn, http.StateClosed)
		return
	}
	u.pass()
	u.passage.failed = !u.returned
	close(u.passage.done)
}

// endSession is deferred around a session that the handler has left behind.
func (u *upgradeWriter) endSession() {
	if v := recover(); v != nil {
		u.server.logPanic(u.conn, v)
	}
	u.ended(u.returned)
	u.cancel()
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
