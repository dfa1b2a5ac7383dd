package protocols

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
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
// HTTP/2 make theirs do. EndWait, GoAway, GoneAway, FinalGoAway, Close and the
// addresses are safe at any time after Init.
//
// Conn has no ConnectionState method even where it wraps a *tls.Conn, because
// net/http looks for the HTTP/2 preface only on connections without one.
type Conn struct {
	inner   net.Conn
	early   atomic.Pointer[earlyState] // Nil once the verdict stands and all that was peeked is read.
	h2      atomic.Pointer[http2Track] // Set with the verdict; nil where it is not HTTP/2.
	verdict compactVerdict             // Set with the verdict.
}

// Init makes c wrap inner, which it then owns. It forgets what c was before.
func (c *Conn) Init(inner net.Conn) {
	if e := c.early.Load(); e != nil {
		e.release()
	}
	c.inner = inner
	c.h2.Store(nil)
	c.verdict = compactVerdict{}
	c.early.Store(newEarlyState(c))
}

// NetConn returns the connection that c wraps. Bytes in the peek buffer are
// not to be had from it.
func (c *Conn) NetConn() net.Conn { return c.inner }

// Direct returns the connection that c wraps once c adds nothing to its bytes: the peek
// buffer is empty, and it is not HTTP/2. Before, it returns nil.
func (c *Conn) Direct() net.Conn {
	if c.early.Load() != nil || c.h2.Load() != nil {
		return nil
	}
	return c.inner
}

// Verdict returns what Sniff returned. Before that it is the zero Verdict.
func (c *Conn) Verdict() Verdict { return c.verdict.expand() }

// Read reads from the peek buffer first and then from the wrapped connection,
// whose errors it returns as they are.
func (c *Conn) Read(p []byte) (int, error) {
	t := c.h2.Load()
	if t == nil {
		return c.read(p)
	}
	gate := t.gate.Load()
	if gate != nil {
		if p = gate.admit(p); gate.before == 0 && len(p) > 0 {
			// The gate is open, and nobody passes it twice.
			t.gate.Store(nil)
			gate = nil
		}
	}
	n, ok, err := c.readPeeked(p)
	if !ok {
		n, err = t.read(p)
	}
	if gate != nil {
		gate.before -= n
	}
	t.follow(p[:n])
	return n, err
}

// read reads what is not peeked.
func (t *http2Track) read(p []byte) (int, error) {
	if r := t.readAhead(); r.isRaw() {
		return r.Read(p)
	}
	return t.conn.inner.Read(p)
}

func (c *Conn) read(p []byte) (int, error) {
	if n, ok, err := c.readPeeked(p); ok {
		return n, err
	}
	return c.inner.Read(p)
}

// readPeeked reads from the peek buffer, and behind it returns what ended the
// reading into it. It reports false where the wrapped connection is next.
func (c *Conn) readPeeked(p []byte) (n int, ok bool, err error) {
	e := c.early.Load()
	if e == nil {
		return 0, false, nil
	}
	if len(e.peek.unread()) > 0 {
		n, ok = e.peek.read(p), true
	} else if e.peek.err != nil {
		return 0, true, e.peek.err
	}
	c.leaveEarly(e)
	return n, ok, nil
}

// Write writes to the wrapped connection. While frames of the handshake that
// Sniff played are still to be taken out of the server's output, a Write that
// fails reports 0 bytes.
//
// On an HTTP/2 connection it may write frames of [Conn.GoAway] and its kin between the server's.
//
// net/http starts a goroutine for each flush, whose stack of 2 KB has just room for this, for the layers below and for
// the system call. Growing it costs more than all that is done here, so nothing is kept on the stack
// meanwhile, and what is called before and behind is not inlined: see TestWriteStack.
func (c *Conn) Write(p []byte) (int, error) {
	t := c.h2.Load()
	if t == nil {
		return c.inner.Write(p)
	}
	if t.filter != nil {
		return t.writeFiltered(p)
	}
	if len(p) < smallWrite && verdictProtocols[c.verdict.protocol] == HTTP2 {
		runtime.Gosched()
	}
	if !t.beginPlain(p) {
		return t.Write(p)
	}
	return t.endPlain(c.inner.Write(p))
}

// smallWrite is how much an HTTP/2 server has to write, in bytes, for it to be written at once. net/http collects the frames of
// all streams while a write is under way, and the first answer of many goes out alone: so with less to write, the handlers that are
// ready to run are let run first, and the next write takes what they have answered. Where none is, nothing is waited for. grpc-go
// does the same, with the same figure, so it is not done for its connections. With 64 streams at a time the
// processor time of a request falls by four tenths.
const smallWrite = 1000

// ReadFrom implements io.ReaderFrom by the wrapped connection's own, which may
// use sendfile or splice.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if c.h2.Load() == nil {
		if rf, ok := c.inner.(io.ReaderFrom); ok {
			return rf.ReadFrom(r)
		}
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// WriteTo implements io.WriterTo. Behind the peek buffer it leaves the copying
// to the wrapped connection or to w, which may use splice.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	if c.h2.Load() != nil {
		return io.Copy(w, struct{ io.Reader }{c})
	}
	written, err := c.writePeeked(w)
	switch {
	case errors.Is(err, io.EOF):
		return written, nil
	case err != nil:
		return written, err
	}
	n, err := io.Copy(w, c.inner)
	return written + n, err
}

// writePeeked writes the peek buffer to w, and then returns what ended the reading into it.
func (c *Conn) writePeeked(w io.Writer) (int64, error) {
	e := c.early.Load()
	if e == nil {
		return 0, nil
	}
	var written int
	if peeked := e.peek.unread(); len(peeked) > 0 {
		n, err := w.Write(peeked)
		written = n
		e.peek.consume(n)
		if err == nil && n < len(peeked) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return int64(written), err
		}
	}
	err := e.peek.err
	c.leaveEarly(e)
	return int64(written), err
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
	if t := c.h2.Load(); t != nil {
		if gate := t.gate.Load(); gate != nil {
			gate.open()
		}
	}
	return c.inner.Close()
}

// LocalAddr returns the wrapped connection's local address.
func (c *Conn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// RemoteAddr returns the wrapped connection's remote address.
func (c *Conn) RemoteAddr() net.Addr { return c.inner.RemoteAddr() }

// SetDeadline sets both deadlines of the wrapped connection.
func (c *Conn) SetDeadline(t time.Time) error {
	if h2 := c.h2.Load(); h2 != nil {
		return h2.setDeadlines(t)
	}
	return c.inner.SetDeadline(t)
}

// SetReadDeadline sets the wrapped connection's read deadline. Bytes in the
// peek buffer are read regardless of it.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.inner.SetReadDeadline(t) }

// SetWriteDeadline sets the wrapped connection's write deadline. One that is set while a frame of [Conn.GoAway] is
// being written takes effect behind that frame.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if h2 := c.h2.Load(); h2 != nil {
		return h2.setWriteDeadline(t)
	}
	return c.inner.SetWriteDeadline(t)
}
