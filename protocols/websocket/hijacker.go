package websocket

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
)

const (
	// smallBuffer is the size of the two buffers that coder/websocket keeps for life. It
	// holds a frame's header and a short message behind it.
	smallBuffer = 128
	// largeBuffer is used where small reads would be system calls. It is net/http's size.
	largeBuffer = 4 << 10
)

// hijacker hijacks for coder/websocket, with buffers of its own. It remembers the
// connection.
type hijacker struct {
	http.ResponseWriter

	conn *watchedConn
}

var _ http.Hijacker = (*hijacker)(nil)

// asWriter returns the ResponseWriter for coder/websocket: h, or one that cannot be
// hijacked.
func (h *hijacker) asWriter() http.ResponseWriter {
	if canHijack(h.ResponseWriter) {
		return h
	}
	return struct{ http.ResponseWriter }{h.ResponseWriter}
}

// canHijack reports whether w can be hijacked. Some wrappers have the method and can do no
// more than what they wrap, such as the writer of [http.TimeoutHandler], so the innermost
// one decides. It would be too late to find out behind the 101.
func canHijack(w http.ResponseWriter) bool {
	for {
		_, can := w.(http.Hijacker)
		_, isStream := w.(*streamUpgrade)
		inner, wraps := w.(unwrapper)
		if isStream || !wraps {
			return can
		}
		w = inner.Unwrap()
	}
}

// An unwrapper is a ResponseWriter that wraps another, as [http.ResponseController] looks
// for it.
type unwrapper interface{ Unwrap() http.ResponseWriter }

// WriteHeaderNow sends the header of a writer that waits with it for the body, as gin's
// does. coder/websocket calls it.
func (h *hijacker) WriteHeaderNow() {
	for w := h.ResponseWriter; ; {
		if now, ok := w.(interface{ WriteHeaderNow() }); ok {
			now.WriteHeaderNow()
			return
		}
		inner, ok := w.(unwrapper)
		if !ok {
			return
		}
		w = inner.Unwrap()
	}
}

// Hijack implements [http.Hijacker].
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return h.take(conn, rw)
}

// take is not inlined, so that less stack is in use during Hijack; see Server.open.
//
//go:noinline
func (h *hijacker) take(conn net.Conn, rw *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter, error) {
	if err := rw.Writer.Flush(); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	h.conn = newWatchedConn(conn, bytes.Clone(early))
	size := largeBuffer
	if h.conn.in.isCheap() {
		size = smallBuffer
	}
	return h.conn, bufio.NewReadWriter(bufio.NewReaderSize(h.conn, size), bufio.NewWriterSize(h.conn, smallBuffer)), nil
}
