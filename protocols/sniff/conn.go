package sniff

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/muxserve/muxserve/protocols/internal/h2"
)

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
)

// A Conn is a connection that is recognised by its first bytes and then read
// from the first byte on. Call [Conn.Init] before anything else. A Conn may be a
// field of a bigger struct, and must not be copied after Init.
//
// One goroutine at a time owns a Conn while it is being recognised: the methods
// SetPeek, Sniff and PeekReader and the readers it returned are not safe together,
// and none of them may run together with Read. From then on it is a net.Conn: one
// reader and one writer may run together with each other and with Close and the
// deadlines. Writers must take turns, as the servers of HTTP/2 do. EndWait, GiveUp, GoAway,
// GoneAway, FinalGoAway, Close and the addresses are safe at any time after Init.
//
// Conn has no ConnectionState method even where it wraps a *tls.Conn, because
// net/http looks for the HTTP/2 preface only on connections without one.
type Conn struct {
	inner       net.Conn
	recognition atomic.Pointer[recognition] // Nil once the verdict stands and all that was peeked is read.
	h2          atomic.Pointer[h2.Track]    // Set with the verdict; nil where it is not HTTP/2.
	verdict     Verdict                     // Set with the verdict.
}

// Init makes c wrap inner, which it then owns. It forgets what c was before.
func (c *Conn) Init(inner net.Conn) {
	c.inner = inner
	c.h2.Store(nil)
	c.verdict = Verdict{}
	var none *Config
	c.recognition.Store(&recognition{inner: inner, config: none.withDefaults()})
}

// NetConn returns the connection that c wraps. It does not have the bytes in the
// peek buffer.
func (c *Conn) NetConn() net.Conn { return c.inner }

// Direct returns the connection that c wraps once c adds nothing to its bytes: the peek
// buffer is empty, and it is not HTTP/2. Before, it returns nil.
func (c *Conn) Direct() net.Conn {
	if c.recognition.Load() != nil || c.h2.Load() != nil {
		return nil
	}
	return c.inner
}

// Verdict returns what Sniff returned. Before that it is the zero Verdict.
func (c *Conn) Verdict() Verdict { return c.verdict }

// SetPeek sets the limits of readers that PeekReader returns, as Sniff does. A nil
// config means the defaults. It has no effect when the verdict stands and what was
// peeked has been read.
func (c *Conn) SetPeek(config *Config) {
	if r := c.recognition.Load(); r != nil {
		r.config = config.withDefaults()
	}
}

// PeekReader returns a reader that begins at c's first unread byte and consumes
// nothing. It reads what is in the peek buffer, and then makes the buffer grow up to
// MaxBytes; after that it returns [ErrPeekFull]. It may be used before and after
// Sniff, until the first Read; after that it may return ErrPeekFull as well. Waits
// before Sniff share Sniff's Timeout; each reader made after it has a Timeout of its
// own.
func (c *Conn) PeekReader() io.Reader { return &peekReader{conn: c} }

// EndWait ends the wait of an HTTP/2 connection for its first request, present or
// future: the connection gets the verdict HTTP2, so that a server can tell its client
// to leave. A connection that has not got as far keeps its time, and its chance to
// be served. EndWait has no effect after the verdict, and is safe at any time after
// Init.
func (c *Conn) EndWait() {
	if r := c.recognition.Load(); r != nil {
		r.endWait()
	}
}

// AwaitsFirstRequest reports whether Sniff waits for the first request of an HTTP/2 client.
func (c *Conn) AwaitsFirstRequest() bool {
	r := c.recognition.Load()
	return r != nil && r.awaitsFirstRequest()
}

// GiveUp ends the wait for the first request of an HTTP/2 client as if its time were
// over: the client gets a GOAWAY, even if that request comes at the same time. It reports
// false, and has no effect, where there is no such wait or it was given up before, and
// where agree, which is called last, returns false. It is safe at any time after Init, but
// agree must not use c.
func (c *Conn) GiveUp(agree func() bool) bool {
	r := c.recognition.Load()
	return r != nil && r.giveUp(agree)
}

