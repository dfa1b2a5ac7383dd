package listeners

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// NewProxyListener returns a listener whose connections begin with a PROXY
// protocol header, version 1 or 2, as c says. It takes l over. With mode off it is l itself.
//
// A connection's addresses are then those of the header: RemoteAddr is the client, LocalAddr what
// the client connected to. Where the balancer speaks for itself (LOCAL, or UNKNOWN in version 1), as
// its health checks do, they stay those of the socket. The header may come in pieces, within three seconds.
//
// Accept never waits for a header. The first Read, Write or RemoteAddr of a connection does, so
// each of them belongs in the connection's own goroutine; LocalAddr does not wait, and is the
// socket's until then. A connection whose header is missing, broken, too slow or not to be trusted fails
// all reads and writes. Its method HeaderError() error says so beforehand; the error is [ErrProxySilent]
// for a peer that has sent nothing.
func NewProxyListener(l net.Listener, c ProxyConfig) (net.Listener, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if !c.Enabled() {
		return l, nil
	}
	trusted, _ := parseTrusted(c.Trusted) // Validate has seen the faults.
	return &proxyListener{Listener: l, trusted: trusted, required: c.Mode == ProxyRequired}, nil
}

// ErrProxySilent is the error of a connection that was closed, or kept silent, before its first byte.
var ErrProxySilent = errors.New("listeners: proxy header: nothing was sent")

// proxyHeaderTimeout bounds the wait for a whole header. A balancer sends it at
// once, so this is the time for a lost packet to be sent again, twice.
const proxyHeaderTimeout = 3 * time.Second

// proxyListener accepts connections that begin with a header.
type proxyListener struct {
	net.Listener

	trusted  trust
	required bool
}

var (
	_ deadliner    = (*proxyListener)(nil)
	_ syscall.Conn = (*proxyListener)(nil)
)

// Accept implements [net.Listener].
func (l *proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxyConn{Conn: conn, trusted: l.trusted.holds(conn.RemoteAddr()), required: l.required}, nil
}

// SetDeadline passes on how a blocked Accept is woken.
func (l *proxyListener) SetDeadline(t time.Time) error {
	if d, ok := l.Listener.(deadliner); ok {
		return d.SetDeadline(t)
	}
	return fmt.Errorf("listeners: deadline of a %T: %w", l.Listener, errors.ErrUnsupported)
}

// SyscallConn gives access to the socket.
func (l *proxyListener) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := l.Listener.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("listeners: socket of a %T: %w", l.Listener, errors.ErrUnsupported)
}
