package mux

import (
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// http2State is what only a connection with requests in HTTP/2 needs.
type http2State struct {
	exchanges exchanges
	running   atomic.Int32 // requests whose handlers have not returned, calls included
	// idleSince is when the last stream ended, counted from clockStart; see track. On a
	// connection that was upgraded it is 0 while there are streams.
	idleSince atomic.Int64
	// stuck is one more than SentData where answers of native calls had been waiting for the
	// client's window for http2.progress_timeout, at the last sweep; otherwise 0. See isStuck.
	stuck  atomic.Uint64
	left   atomic.Int32 // requests whose bodies are read behind their handlers; see discard
	calls  callSlots
	budget atomic.Pointer[protocols.CallBudget] // nil before it is needed
	// upgraded is nil unless the connection was upgraded by "Upgrade: h2c".
	upgraded atomic.Pointer[protocols.UpgradedConn]
}

func (c *conn) http2() *http2State { return &c.ensureRare().h2 }

// followed is what follows the frames of an HTTP/2 connection. The methods are described in
// the package sniff.
type followed interface {
	FinalGoAway()
	SentData() uint64
	AskRead()
	Unread() uint64
	IsBeyondLast(stream uint32) bool
	HasOpenStreams() bool
	IsMute(timeout time.Duration) bool
}

// frames returns what follows the connection's frames, also where it was upgraded.
func (c *conn) frames() followed {
	if u := c.rare().h2.upgraded.Load(); u != nil {
		return u
	}
	return &c.Conn
}

// FinalGoAway is as in the package sniff, for upgraded connections as well.
func (c *conn) FinalGoAway() { c.frames().FinalGoAway() }

// SentData is as in the package sniff, for upgraded connections as well.
func (c *conn) SentData() uint64 { return c.frames().SentData() }

// AskRead is as in the package sniff, for upgraded connections as well.
func (c *conn) AskRead() { c.frames().AskRead() }

// Unread is as in the package sniff, for upgraded connections as well.
func (c *conn) Unread() uint64 { return c.frames().Unread() }

// IsBeyondLast is as in the package sniff, for upgraded connections as well.
func (c *conn) IsBeyondLast(stream uint32) bool { return c.frames().IsBeyondLast(stream) }

// HasOpenStreams is as in the package sniff, for upgraded connections as well.
func (c *conn) HasOpenStreams() bool { return c.frames().HasOpenStreams() }

// CallBudget implements [protocols.StreamWindows].
func (c *conn) CallBudget() *protocols.CallBudget {
	budget := &c.http2().budget
	if budget.Load() == nil {
		budget.CompareAndSwap(nil, protocols.NewCallBudget(c, c.root.backend.config.HTTP2)) // Unless another call was faster.
	}
	return budget.Load()
}

// isMute reports whether the client has been silent behind a PING of the server for longer
// than it may. It is not silent where the server has not read what it says: grpc-go reads
// nothing while as many handlers run as may. One that has reset the connection says no more.
func (c *conn) isMute() bool {
	timeout, _ := c.root.backend.pingTimeouts(c.verdict().Protocol)
	if !c.frames().IsMute(timeout) {
		return false
	}
	_, reset := c.account.PeerLeft()
	return reset || !c.account.HasUnread()
}

// isHTTP2 reports whether the connection was recognised as HTTP/2, whoever serves it.
func (c *conn) isHTTP2() bool {
	p := c.verdict().Protocol
	return p == protocols.HTTP2 || p == protocols.GRPC
}

// finalGoAway tells the client of an HTTP/2 connection its last stream. What it opens behind
// that is not served, and what is under way goes on.
func (c *conn) finalGoAway() {
	if c.depart(departFinal) {
		c.FinalGoAway()
		if c.isIdleHTTP2() { // Else answers follow, behind which the sweep asks.
			c.AskRead()
		}
	}
}

// namesLast reports whether the client of an HTTP/2 connection can be told its last stream: the
// server refuses those beyond. Else a request that crosses would be served, and made again.
func (c *conn) namesLast() bool {
	return c.verdict().Protocol != protocols.GRPC || c.root.backend.config.sweepsCalls()
}

// isIdleHTTP2 reports whether nothing is under way on a connection that speaks HTTP/2: no
// stream is open. net/http and x/net say so themselves, but before they have written the end of
// the last answer. On a connection of grpc-go no handler runs either, because a handler may
// outlive the reset of its stream.
func (c *conn) isIdleHTTP2() bool {
	switch {
	case c.isShared():
		return c.account.State() == pool.StateIdle && !c.HasOpenStreams()
	case c.isHTTP2():
		return c.account.InFlight() == 0 && !c.HasOpenStreams()
	default: // It was upgraded by "Upgrade: h2c".
		return c.rare().h2.idleSince.Load() != 0 && !c.HasOpenStreams()
	}
}

// opensBeyond reports whether the client has opened a stream beyond the last that it was told,
// which the front refuses. On grpc-go's connections the filter drops such streams before they
// count as opened, or nothing refuses them.
func (c *conn) opensBeyond() bool { return c.IsBeyondLast(c.OpenedStreams()) }

// isStuck reports whether the client of a native connection has taken nothing of its answers
// for http2.progress_timeout, and no handler runs.
func (c *conn) isStuck() bool {
	stuck := c.rare().h2.stuck.Load()
	return stuck != 0 && stuck == c.SentData()+1 && c.account.InFlight() == 0 && c.HasOpenStreams()
}

// isShared reports whether net/http serves the HTTP/2 connection and keeps its state. Neither
// grpc-go nor x/net's server, which serves connections upgraded by "Upgrade: h2c", does.
func (c *conn) isShared() bool { return c.verdict().Protocol == protocols.HTTP2 }

// owesAnswer reports whether the client has not shown that it knows of the first GOAWAY.
func (c *conn) owesAnswer() bool {
	_, acked := c.GoneAway()
	return c.isServing() && c.isHTTP2() && !acked
}
