package listeners

import (
	"errors"
	"net"
	"time"
)

// NewProxyListener returns a listener whose connections begin with a PROXY
// protocol header, version 1 or 2, as c says. It takes l over. With mode off it is l itself.
//
// A connection's addresses are then those of the header: RemoteAddr is the client, LocalAddr what
// the client connected to. Where the balancer speaks for itself (LOCAL, or UNKNOWN in version 1), as
// its health checks do, they stay those of the socket. What else it says is for [ProxyInfoOf]. The header may come in pieces, within three seconds.
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
	return &proxyListener{layer: layer{l}, trusted: trusted, required: c.Mode == ProxyRequired}, nil
}

// ErrProxySilent is the error of a connection that was closed, or kept silent, before its first byte.
var ErrProxySilent = errors.New("listeners: proxy header: nothing was sent")

// proxyHeaderTimeout bounds the wait for a whole header. A balancer sends it at
// once, so this is the time for a lost packet to be sent again, twice.
const proxyHeaderTimeout = 3 * time.Second

// proxyListener accepts connections that begin with a header.
type proxyListener struct {
	layer

	trusted  trust
	required bool
}

// Accept implements [net.Listener].
func (l *proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxyConn{Conn: conn, trusted: l.trusted.holds(conn.RemoteAddr()), required: l.required}, nil
}
