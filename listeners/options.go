package listeners

import (
	"errors"
	"fmt"
	"math"
	"net"
	"syscall"
	"time"
)

// The bounds of the TCP options.
const (
	// minKeepalive is the unit that the kernel counts keepalive times in.
	minKeepalive = time.Second
	// maxKeepalive is MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of Linux.
	maxKeepalive = 32767 * time.Second
	// maxUserTimeout is the most that fits in the kernel's int of milliseconds: 24 days.
	maxUserTimeout = math.MaxInt32 * time.Millisecond
)

// socketFaults returns what is wrong with the options of the sockets.
func (c Config) socketFaults(network string) (faults []error) {
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("listeners: %s: %w", key, fmt.Errorf(format, args...)))
	}
	isUnix := network == "unix"
	switch {
	case c.ReusePort < 0:
		fault("reuse_port", "%d is below 0", c.ReusePort)
	case c.ReusePort > maxReusePort:
		fault("reuse_port", "%d is above %d", c.ReusePort, maxReusePort)
	case c.ReusePort > 1 && isUnix:
		fault("reuse_port", "%d: a Unix socket has no port that several could share", c.ReusePort)
	}
	if c.Backlog < 0 {
		fault("backlog", "%d is below 0", c.Backlog)
	}
	switch k := c.TCPKeepalive; {
	case k != 0 && (k < minKeepalive || k > maxKeepalive):
		fault("tcp_keepalive", "%v is neither 0 nor from %v to %v", k, minKeepalive, maxKeepalive)
	case isUnix && k != 0 && k != DefaultTCPKeepalive:
		fault("tcp_keepalive", "%v: a Unix socket is no TCP socket", k)
	}
	switch u := c.TCPUserTimeout; {
	case u != 0 && (u < time.Millisecond || u > maxUserTimeout):
		fault("tcp_user_timeout", "%v is neither 0 nor from 1ms to %v", u, maxUserTimeout)
	case isUnix && u != 0:
		fault("tcp_user_timeout", "%v: a Unix socket is no TCP socket", u)
	}
	return faults
}

// checkPlatform returns what is asked for and not to be had here.
func (c Config) checkPlatform() error {
	var faults []error
	if c.ReusePort > 1 && !hasReusePort {
		faults = append(faults, fmt.Errorf("listeners: listen on %s: reuse_port: %w", c.Address, errors.ErrUnsupported))
	}
	if c.TCPUserTimeout > 0 && !hasUserTimeout {
		faults = append(faults, fmt.Errorf("listeners: listen on %s: tcp_user_timeout: %w", c.Address, errors.ErrUnsupported))
	}
	return errors.Join(faults...)
}

// setOptions sets the options of a socket that listens already, and may be an
// inherited one.
func (c Config) setOptions(l net.Listener) error {
	if _, isTCP := l.Addr().(*net.TCPAddr); !isTCP && (c.ReusePort > 1 || c.TCPUserTimeout > 0) {
		return fmt.Errorf("reuse_port and tcp_user_timeout need a TCP socket, which a %s one is not", l.Addr().Network())
	}
	if c.ReusePort <= 1 && c.Backlog == 0 {
		return nil
	}
	raw, err := layer{l}.SyscallConn()
	if err != nil {
		return err
	}
	if c.ReusePort > 1 {
		// The kernel compares the options of both sockets when the second is bound.
		if err := setReusePort(raw); err != nil {
			return fmt.Errorf("reuse_port: %w", err)
		}
	}
	if c.Backlog > 0 {
		if err := setBacklog(raw, c.Backlog); err != nil {
			return fmt.Errorf("backlog: %w", err)
		}
	}
	return nil
}

// control calls set with the descriptor of a socket.
func control(raw syscall.RawConn, set func(fd uintptr) error) error {
	var setErr error
	if err := raw.Control(func(fd uintptr) { setErr = set(fd) }); err != nil {
		return err
	}
	return setErr
}

// tuned returns a listener whose connections have the TCP options, which is l
// where they have them from the socket, or that is what package net does by itself.
func (c Config) tuned(l net.Listener) net.Listener {
	if _, isTCP := l.Addr().(*net.TCPAddr); !isTCP {
		return l
	}
	t := &tunedListener{layer: layer{l}, keepalive: c.TCPKeepalive, userTimeout: c.TCPUserTimeout}
	if hasQuiet(l) {
		t.hasKeepalive = setListenerKeepalive(l, c.TCPKeepalive)
	} else {
		t.hasKeepalive = c.TCPKeepalive == DefaultTCPKeepalive
	}
	if t.hasKeepalive && t.userTimeout == 0 {
		return l
	}
	return t
}

// tunedListener sets options of the connections that it accepts. A connection could get
// them from the listening socket, but not all: package net sets its own
// keepalive on those of an inherited socket, and a multipath TCP socket takes no user timeout.
type tunedListener struct {
	layer

	hasKeepalive bool // without tune
	keepalive    time.Duration
	userTimeout  time.Duration
}

// Accept implements [net.Listener]. It returns the very connection that the listener below returns.
func (l *tunedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		l.tune(tcp)
	}
	return conn, err
}

// tune sets the options. It cannot fail but for a connection that has ended
// already, whose reader gets to know.
func (l *tunedListener) tune(conn *net.TCPConn) {
	switch {
	case l.hasKeepalive:
	case l.keepalive == 0:
		_ = conn.SetKeepAlive(false)
	default:
		_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: l.keepalive, Interval: l.keepalive, Count: keepaliveCount})
	}
	if l.userTimeout == 0 {
		return
	}
	if raw, err := conn.SyscallConn(); err == nil {
		_ = setUserTimeout(raw, l.userTimeout)
	}
}
