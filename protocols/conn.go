package protocols

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
)

// A Conn is a connection that is recognised by its first bytes and then read
// as if nobody had looked. Call [Conn.Init] before anything else. A Conn may
// be a field of a bigger struct, and must not be copied after Init.
//
// One goroutine at a time owns a Conn while it is being recognised: the
// methods SetPeek, Sniff and PeekReader and the readers it returned are not
// safe together, and none of them may run together with Read. From then on it
// is a net.Conn: one reader and one writer may run together with each other
// and with Close and the deadlines. Writers must take turns, as the servers of
// HTTP/2 make theirs do. EndWait, Close and the addresses are safe at any time.
//
// Conn has no ConnectionState method even where it wraps a *tls.Conn, because
// net/http looks for the HTTP/2 preface only on connections without one.
type Conn struct {
	inner   net.Conn
	peek    peekBuffer              // Owned by the reading side.
	ready   *readyReader            // Owned by the reading side; nil until ReadOnReady.
	filter  *settingsFilter         // Owned by the writing side; nil most of the time.
	gate    atomic.Pointer[ackGate] // Set by the recognising goroutine; nil where it played no handshake.
	config  SniffConfig             // Owned by the recognising goroutine, as are the next two.
	started time.Time               // When the first wait for bytes began.
	verdict Verdict

	mu      sync.Mutex // Guards the next two, and the read deadline while wait is undecided.
	wait    waitState
	hurried bool // EndWait was called.
}

// A waitState says what EndWait has to do.
type waitState uint8

const (
	waiting   waitState = iota // Nothing yet: the wait for the first bytes is short.
	undecided                  // To end the wait for the first request.
	decided                    // Nothing: the verdict stands.
)

// Init makes c wrap inner, which it then owns. It forgets what c was before.
func (c *Conn) Init(inner net.Conn) {
	c.inner = inner
	c.peek = peekBuffer{}
	c.ready = nil
	c.filter = nil
	c.gate.Store(nil)
	c.config = SniffConfig{}
	c.started = time.Time{}
	c.verdict = Verdict{}
	c.wait = waiting
	c.hurried = false
	c.SetPeek(nil)
}

// NetConn returns the connection that c wraps. Bytes in the peek buffer are
// not to be had from it.
func (c *Conn) NetConn() net.Conn { return c.inner }

// Verdict returns what Sniff returned. Before that it is the zero Verdict.
func (c *Conn) Verdict() Verdict { return c.verdict }

// Read reads from the peek buffer first and then from the wrapped connection,
// whose errors it returns as they are.
func (c *Conn) Read(p []byte) (int, error) {
	gate := c.gate.Load()
	if gate != nil {
		if p = gate.admit(p); gate.before == 0 && len(p) > 0 {
			// The gate is open, and nobody passes it twice.
			c.gate.Store(nil)
			gate = nil
		}
	}
	if len(c.peek.unread()) > 0 {
		n := c.peek.read(p)
		if gate != nil {
			gate.before -= n
		}
		return n, nil
	}
	if c.peek.err != nil {
		return 0, c.peek.err
	}
	return c.inner.Read(p)
}

// Write writes to the wrapped connection. While frames of the handshake that
// Sniff played are still to be taken out of the server's output, a Write that
// fails reports 0 bytes.
func (c *Conn) Write(p []byte) (int, error) {
	if c.filter == nil {
		return c.inner.Write(p)
	}
	n, err := c.filter.write(c.inner, p)
	if gate := c.gate.Load(); gate != nil && (c.filter.acks == 0 || err != nil) {
		gate.open()
	}
	if c.filter.finished() {
		c.filter = nil
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom by the wrapped connection's own, which may
// use sendfile or splice.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if c.filter == nil {
		if rf, ok := c.inner.(io.ReaderFrom); ok {
			return rf.ReadFrom(r)
		}
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// WriteTo implements io.WriterTo. Behind the peek buffer it leaves the copying
// to the wrapped connection or to w, which may use splice.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	var written int64
	if peeked := c.peek.unread(); len(peeked) > 0 {
		n, err := w.Write(peeked)
		written = int64(n)
		c.peek.consume(n)
		switch {
		case err != nil:
			return written, err
		case n < len(peeked):
			return written, io.ErrShortWrite
		}
	}
	if c.peek.err != nil {
		if errors.Is(c.peek.err, io.EOF) {
			return written, nil
		}
		return written, c.peek.err
	}
	n, err := io.Copy(w, c.inner)
	return written + n, err
}

// CloseWrite shuts down the writing side. It returns an error that is
// errors.ErrUnsupported where the wrapped connection has no such method.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.inner.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("protocols: close write of %T: %w", c.inner, errors.ErrUnsupported)
}

// SyscallConn returns the raw socket for setting options. Reading from it
// passes over the peek buffer. It returns an error that is
// errors.ErrUnsupported where the wrapped connection has no raw socket.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.inner.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("protocols: raw socket of %T: %w", c.inner, errors.ErrUnsupported)
}

// Close closes the wrapped connection. It ends a Sniff that waits.
func (c *Conn) Close() error {
	if gate := c.gate.Load(); gate != nil {
		gate.open()
	}
	return c.inner.Close()
}

// LocalAddr returns the wrapped connection's local address.
func (c *Conn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// RemoteAddr returns the wrapped connection's remote address.
func (c *Conn) RemoteAddr() net.Addr { return c.inner.RemoteAddr() }

// SetDeadline sets both deadlines of the wrapped connection.
func (c *Conn) SetDeadline(t time.Time) error { return c.inner.SetDeadline(t) }

// SetReadDeadline sets the wrapped connection's read deadline. Bytes in the
// peek buffer are read regardless of it.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.inner.SetReadDeadline(t) }

// SetWriteDeadline sets the wrapped connection's write deadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }
