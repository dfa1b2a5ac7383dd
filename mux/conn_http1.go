package mux

import (
	"io"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
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

// reader1 returns who waits for more of the body of an HTTP/1.1 request, for the sweep to
// bound. net/http reads what is left of a body in three places: behind the handler, before
// the header of the handler's answer goes out, and where it answers a request by itself
// (417 to an Expect field that it does not know).
func (c *conn) reader1() int32 {
	body := &c.rare().body
	switch {
	case body.isBound():
		return body.reader.Load()
	case c.account.State() != pool.StateActive || c.account.IsWriting():
	case c.account.InFlight() == 0 && c.hasBegun(), body.mayDrain():
		return readByServer
	}
	return readByNobody
}

// awaitsRest reports whether the connection is within what comes before its first request
// (a PROXY header, a TLS handshake, the first bytes), or within the head of one in HTTP/1.1.
func (c *conn) awaitsRest() bool {
	switch stage := c.stage(); {
	case stage < stageKnown:
		return true
	case stage != stageServing || c.root.books.tag(c) != protocols.HTTP1:
		return false
	default:
		return c.awaitsRequest() && (c.account.State() != pool.StateIdle || c.isFed())
	}
}

// headFor returns for how long a connection that awaitsRest has done so: since the accept,
// or within the head of a request since noteHead has seen it, and 0 before that.
func (c *conn) headFor() time.Duration {
	if c.stage() < stageServing {
		return time.Since(c.account.Opened())
	}
	seen := c.rare().head.Load()
	if seen == 0 || seen>>headShift != uint64(c.idleAt.Load()) {
		return 0
	}
	return time.Duration(uint32(headTime())-uint32(seen)) * time.Millisecond
}

// noteHead notes when the connection is within the head of a request. The sweep calls it,
// so that no read has to ask for the time.
func (c *conn) noteHead() {
	if !c.awaitsRest() {
		return
	}
	head, of := &c.ensureRare().head, uint64(c.idleAt.Load())
	if seen := head.Load(); seen == 0 || seen>>headShift != of {
		head.Store(of<<headShift | headTime())
	}
}

// headShift is where in rarely.head stands which head it is, by what idleAt was before it.
// Below that is the time at which it was seen, as headTime has it.
const headShift = 32

// headTime returns the time in milliseconds, by its lower bits, which is never 0.
func headTime() uint64 { return uint64(uint32(sinceStart()/time.Millisecond)) | 1 }

// restTime is how long net/http may go on reading the body of a request that has exceeded
// its limit, behind the answer, before it closes the connection.
const restTime = 500 * time.Millisecond

// CloseWrite sends the end of the stream. net/http calls it behind the answer to a request
// whose body it does not read, and closes the connection 500 ms later. Until then the rest
// is read here: the close would reset the connection under a client that is still sending,
// and take the answer with it.
func (c *conn) CloseWrite() error {
	err := c.Conn.CloseWrite()
	if c.account.State() == pool.StateActive && c.rare().body.reader.Load() != readByNobody {
		_ = c.SetReadDeadline(time.Now().Add(restTime))
		go io.Copy(io.Discard, struct{ io.Reader }{c}) //nolint:errcheck // It ends by the close.
	}
	return err
}