// Read reads from the peek buffer first and then from the wrapped connection,
// whose errors it returns as they are. Where Sniff has sent SETTINGS, the client's ACK of
// them is left out.
func (c *Conn) Read(p []byte) (int, error) {
	t := c.h2.Load()
	if t == nil {
		if n, ok, err := c.readPeeked(p); ok {
			return n, err
		}
		return c.inner.Read(p)
	}
	for {
		if n := t.Ready(p); n > 0 {
			return n, nil
		}
		if err := t.Fault(); err != nil {
			return 0, err
		}
		if n := t.ReadMarker(p); n > 0 {
			return n, nil
		}
		var n int
		var err error
		if t.AwaitsACK() {
			n, err = t.ReadToACK((*arriving)(c), p)
		} else {
			n, err = (*arriving)(c).Read(p)
		}
		read := n
		if n = t.Follow(p[:n]); n > 0 || read == 0 || err != nil {
			return n, err
		}
	}
}

// An arriving is an HTTP/2 connection whose Read returns what the client has sent.
type arriving Conn

// Read implements io.Reader.
func (a *arriving) Read(p []byte) (int, error) {
	c := (*Conn)(a)
	if n, ok, err := c.readPeeked(p); ok {
		return n, err
	}
	if bare := c.h2.Load().Bare(); bare != nil {
		return bare.ReadAhead(p)
	}
	return c.inner.Read(p)
}

// readPeeked reads from the peek buffer, and then returns the error that ended the
// reading into it. It reports false where the wrapped connection is next.
func (c *Conn) readPeeked(p []byte) (n int, ok bool, err error) {
	r := c.recognition.Load()
	if r == nil {
		return 0, false, nil
	}
	if len(r.peek.unread()) > 0 {
		n, ok = r.peek.read(p), true
	} else if r.peek.err != nil {
		return 0, true, r.peek.err
	}
	c.endRecognition(r)
	return n, ok, nil
}

// ReadOnReady reads up to bufSize bytes into a buffer that it takes from pool
// when there is something to read, so that an idle connection holds none.
// grpc-go finds this method by its shape. The caller gives the buffer back; it
// is nil where n is 0.
//
// That needs a connection that was recognised as HTTP2 or GRPC. Elsewhere the buffer is
// taken first.
func (c *Conn) ReadOnReady(bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	t := c.h2.Load()
	if r := c.recognition.Load(); r != nil && r.isDue() || t == nil || !t.IsPlain() {
		return readInto(c, bufSize, pool)
	}
	buf, n, err := t.ReadReady(bufSize, pool)
	if n == 0 {
		return buf, n, err
	}
	if n = t.Follow((*buf)[:n]); n > 0 {
		return buf, n, err
	}
	pool.Put(buf)
	if err != nil {
		return nil, 0, err
	}
	return readInto(c, bufSize, pool)
}

// readInto reads from r into a buffer of pool.
func readInto(r io.Reader, bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	buf := pool.Get(bufSize)
	n, err := r.Read(*buf)
	if n == 0 {
		pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, err
}

// Write writes to the wrapped connection. On an HTTP/2 connection it takes out the
// server's ACK where Sniff has sent one in its place, and may write frames of
// [Conn.GoAway] and its kin between the server's. There a Write that fails reports 0
// bytes, and so do all that follow.
//
// net/http starts a goroutine for each flush. Its stack of 2 KB is just big enough
// for this, the layers below and the system call, and growing it costs more than all
// that is done here. So little is kept on the stack while the bytes are written; see
// TestWriteStack.
func (c *Conn) Write(p []byte) (n int, err error) {
	t := c.h2.Load()
	if t == nil {
		return c.inner.Write(p)
	}
	if out := t.Begin(p); len(out) > 0 {
		_, err = c.inner.Write(out)
	}
	return t.Finish(len(p), err)
}

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

// writePeeked writes the peek buffer to w, and then returns the error that ended the
// reading into it.
func (c *Conn) writePeeked(w io.Writer) (int64, error) {
	r := c.recognition.Load()
	if r == nil {
		return 0, nil
	}
	var written int
	if peeked := r.peek.unread(); len(peeked) > 0 {
		n, err := w.Write(peeked)
		written = n
		r.peek.consume(n)
		if err == nil && n < len(peeked) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return int64(written), err
		}
	}
	err := r.peek.err
	c.endRecognition(r)
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
		t.End()
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

// SetWriteDeadline sets the wrapped connection's write deadline. It bounds the frames
// of [Conn.GoAway] as well; if it ends the writing of one, the connection is closed.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }
