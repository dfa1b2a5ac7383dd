package mux

import (
	"net"
	"net/http"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// An idle HTTP/1.1 connection is ended without breaking a request that comes at the same
// moment. net/http waits for the next request in a Read. A deadline in the past ends the
// wait, and with it the connection. If the request was faster, net/http's hook takes the
// deadline back before the handler runs.

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// closeIdle ends an HTTP/1.1 connection that has been waiting for its next request for
// longer than fresh, and of that request has received nothing.
func (c *conn) closeIdle(fresh time.Duration) {
	d := c.root.departures
	d.idle.Lock()
	defer d.idle.Unlock()
	if c.account.State() == pool.StateIdle && !c.isFed() &&
		time.Since(c.account.LastActivity()) >= fresh && !c.account.HasUnread() {
		c.closingIdle = true
		_ = c.SetReadDeadline(aLongTimeAgo)
	}
}

// comesBack reports whether a request has begun to arrive while closeIdle was ending the
// wait for it. It is then served.
func (c *conn) comesBack() bool {
	d := c.root.departures
	d.idle.Lock()
	defer d.idle.Unlock()
	return c.closingIdle && c.account.HasUnread() && c.reopen()
}

// reopen takes back what closeIdle has done. The caller holds departures.idle.
func (c *conn) reopen() bool {
	c.closingIdle = false
	return c.SetReadDeadline(time.Time{}) == nil
}

// isFed reports whether bytes have come since the connection became idle: the beginning of
// the next request, or under TLS a part of a record.
func (c *conn) isFed() bool { return uint32(c.account.Received()) != c.idleAt.Load() }

// trackState is the http.Server hook that keeps the account's state.
func trackState(nc net.Conn, state http.ConnState) {
	if c, ok := nc.(*conn); ok {
		c.track(state)
	}
}

// track keeps the account's state by what net/http says of the connection.
func (c *conn) track(state http.ConnState) {
	if c.account.State() == pool.StateUpgraded { // It has become HTTP/2; see H2CUpgrades.
		var since int64
		if state == http.StateIdle {
			since = int64(sinceStart())
		}
		c.http2().idleSince.Store(since)
		return
	}
	switch state {
	case http.StateActive:
		c.account.SetState(pool.StateActive)
		c.begin()
		if c.isTold() {
			c.undoCloseIdle()
		}
	case http.StateIdle:
		if m := c.layers().rare.Load(); m != nil {
			m.body.finish()
			m.ownWrites.Store(false)
		}
		c.idleAt.Store(uint32(c.account.Received()))
		if c.isShared() {
			c.http2().idleSince.Store(int64(sinceStart()))
		}
		c.account.SetState(pool.StateIdle)
	case http.StateHijacked:
		c.account.SetState(pool.StateUpgraded)
	case http.StateNew, http.StateClosed:
	}
}

// undoCloseIdle takes back what closeIdle has done, because a request has come.
func (c *conn) undoCloseIdle() {
	d := c.root.departures
	d.idle.Lock()
	defer d.idle.Unlock()
	if c.closingIdle {
		c.reopen()
	}
}

// awaitsRequest reports whether net/http waits for a request, the first or the next. While
// one is served, net/http reads as well, and wakes that read by a deadline.
func (c *conn) awaitsRequest() bool {
	return c.account.State() == pool.StateIdle || c.account.Requests() == 0 && !c.hasBegun()
}

// noteTimeout records which of net/http's times has run out while it was waiting for a
// request. net/http closes the connection next.
func (c *conn) noteTimeout() {
	d := c.root.departures
	d.idle.Lock()
	defer d.idle.Unlock()
	switch {
	case c.closingIdle: // It has its reason.
	case c.account.State() == pool.StateIdle && !c.isFed():
		c.account.SetCloseReason(reasonIdle)
	default:
		c.account.SetCloseReason(reasonHeader)
	}
}
