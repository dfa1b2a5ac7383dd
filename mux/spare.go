package mux

import (
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// spare is a connection that may leave.
type spare struct {
	c         *conn
	turn      turn
	undecided bool      // an HTTP/2 client has sent no request, and is given up by a GOAWAY
	halfway   bool      // the server waits for the rest of a handshake or a head
	left      bool      // the client of a request that is under way has ended its half
	since     time.Time // idle or within the head of a request, or when it was accepted
	requests  uint64    // that it has had
}

// turn is when a connection leaves, beside others.
type turn int

const (
	// turnTold were told to leave, and are idle. Their clients take other connections. The one
	// that has been idle longest leaves first.
	turnTold turn = iota
	// turnEarly have had no request for slowPatience. The oldest leaves first.
	turnEarly
	// turnIdle are idle, or slow with a head. The one that has been so longest leaves first.
	turnIdle
	// turnLeft have a request under way whose client sends no more, and may have gone. The
	// one that has been silent longest leaves first.
	turnLeft
	// turnYoung may be within the handshake of a client that is far away. The youngest
	// leaves first: if they went by their age, none would be over before its turn comes
	// where many come.
	turnYoung
)

// spare describes a connection that may leave. It reports false for one that serves a
// request, and for one that takes no place: an in-process one, one that has made room
// already, or one that the server refuses. A connection whose client was told to leave for
// another reason keeps its place until it ends; [sweep.isDelivering] may let an idle one wait
// long for that.
func (m *room) spare(c *conn) (s spare, ok bool) {
	s = spare{c: c, turn: turnIdle, since: c.account.Opened(), requests: c.account.Requests()}
	unused := turnEarly
	if time.Since(s.since) < m.slow {
		unused = turnYoung
	}
	switch {
	case c.isLocal() || c.account.IsExempt():
		return s, false
	case c.stage() == stageOpen && c.AwaitsFirstRequest():
		s.turn, s.undecided = unused, true // gRPC waits for the server's SETTINGS before its first call.
		return s, c.account.CloseReason() == ""
	case c.awaitsRest():
		quiet := m.mute
		if m.queues() {
			quiet = m.slow
		}
		mute, slow := time.Since(c.account.LastActivity()) >= quiet, c.headFor()
		s.halfway = true
		switch {
		case mute && s.requests == 0:
			s.turn = unused
		case mute:
			s.since = c.account.LastActivity()
		default:
			s.since = time.Now().Add(-slow)
		}
		// What comes while TLS writes by itself it does not read; see sweep.writesAlone.
		isRead := !c.account.HasUnread() || c.account.IsWriting()
		return s, (c.account.CloseReason() == "" || c.isTold()) && (mute || slow >= m.slow) && isRead
	}
	idle := c.account.State() == pool.StateIdle
	s.since = c.account.LastActivity()
	switch c.root.books.tag(c) {
	case protocols.HTTP1:
		ok = idle && !c.isFed()
		if !idle && c.account.State() == pool.StateActive && c.rare().halfClosed.Load() {
			s.turn, s.left, ok = turnLeft, true, true
		}
	case protocols.HTTP2: // A PING is activity, but no reason to stay.
		ok = c.isIdleHTTP2()
		s.since = clockStart.Add(time.Duration(c.rare().h2.idleSince.Load()))
	case protocols.GRPC:
		ok = c.isIdleHTTP2() || c.isStuck()
	}
	if s.turn == turnIdle && c.isTold() {
		s.turn = turnTold
	}
	return s, ok && c.isServing()
}

// lasts describes a connection that has made room longer ago than its patience, which is
// short where nothing is under way. It reports false for a WebSocket, which has taken a
// place again.
func (m *room) lasts(c *conn) (s spare, ok bool) {
	ago, yielded := c.yieldedFor()
	if !yielded {
		return s, false
	}
	patience := m.patience
	if c.isIdle() || c.isClosing() { // Those that were idle for longest have made room.
		patience = min(patience, m.mute)
	}
	if c.isClosing() { // It waits for the goodbye of TLS alone, and its client had time to read before.
		ago = max(ago, time.Since(c.account.LastActivity()))
	}
	s = spare{c: c, since: clockStart.Add(time.Duration(c.rare().leave.yielded.Load()))}
	return s, c.isServing() && ago >= patience && c.root.books.tag(c) != protocols.WebSocket
}

// isAnswered reports whether nothing of the connection's requests is under way, their answers
// included.
func (c *conn) isAnswered() bool {
	_, waiting := c.account.Unacknowledged()
	return !waiting && c.isIdle()
}

// isIdle reports whether none of the connection's requests is under way. The client may not
// have taken all of their answers.
func (c *conn) isIdle() bool {
	if c.isHTTP2() || c.account.State() == pool.StateUpgraded {
		return c.isIdleHTTP2()
	}
	return c.account.State() == pool.StateIdle
}

// isUnread reports whether the connection is to be refused, and what it says first is not
// there: nothing of it, or not all for longer than a client takes that sends it at once.
func (m *room) isUnread(c *conn) bool {
	if !c.account.IsExempt() || c.isLocal() || c.stage() >= stageKnown || c.account.CloseReason() != "" {
		return false
	}
	return c.account.Received() == 0 && !c.account.HasUnread() || time.Since(c.account.Opened()) >= m.mute
}
