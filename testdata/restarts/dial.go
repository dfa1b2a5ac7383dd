package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dialer opens the connections of one client, and sees what becomes of them. Its
// fields are set before its first use; its methods are safe for concurrent use.
type dialer struct {
	t *tally
	// address returns where to connect to at the moment.
	address func() string
	// http2 says that the connections speak HTTP/2, whose servers say GOAWAY.
	http2 bool
	// onTold is called when a connection is told to leave, and onEnd when its server
	// has ended it. Both may be nil.
	onTold func(*watchedConn)
	onEnd  func(c *watchedConn, told bool)
}

// dial has the signature of [net/http.Transport.DialContext]; where it connects to is the dialer's business.
func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	address := d.address()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		if isBroken(err) {
			d.t.broken.Add(1)
			d.t.faultf("connecting: %v", err)
		}
		return nil, err
	}
	return &watchedConn{Conn: nc, dialer: d, address: address, opened: time.Now(), told: make(chan struct{})}, nil
}

// isBroken reports whether a connection was refused or reset.
func isBroken(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// watchedConn is a client's connection that sees how its server ends it.
type watchedConn struct {
	net.Conn

	dialer  *dialer
	address string
	opened  time.Time

	follower goAwayFollower // Belongs to the reader.
	told     chan struct{}  // closed by the first GOAWAY

	closed atomic.Bool // by us
	ended  sync.Once
}

// Read implements [net.Conn].
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.dialer.http2 && n > 0 {
		c.follow(p[:n])
	}
	if err != nil {
		c.end(err)
	}
	return n, err
}

// follow looks for GOAWAY in what the server has sent. The reader
// calls it.
func (c *watchedConn) follow(p []byte) {
	for len(p) > 0 {
		before := len(c.follower.last)
		p = p[c.follower.feed(p):]
		after := len(c.follower.last)
		if after == before {
			continue
		}
		if err := c.follower.check(); err != nil {
			c.dialer.t.misled.Add(1)
			c.dialer.t.faultf("connection of %v to %s: %v", time.Since(c.opened).Round(time.Millisecond), c.address, err)
		}
		switch after {
		case 1:
			c.dialer.t.oneStep.Add(1)
			close(c.told)
			if c.dialer.onTold != nil {
				c.dialer.onTold(c)
			}
		case 2:
			c.dialer.t.twoSteps.Add(1)
		}
	}
}

// Write implements [net.Conn].
func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if isBroken(err) {
		c.end(err)
	}
	return n, err
}

// Close implements [net.Conn].
func (c *watchedConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// wasTold reports whether the server has said GOAWAY.
func (c *watchedConn) wasTold() bool {
	select {
	case <-c.told:
		return true
	default:
		return false
	}
}

// end takes note of how the server has ended the connection. An end by ourselves
// and a deadline are none of its doing.
func (c *watchedConn) end(err error) {
	if c.closed.Load() || (!isBroken(err) && !errors.Is(err, io.EOF)) {
		return
	}
	c.ended.Do(func() {
		told := c.wasTold()
		if isBroken(err) {
			c.dialer.t.broken.Add(1)
			c.dialer.t.faultf("connection of %v to %s, told %v: %v", time.Since(c.opened).Round(time.Millisecond), c.address, told, err)
		}
		if c.dialer.onEnd != nil {
			c.dialer.onEnd(c, told)
		}
	})
}
