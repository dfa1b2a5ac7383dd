package protocols

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// watchedConn is the connection under a WebSocket. It knows when its peer was
// last heard, whether anybody listens, and which messages pass.
//
// Read may be called by one goroutine at a time, and so may Write: coder/websocket
// has a lock for each. The other methods may be called at any time.
type watchedConn struct {
	net.Conn

	opened  time.Time
	heard   atomic.Int64 // when bytes last came, in nanoseconds of age
	reading atomic.Bool
	abrupt  atomic.Bool // it is to be closed at once: there is nobody to be polite to

	// messages is told of them; nil for nobody. It is set before the first Read and Write.
	messages func(received, sent int)
	received messageCounter
	sent     messageCounter
	// early is how many messages came right behind the handshake.
	early int

	// closing is called before the connection is closed; nil for nobody. It is set before the first Read and Write.
	closing func()
}

func watch(c net.Conn) *watchedConn { return &watchedConn{Conn: c, opened: time.Now()} }

// Read implements [net.Conn].
func (c *watchedConn) Read(p []byte) (int, error) {
	c.reading.Store(true)
	n, err := c.Conn.Read(p)
	c.reading.Store(false)
	if n > 0 {
		c.heard.Store(int64(c.age()))
		if c.messages != nil {
			if messages := c.received.count(p[:n]); messages > 0 {
				c.messages(messages, 0)
			}
		}
	}
	return n, err
}

// Write implements [net.Conn].
func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 && c.messages != nil {
		if messages := c.sent.count(p[:n]); messages > 0 {
			c.messages(0, messages)
		}
	}
	return n, err
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

// age returns for how long the connection has been watched, which is never 0.
func (c *watchedConn) age() time.Duration { return max(time.Since(c.opened), 1) }

// silence returns for how long the peer has not been heard.
func (c *watchedConn) silence() time.Duration { return c.age() - time.Duration(c.heard.Load()) }

// tell has f told of the messages, those that came before the call included.
func (c *watchedConn) tell(f func(received, sent int)) {
	c.messages = f
	if f != nil && c.early > 0 {
		f(c.early, 0)
	}
}

// hijackKeeper remembers the connection that was hijacked from it.
type hijackKeeper struct {
	http.ResponseWriter

	conn *watchedConn
}

var _ http.Hijacker = (*hijackKeeper)(nil)

// Hijack implements [http.Hijacker].
func (k *hijackKeeper) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(k.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	k.conn = watch(conn)
	// What is there can be peeked at; it is not read from the connection again.
	behind, _ := rw.Reader.Peek(rw.Reader.Buffered())
	k.conn.early = k.conn.received.count(behind)
	// The writer is still the hijacked connection's own, which nobody watches.
	if err := rw.Writer.Flush(); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	rw.Writer.Reset(k.conn)
	return k.conn, rw, nil
}
