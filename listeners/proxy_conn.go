package listeners

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// proxyBuffer is how much the first read asks for: any header of version 1, and a header
// of version 2 without a certificate.
const proxyBuffer = 256

// ErrProxySilent is the error of a connection whose peer closed it, or sent nothing,
// before its first byte. The connection's reads and writes return it; Accept does not.
var ErrProxySilent = errors.New("listeners: proxy header: nothing was sent")

// Other errors of a connection's reads and writes, which Accept does not return either:
// where a header is required, the peer is not trusted to send one, or is and sent none;
// where it is optional, a peer that is not trusted sent one.
var (
	ErrProxyUntrusted  = errors.New("listeners: proxy header: the peer is not trusted")
	ErrProxyMissing    = errors.New("listeners: proxy header: missing")
	ErrProxyUnexpected = errors.New("listeners: proxy header: sent by a peer that is not trusted")
)

var (
	errProxySlow     = errors.New("listeners: proxy header: too slow")
	errProxyCutShort = errors.New("listeners: proxy header: cut short")
	errProxyTooLong  = errors.New("listeners: proxy header: too long")
)

// proxyConn is a connection that may begin with a header. Reads begin behind the header.
// One goroutine at a time may read; all other methods may be called concurrently.
//
// A deadline that ends the wait for the header makes the connection useless.
type proxyConn struct {
	net.Conn // the socket

	trusted  bool
	required bool

	once sync.Once
	err  error // set by once: what is wrong with the header
	// rest is what was read behind the header, nil for nothing; set by once, and then the
	// reader's.
	rest atomic.Pointer[[]byte]
	// info is what the header says; nil until it has been read, and where there is none.
	info atomic.Pointer[ProxyInfo]

	// mu guards what follows and the socket's read deadline.
	mu       sync.Mutex
	deadline time.Time // the read deadline that was set, zero if there is none
	limit    time.Time // when the wait for the header ends; zero except during that
}

var (
	_ net.Conn      = (*proxyConn)(nil)
	_ io.ReaderFrom = (*proxyConn)(nil)
	_ io.WriterTo   = (*proxyConn)(nil)
	_ syscall.Conn  = (*proxyConn)(nil)
)

// HeaderError waits for the header, and says what is wrong with it.
func (c *proxyConn) HeaderError() error {
	c.once.Do(func() {
		var info *ProxyInfo
		if info, c.err = c.readHeader(); c.err == nil {
			c.info.Store(info)
		}
	})
	return c.err
}

// readHeader reads until it is clear whether there is a header, and to its end if there
// is.
func (c *proxyConn) readHeader() (*ProxyInfo, error) {
	if c.required && !c.trusted {
		return nil, ErrProxyUntrusted
	}
	c.setLimit(time.Now().Add(proxyHeaderTimeout))
	defer c.setLimit(time.Time{})
	buf := make([]byte, 0, proxyBuffer)
	for {
		n, err := c.Conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		length, answer := scanProxyHeader(buf)
		switch {
		case answer == proxyNone, answer == proxyUnclear && err != nil:
			return c.withoutHeader(buf, err)
		case answer == proxyUnclear:
			continue
		case !c.trusted:
			return nil, ErrProxyUnexpected
		case answer == proxyWhole:
			c.keep(buf[length:])
			return parseProxyHeader(buf[:length])
		case answer == proxyTooLong:
			return nil, errProxyTooLong
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errProxySlow
		case err != nil:
			return nil, errProxyCutShort
		}
		if length > cap(buf) {
			buf = append(make([]byte, 0, length), buf...)
		}
	}
}

// withoutHeader decides about a connection that has begun with something else, or was
// ended by err while it could still have begun with a header. It returns no info.
func (c *proxyConn) withoutHeader(begun []byte, err error) (*ProxyInfo, error) {
	switch {
	case len(begun) == 0:
		return nil, fmt.Errorf("%w: %w", ErrProxySilent, err)
	case c.required && errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errProxySlow
	case c.required:
		return nil, ErrProxyMissing
	}
	c.keep(begun)
	return nil, nil //nolint:nilnil // A connection without a header has no info and no fault.
}

// keep holds back rest for the reader. It lets the memory go where there is none.
func (c *proxyConn) keep(rest []byte) {
	c.rest.Store(nil)
	if len(rest) > 0 {
		kept := rest // rest itself would be allocated where it is empty, too.
		c.rest.Store(&kept)
	}
}

// HasUnread reports whether bytes are held back for the reader.
func (c *proxyConn) HasUnread() bool { return c.rest.Load() != nil }

func (c *proxyConn) Read(p []byte) (int, error) {
	if err := c.HeaderError(); err != nil {
		return 0, err
	}
	rest := c.rest.Load()
	if rest == nil {
		return c.Conn.Read(p)
	}
	n := copy(p, *rest)
	c.keep((*rest)[n:])
	return n, nil
}

func (c *proxyConn) Write(p []byte) (int, error) {
	if err := c.HeaderError(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// ReadFrom implements [io.ReaderFrom] by the socket's own, which may use sendfile or
// splice.
func (c *proxyConn) ReadFrom(r io.Reader) (int64, error) {
	if err := c.HeaderError(); err != nil {
		return 0, err
	}
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// WriteTo implements [io.WriterTo] by the socket's own, which may use splice.
func (c *proxyConn) WriteTo(w io.Writer) (int64, error) {
	if err := c.HeaderError(); err != nil {
		return 0, err
	}
	var written int64
	if rest := c.rest.Load(); rest != nil {
		n, err := w.Write(*rest)
		written = int64(n)
		c.keep((*rest)[n:])
		switch {
		case err != nil:
			return written, err
		case n < len(*rest):
			return written, io.ErrShortWrite
		}
	}
	n, err := io.Copy(w, c.Conn)
	return written + n, err
}

// CloseWrite shuts down the writing side. It does not wait for a header, and fails with
// errors.ErrUnsupported where the socket has no such method.
func (c *proxyConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return fmt.Errorf("listeners: close write of a %T: %w", c.Conn, errors.ErrUnsupported)
}

// SyscallConn returns the raw socket for setting options. Reading from it skips what is
// held back.
func (c *proxyConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("listeners: socket of a %T: %w", c.Conn, errors.ErrUnsupported)
}

// NetConn returns the socket, whose addresses are the balancer's.
func (c *proxyConn) NetConn() net.Conn { return c.Conn }

// RemoteAddr waits for the header and returns the client's address, or the socket's where
// the header has none.
func (c *proxyConn) RemoteAddr() net.Addr {
	_ = c.HeaderError() // Every read and write returns it.
	if info := c.info.Load(); info != nil && info.Source != nil {
		return info.Source
	}
	return c.Conn.RemoteAddr()
}

// LocalAddr returns what the client connected to, or the socket's address where that is
// not known, or not yet.
func (c *proxyConn) LocalAddr() net.Addr {
	if info := c.info.Load(); info != nil && info.Destination != nil {
		return info.Destination
	}
	return c.Conn.LocalAddr()
}

func (c *proxyConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.Conn.SetWriteDeadline(t))
}

func (c *proxyConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.applyDeadline()
}

// setLimit begins the wait for the header, or ends it.
func (c *proxyConn) setLimit(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	_ = c.applyDeadline() // It fails for a socket whose reads fail as well.
}

// applyDeadline sets the earlier one of deadline and limit. The caller holds mu.
func (c *proxyConn) applyDeadline() error {
	t := c.deadline
	if t.IsZero() || !c.limit.IsZero() && c.limit.Before(t) {
		t = c.limit
	}
	return c.Conn.SetReadDeadline(t)
}
