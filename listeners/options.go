package listeners

import (
	"errors"
	"fmt"
	"math"
	"net"
	"syscall"
	"time"
)

// checkPlatform returns an error for each option that this system does not have.
func (c Config) checkPlatform() error {
	unsupported := func(asked, has bool, key string) error { //nolint:unparam // On other systems it is false, too.
		if !asked || has {
			return nil
		}
		return fmt.Errorf("listeners: listen on %s: %s: %w", c.Address, key, errors.ErrUnsupported)
	}
	return errors.Join(
		unsupported(c.UnixMode != "", hasFileOwners, "unix_mode"),
		unsupported(c.UnixOwner != "", hasFileOwners, "unix_owner"),
		unsupported(c.ReusePort > 1, hasReusePort, "reuse_port"),
		unsupported(c.Backlog > 0, hasBacklog, "backlog"),
		unsupported(c.TCPUserTimeout > 0, hasUserTimeout, "tcp_user_timeout"))
}

// setOptions gives a socket that listens already, and may serve clients, the options of c
// that can fail to be set, and leaves the others to o.Commit.
func (c Config) setOptions(o *Opening, l net.Listener, was Config) error {
	if _, isTCP := l.Addr().(*net.TCPAddr); !isTCP && (c.ReusePort > 1 || c.TCPUserTimeout > 0) {
		return fmt.Errorf("reuse_port and tcp_user_timeout need a TCP socket, which a %s one is not", l.Addr().Network())
	}
	m := memoryOf(l, was)
	a := m.recall()
	if err := c.setFile(o, l, &a); err != nil {
		return err
	}
	if c.ReusePort > 1 || c.Backlog > 0 || a.ReusePort || a.Backlog {
		raw, err := layer{l}.SyscallConn()
		if err != nil {
			return err
		}
		if err := c.setSharing(o, raw, &a); err != nil {
			return fmt.Errorf("reuse_port: %w", err)
		}
		c.setQueue(o, raw, &a)
	}
	o.commit = append(o.commit, func() { m.note(a) })
	return nil
}

// setSharing sets SO_REUSEPORT.
func (c Config) setSharing(o *Opening, raw syscall.RawConn, a *altered) error {
	switch {
	case c.ReusePort > 1 && !reusesPort(raw):
		// The kernel compares the options of both sockets when the second is bound.
		if err := setReusePort(raw, true); err != nil {
			return err
		}
		a.ReusePort = true
		o.undo = append(o.undo, func() error {
			_ = setReusePort(raw, false) // It fails for a socket that is closed.
			return nil
		})
	case c.ReusePort <= 1 && a.ReusePort:
		a.ReusePort = false
		o.commit = append(o.commit, func() { _ = setReusePort(raw, false) })
	}
	return nil
}

// setQueue sets the backlog. It cannot fail for a socket that listens already.
func (c Config) setQueue(o *Opening, raw syscall.RawConn, a *altered) {
	n := c.Backlog
	switch {
	case n > 0:
	case a.Backlog:
		n = math.MaxInt32 // The kernel applies its own maximum.
	default:
		return
	}
	a.Backlog = c.Backlog > 0
	o.commit = append(o.commit, func() { _ = setBacklog(raw, n) })
}

// control calls set with the descriptor of a socket.
func control(raw syscall.RawConn, set func(fd uintptr) error) error {
	var setErr error
	if err := raw.Control(func(fd uintptr) { setErr = set(fd) }); err != nil {
		return err
	}
	return setErr
}

// keepaliveCount is how many keepalive probes may go unanswered, as in package net.
const keepaliveCount = 9

// A quietListener is a socket whose connections package net gives no keepalive. They
// inherit the listening socket's: setting it on each takes four system calls, 3 µs of
// some 70 for a connection with one request.
type quietListener struct {
	*net.TCPListener
	memory
}

// tuned returns a listener whose connections have the TCP options. It is l where they
// inherit them from the socket or get them from package net.
func (c Config) tuned(o *Opening, l net.Listener) net.Listener {
	if _, isTCP := l.Addr().(*net.TCPAddr); !isTCP {
		return l
	}
	t := &tunedListener{layer{l}, c.TCPKeepalive == defaultKeepalive, c.TCPKeepalive, c.TCPUserTimeout}
	inner := l
	if k, ok := l.(*socket); ok {
		inner = k.innerSocket
	}
	if q, ok := inner.(*quietListener); ok {
		raw, err := q.SyscallConn()
		if t.hasKeepalive = err == nil; t.hasKeepalive {
			o.commit = append(o.commit, func() { _ = setKeepalive(raw, c.TCPKeepalive) })
		}
	}
	if t.hasKeepalive && t.userTimeout == 0 {
		return l
	}
	return t
}

// tunedListener sets options of the connections that it accepts. They cannot inherit all:
// package net sets its keepalive on connections of an inherited socket, and a multipath
// TCP socket takes no user timeout.
type tunedListener struct {
	layer

	hasKeepalive bool // without tune
	keepalive    time.Duration
	userTimeout  time.Duration
}

// Accept implements [net.Listener]. It returns the connection of the listener below as it
// is.
func (l *tunedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		l.tune(tcp)
	}
	return conn, err
}

// tune sets the options. It fails only for a connection that has ended already, as its
// first Read says.
func (l *tunedListener) tune(conn *net.TCPConn) {
	if !l.hasKeepalive {
		_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: l.keepalive > 0, Idle: l.keepalive, Interval: l.keepalive, Count: keepaliveCount})
	}
	if l.userTimeout == 0 {
		return
	}
	if raw, err := conn.SyscallConn(); err == nil {
		_ = setUserTimeout(raw, l.userTimeout)
	}
}
