package mux

import (
	"cmp"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// An End says how a connection ended.
type End string

// The values of [End], in [ClosedConn].Outcome.
const (
	EndClosed  End = "closed"  // as it should
	EndRefused End = "refused" // a limit kept it out, or it was never recognised
	EndFailed  End = "failed"  // it was reset, too slow, or broke a rule
	EndCut     End = "cut"     // by a drain or by [Server.Disconnect]
)

// ClosedConn describes a connection that has ended.
type ClosedConn struct {
	ID            uint64    `json:"id"`               // as in [Conn].ID and in the log
	Protocol      string    `json:"protocol"`         // the tag of its last pool
	RemoteAddr    string    `json:"remote_addr"`      // the peer, behind a PROXY header the client
	Opened        time.Time `json:"opened"`           // when it was accepted
	Closed        time.Time `json:"closed"`           // when it ended
	Outcome       End       `json:"outcome"`          // how it ended, in one word
	Reason        string    `json:"reason"`           // as in [Stats].Closed, or for refused ones in .Rejected
	Detail        string    `json:"detail,omitempty"` // what exactly was wrong; the texts are constants
	BytesReceived uint64    `json:"bytes_received"`   // from the peer
	Requests      uint64    `json:"requests"`         // requests, calls and WebSocket sessions
}

// closedKept is how many ended connections are remembered: so many that ended as they
// should, and so many others, so that neither push out the other.
const closedKept = 200

// closedConns remembers the connections that have ended last. The zero value is empty. All
// methods may be called concurrently.
type closedConns struct{ fine, others closedRing }

// closedRing is a ring of ended connections. Each slot has a lock of its own, so that
// goroutines which close connections do not wait for each other.
type closedRing struct {
	count atomic.Uint64
	slots atomic.Pointer[[closedKept]closedSlot] // nil before the first connection
}

type closedSlot struct {
	mu     sync.Mutex // guards what follows
	conn   ClosedConn
	remote net.Addr // turned into text when it is asked for
}

// add remembers a connection that has just ended. served says whether it came to its
// server; otherwise its verdict must stand. It is no observer of events: below them, the
// stack would have to grow at the end of each gRPC connection, which is 3 % of grpc-newconn.
func (k *closedConns) add(c *conn, served bool) {
	if !c.markListed() {
		return
	}
	outcome, reason, detail := EndClosed, c.account.CloseReason(), ""
	switch {
	case c.refused != notRefused:
		outcome, reason = EndRefused, c.refused.String()
	case reason == reasonForced, reason == reasonDisconnected:
		outcome = EndCut
	case !served:
		outcome, reason, detail = c.unserved(reason)
	case slices.Contains(failedReasons, reason):
		outcome = EndFailed
	}
	ring := &k.others
	if outcome == EndClosed {
		ring = &k.fine
	}
	ring.next().fill(c, outcome, reason, detail)
}

// next returns the slot of the oldest connection.
func (r *closedRing) next() *closedSlot {
	slots := r.slots.Load()
	if slots == nil {
		r.slots.CompareAndSwap(nil, new([closedKept]closedSlot)) // Unless another goroutine was faster.
		slots = r.slots.Load()
	}
	return &slots[(r.count.Add(1)-1)%closedKept]
}

// fill describes c.
func (s *closedSlot) fill(c *conn, outcome End, reason, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remote = c.knownAddr()
	s.conn.ID, s.conn.Protocol = c.account.ID(), string(c.root.books.tag(c))
	s.conn.Opened, s.conn.Closed = c.account.Opened(), time.Now()
	s.conn.Outcome, s.conn.Reason, s.conn.Detail = outcome, reason, detail
	s.conn.BytesReceived, s.conn.Requests = c.account.Received(), c.account.Requests()
}

// unserved says how a connection has ended that has not come to its server.
func (c *conn) unserved(closed string) (outcome End, reason, detail string) {
	v := c.verdict()
	switch {
	case closed == reasonDrain:
	case v.Failure == sniff.FailureSilent:
		return EndClosed, v.Failure, v.Reason // A probe that has only connected.
	case v.Failure != "" && !v.IsIdle():
		return EndRefused, v.Failure, v.Reason
	case v.Protocol == protocols.TLS:
		return EndRefused, sniff.FailureNoMatch, "TLS on a port without it"
	case slices.Contains(failedReasons, closed):
		return EndFailed, closed, ""
	}
	return EndClosed, closed, ""
}

// list returns what is remembered, the latest first.
func (k *closedConns) list() []ClosedConn {
	var all []ClosedConn
	for _, ring := range []*closedRing{&k.fine, &k.others} {
		slots := ring.slots.Load()
		if slots == nil {
			continue
		}
		for i := range slots {
			slot := &slots[i]
			slot.mu.Lock()
			c, remote := slot.conn, slot.remote
			slot.mu.Unlock()
			if c.ID == 0 {
				continue
			}
			c.RemoteAddr = addrText(remote)
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b ClosedConn) int { return cmp.Or(b.Closed.Compare(a.Closed), cmp.Compare(b.ID, a.ID)) })
	return all
}

// Closed returns a [ClosedConn] for each connection that has ended last, the latest first:
// up to 200 that ended as they should ([EndClosed]), and up to 200 others ([EndRefused],
// [EndFailed], [EndCut]).
func (s *Server) Closed() []ClosedConn { return s.books.closed.list() }
