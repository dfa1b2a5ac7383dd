package mux

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// moment returns when the client i of n is told to leave, within spread. Each has a part of
// the spread of its own, so that no moment is crowded by chance.
func moment(i, n int, spread time.Duration) time.Duration {
	return time.Duration((float64(i) + rand.Float64()) / float64(n) * float64(spread)) //nolint:gosec // It spreads a herd and makes no secret.
}

// An idle HTTP/1.1 connection is ended without breaking a request that
// comes at the same moment. net/http waits for the next request in a Read; a
// deadline in the past ends the wait, and the connection. If the request was
// faster, the server's hook takes the deadline back before the handler runs.

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// closeIdle ends an HTTP/1.1 connection that waits for its next request, of
// which not a byte has come yet, if the last was longer ago than fresh. Otherwise it is closed by its next response.
func (c *conn) closeIdle(fresh time.Duration) {
	c.set(flagTold)
	c.root.departures.Lock()
	defer c.root.departures.Unlock()
	if c.account.State() == pool.StateIdle && !c.isFed() &&
		time.Since(c.account.LastActivity()) >= fresh && !hasUnread(&c.account) {
		c.set(flagLeaving)
		_ = c.SetReadDeadline(aLongTimeAgo)
	}
}

// comesBack reports whether a request has begun to arrive while closeIdle was ending the wait for it. It is then served.
func (c *conn) comesBack() bool {
	c.root.departures.Lock()
	defer c.root.departures.Unlock()
	if !c.has(flagLeaving) || !hasUnread(&c.account) {
		return false
	}
	c.unset(flagLeaving)
	_ = c.SetReadDeadline(time.Time{})
	return true
}

// isFed reports whether bytes have come since the connection became idle. Under TLS a part of a record is not read by anybody yet.
func (c *conn) isFed() bool {
	m := c.more.Load()
	return c.has(flagFed) || m != nil && m.tls != nil && m.idleSince.Load() != c.account.Received()
}

// track keeps the account's state by what net/http says of the connection.
func (c *conn) track(state http.ConnState) {
	switch state {
	case http.StateActive:
		c.account.SetState(pool.StateActive)
		if c.has(flagTold) {
			c.stay()
		}
	case http.StateIdle:
		c.unset(flagFed | flagBody)
		if m := c.more.Load(); m != nil && m.tls != nil {
			m.idleSince.Store(c.account.Received())
		}
		c.account.SetState(pool.StateIdle)
	case http.StateHijacked:
		c.account.SetState(pool.StateUpgraded)
	case http.StateNew, http.StateClosed:
	}
}

// stay takes back what closeIdle has done.
func (c *conn) stay() {
	c.root.departures.Lock()
	defer c.root.departures.Unlock()
	if c.has(flagLeaving) {
		c.unset(flagLeaving)
		_ = c.SetReadDeadline(time.Time{})
	}
}

// noteTimeout records which of net/http's times has run out, if it was one of
// them: the connection is about to be closed.
func (c *conn) noteTimeout() {
	c.root.departures.Lock()
	defer c.root.departures.Unlock()
	switch {
	case c.has(flagLeaving) || c.account.InFlight() > 0:
		// It is being told to leave, or its handler has set a deadline.
	case c.account.State() == pool.StateIdle && !c.isFed():
		c.account.SetCloseReason(pool.ReasonIdle)
	default:
		c.account.SetCloseReason(pool.ReasonHeader)
	}
}
