package protocols

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// watchedConn is the connection under a WebSocket. It knows whether its peer is
// heard, whether anybody listens, and which messages pass. To coder/websocket it may be given with small buffers:
// it reads ahead, and it writes a message that comes in pieces as one.
//
// Read may be called by one goroutine at a time, and so may Write: coder/websocket
// has a lock for each. The other methods may be called at any time.
type watchedConn struct {
	net.Conn

	// These belong to whoever reads. What had come behind the handshake is read first, then what ahead has read, and then from in.
	in       io.Reader
	early    *bytes.Reader // nil where nothing is left of it
	ahead    bareConn      // in; nil where that is no bare socket
	received messageCounter

	// reads is odd while somebody waits for bytes, and grows by 2 with each time that somebody did. A clock is not
	// asked: the sweep knows well enough when it has seen which number.
	reads atomic.Uint32

	out frameWriter // belongs to whoever writes

	// messages is told of them; nil for nobody. It is set before the first Read and Write, as is closing.
	messages func(received, sent int)
	closing  func()      // called before the connection is closed; nil for nobody
	abrupt   atomic.Bool // it is to be closed at once: there is nobody to be polite to
}

// watch returns the connection of which behind was read with the handshake. It keeps behind.
func watch(c net.Conn, behind []byte) *watchedConn {
	w := &watchedConn{Conn: c}
	below := c
	if p, ok := c.(interface {
		peeked
		below() net.Conn
	}); ok {
		behind = slices.Concat(behind, p.unread())
		p.discard(len(p.unread()))
		// The layers above what carries the bytes serve requests, of which there are no more.
		if b := p.below(); b != nil {
			below = b
		}
	}
	if len(behind) > 0 {
		w.early = bytes.NewReader(behind)
	}
	w.in, w.out.to = below, below
	w.ahead = bareOf(below)
	return w
}

// buffers reports whether small reads are no dearer than big ones.
func (c *watchedConn) buffers() bool {
	_, isTLS := c.in.(*tls.Conn)
	return isTLS || c.ahead != nil
}

// Read implements [net.Conn].
func (c *watchedConn) Read(p []byte) (n int, err error) {
	switch {
	case c.early != nil:
		if n, _ = c.early.Read(p); c.early.Len() == 0 {
			c.early = nil
		}
	default:
		c.reads.Add(1)
		n, err = c.fetch(p)
		c.reads.Add(1)
	}
	if n > 0 && c.messages != nil {
		if messages := c.received.count(p[:n]); messages > 0 {
			c.messages(messages, 0)
		}
	}
	return n, err
}

// fetch reads what is not here yet.
func (c *watchedConn) fetch(p []byte) (n int, err error) {
	if c.ahead == nil {
		return c.in.Read(p)
	}
	return c.ahead.ReadAhead(p)
}

// Write implements [net.Conn]. It may keep a part of a message until the rest comes.
func (c *watchedConn) Write(p []byte) (int, error) {
	messages, err := c.out.write(p)
	if err != nil {
		return 0, err
	}
	if messages > 0 && c.messages != nil {
		c.messages(0, messages)
	}
	return len(p), nil
}

// isReading reports whether somebody waits for bytes, and how often somebody has done so before.
func (c *watchedConn) isReading() (reading bool, before uint32) {
	n := c.reads.Load()
	return n%2 == 1, n / 2
}

// Close implements [net.Conn]. What the peer still sends is read for a moment: the kernel answers bytes that nobody
// has read by a reset, which may cost the peer what it has not read either (RFC 6455, section 7.1.1).
func (c *watchedConn) Close() error {
	if c.closing != nil {
		c.closing()
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && !c.abrupt.Load() && half.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(closeLinger))
		_, _ = io.CopyN(io.Discard, struct{ io.Reader }{c.Conn}, closeLingerBytes)
	}
	return c.Conn.Close()
}

// How long, and for how many bytes, a peer is listened to that has been told the end.
const (
	closeLinger      = 250 * time.Millisecond
	closeLingerBytes = 1 << 20
)

// webSocketBuffer is the size of the buffers of coder/websocket, which it has one of each way for life. A frame's
// header fits, and so does a short message with it, which then takes no more calls than with big ones.
const webSocketBuffer = 128

// hijackKeeper remembers the connection that was hijacked from it.
type hijackKeeper struct {
	http.ResponseWriter

	conn *watchedConn
}

var _ http.Hijacker = (*hijackKeeper)(nil)

// Hijack implements [http.Hijacker].
func (k *hijackKeeper) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if u := upgradeWriterOf(k.ResponseWriter); u != nil {
		u.small = true
	}
	conn, rw, err := http.NewResponseController(k.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// The writer is still the hijacked connection's own, which nobody watches.
	if err := rw.Writer.Flush(); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	behind, _ := rw.Reader.Peek(rw.Reader.Buffered())
	k.conn = watch(conn, bytes.Clone(behind))
	size := hijackedBuffer
	if k.conn.buffers() {
		size = webSocketBuffer
	}
	if rw.Reader.Size() != size {
		rw.Reader = bufio.NewReaderSize(nil, size)
	}
	if rw.Writer.Size() != webSocketBuffer {
		rw.Writer = bufio.NewWriterSize(nil, webSocketBuffer)
	}
	rw.Reader.Reset(k.conn)
	rw.Writer.Reset(k.conn)
	return k.conn, rw, nil
}
