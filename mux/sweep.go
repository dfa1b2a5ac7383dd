package mux

import (
	"context"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// sweep looks after the live connections, in one goroutine and without a timer for each.
// It ends connections that have reached their age, and what has stopped moving where
// net/http's own timeouts do not apply.
type sweep struct {
	departures *departures
	live       *reloader
	now        time.Time     // of this sweep
	count      uint64        // of the sweeps
	elapsed    time.Duration // from one to the next
	writes     pool.StallWatch
	// These remember, by their numbers, the few connections that wait: HTTP/1.1 uploads, HTTP/2
	// connections whose handlers are all done while streams are open, or answers under way, and
	// those that waited counts. No sweep begins while there is no connection.
	uploads, seenUploads map[uint64]upload1
	tails, seenTails     map[uint64]tail
}

// upload1 is an upload and which of the connection's requests it belongs to.
type upload1 struct {
	upload

	request uint64 // how many the connection has had
	from    uint64 // what it had received when the sweep saw the upload first
}

// tail is the end of HTTP/2 responses that the client does not take.
type tail struct {
	waiting time.Duration // since the client has moved
	whole   time.Duration // since the sweep has found it first
	sent    uint64        // or acknowledged, without what may be unread
	emptied bool          // nothing has waited in the kernel at a sweep
	unread  uint64        // when the sweep has found it first
}

// sweepEvery returns the time between two sweeps.
func (c Config) sweepEvery() time.Duration {
	return moments.SweepEvery(
		c.HTTP1.MaxAge, c.HTTP1.MaxAgeGrace, c.HTTP1.Progress.BodyGrace, c.HTTP1.Progress.ProgressTimeout,
		c.HTTP2.IdleTimeout, c.HTTP2.MaxAge, c.HTTP2.MaxAgeGrace, c.HTTP2.Progress.BodyGrace, c.HTTP2.Progress.ProgressTimeout,
		c.HTTP2.PingTimeout, c.GRPC.PingTimeout, c.GRPC.MaxAge, c.GRPC.MaxAgeGrace,
	)
}

// sweep looks after the live connections until ctx ends.
func (d *departures) sweep(ctx context.Context, live *reloader) {
	w := &sweep{
		departures:  d,
		live:        live,
		elapsed:     live.Load().sweepEvery(),
		uploads:     make(map[uint64]upload1),
		seenUploads: make(map[uint64]upload1),
		tails:       make(map[uint64]tail),
		seenTails:   make(map[uint64]tail),
	}
	d.books.conns.Sweep(ctx, w.elapsed, w.visit)
}

// begin begins a sweep. It forgets what the last one did not see again.
func (w *sweep) begin(now time.Time) {
	w.now = now
	w.count++
	w.uploads, w.seenUploads = w.seenUploads, w.uploads
	clear(w.seenUploads)
	w.tails, w.seenTails = w.seenTails, w.tails
	clear(w.seenTails)
}

// visit looks at one connection.
func (w *sweep) visit(now time.Time, a *pool.Conn) {
	if !now.Equal(w.now) {
		w.begin(now)
	}
	c, ok := a.Owner().(*conn)
	if !ok || !c.isServing() {
		return
	}
	switch config := w.live.Load(); w.departures.books.tag(c) {
	case protocols.HTTP1, protocols.WebSocket:
		w.visitHTTP1(now, c, &config.HTTP1)
	case protocols.HTTP2:
		w.visitHTTP2(now, c, &config.HTTP2, config.HTTP2.MaxAgeGrace)
	case protocols.GRPC:
		w.visitHTTP2(now, c, &config.HTTP2, c.root.backend.config.GRPC.MaxAgeGrace)
	case protocols.Protocol(refusedTag):
		w.visitRefused(c)
	}
}

// waited adds a sweep at which c waits, and returns for how long it has, without a sweep at
// which it did not.
func (w *sweep) waited(c *conn) time.Duration {
	t, known := w.tails[c.account.ID()]
	if known {
		t.waiting += w.elapsed
	}
	w.seenTails[c.account.ID()] = t
	return t.waiting
}

// visitRefused ends a connection whose client does not take that it is refused.
func (w *sweep) visitRefused(c *conn) {
	if w.waited(c) >= refusedTime {
		w.departures.end(c, reasonRefused)
	}
}

// checkWrites resets a connection whose client takes nothing of what is written to it.
// A handler may have taken over that bound.
func (w *sweep) checkWrites(now time.Time, c *conn, owned bool, limit time.Duration) (closed bool) {
	stalled := w.writes.Check(now, &c.account)
	if limit > 0 && stalled >= limit && !owned {
		c.abort(reasonStalled)
		return true
	}
	if stalled == 0 || !c.isHTTP2() {
		return false
	}
	// The server's PING waits behind that write, and the client's answer with it.
	mute := c.root.backend.muteTime(c.verdict().Protocol)
	if mute <= 0 || stalled < mute {
		return false
	}
	c.abort(reasonPing)
	return true
}

func (w *sweep) visitHTTP1(now time.Time, c *conn, config *protocols.HTTP1Config) {
	if c.account.State() == pool.StateUpgraded {
		// It is its owner's. WebSockets have bounds of their own, and an age. The owner of
		// another connection is told.
		if c.overAge() >= 0 {
			c.notify()
		}
		return
	}
	c.noteHead()
	d := w.departures
	switch {
	case w.checkWrites(now, c, c.rare().ownWrites.Load(), config.Progress.ProgressTimeout):
	case w.slowUpload(c, &config.Progress):
		c.account.SetCloseReason(reasonSlowBody)
		c.ensureRare().body.slow.Store(true)
		// The handler's read fails, and it may still say so.
		_ = c.SetReadDeadline(aLongTimeAgo)
	case w.writesAlone(c, config.HeaderTimeout):
		c.abort(reasonStalled) // Its Close would wait for that write.
	case w.hasLeft(c):
		c.abort("")
	case c.isTold():
		d.closeIfIdle(c) // Its last response was on its way when it was told.
		told, over := c.toldFor()
		ago, yielded := c.yieldedFor()
		switch {
		case over && c.account.State() != pool.StateIdle:
			c.abort("") // The reason for which it was told stands.
		case yielded && c.awaitsRequest() && w.waited(c) >= roomPatience:
			_ = c.account.CloseBelow() // Nothing else has ended its read; see writesAlone.
		case c.awaitsRest() && (yielded && ago > roomPatience || min(told, c.headFor()) >= headPatience):
			_ = c.account.CloseBelow() // It has begun a request that does not come.
		}
	case c.overAge() >= 0 && c.account.State() != pool.StateIdle: // Else its next request tells it.
		d.leave(c, reasonAge, config.MaxAgeGrace)
	}
}

// headPatience is how long the head of a request may take on an HTTP/1.1 connection that was
// told to leave. net/http's Shutdown gives connections so long for their first one.
const headPatience = 5 * time.Second

// lookEvery is how many sweeps pass until a connection is looked at once more by hasLeft.
const lookEvery = 8

// hasLeft reports whether the client of an HTTP/1.1 request that is under way has reset its
// connection, and notes whether it has ended its half of it. net/http's own reader has seen
// neither where it has read the first byte of a next request.
func (w *sweep) hasLeft(c *conn) bool {
	if c.account.State() != pool.StateActive || (w.count+c.account.ID())%lookEvery != 0 {
		return false
	}
	ended, reset := c.account.PeerLeft()
	if c.rare().halfClosed.Load() != ended {
		c.ensureRare().halfClosed.Store(ended)
	}
	return reset
}

// writesAlone reports whether TLS has been writing for too long by itself, where there is
// nothing to answer. It does so within the read that waits for a request, which no deadline
// ends then: a client may ask for a new key (RFC 8446 section 4.6.3), and take no answer.
func (w *sweep) writesAlone(c *conn, limit time.Duration) bool {
	if limit <= 0 || !c.account.IsWriting() || !c.awaitsRequest() {
		return false
	}
	return w.waited(c) >= limit
}

// slowUpload reports whether the body of an HTTP/1.1 request comes too slowly.
func (w *sweep) slowUpload(c *conn, config *protocols.ProgressConfig) bool {
	by := c.reader1()
	if by == readByNobody {
		return false
	}
	u, known := w.uploads[c.account.ID()]
	body, request := &c.rare().body, c.account.Requests()
	if known = known && u.request == request; !known {
		u = upload1{request: request, from: c.account.Received()}
	}
	arrived := body.arrived(c)
	if c.account.InFlight() == 0 && body.reader.Load() == readByNobody {
		arrived = int64(c.account.Received() - u.from) // No handler has had the request.
	}
	if !known { // It may have begun a moment ago.
		u.received = arrived
		w.seenUploads[c.account.ID()] = u
		return false
	}
	slow := u.tick(w.elapsed, arrived, by, body.duplex.Load(), config)
	w.seenUploads[c.account.ID()] = u
	return slow
}

// roomPatience is [moments.GoAwayPatience] where others wait for a place. It is also how long
// the head of a request may take on a connection that was told to make room.
const roomPatience = time.Second

func (w *sweep) visitHTTP2(now time.Time, c *conn, config *protocols.HTTP2Config, ageGrace time.Duration) {
	d, limit := w.departures, config.Progress.ProgressTimeout
	h2, state := &c.rare().h2, c.account.State()
	ended, owned := h2.exchanges.sweep(movement{
		elapsed:  w.elapsed,
		received: c.account.Received(),
		sent:     c.SentData(),
		unread:   c.Unread(),
		shut:     c.WindowShut(),
		blocked:  c.account.IsWriting(),
	}, &config.Progress)
	d.books.reportSlow(c, ended)
	if w.checkWrites(now, c, owned, limit) {
		return
	}
	if c.isMute() {
		c.abort(reasonPing)
		return
	}
	if c.Unread() >= moments.ManyUnread && !c.isIdleHTTP2() {
		c.AskRead() // If the client stops, what it has read does not add to the wait.
	}
	stuckFor := moments.Sum(limit, moments.ReadTime(c.SentData()))
	switch {
	case c.isShared(), !c.isHTTP2(): // By net/http, or upgraded.
		open := state == pool.StateActive || state == pool.StateUpgraded && h2.idleSince.Load() == 0
		if limit > 0 && open && h2.running.Load() == 0 && w.stuckTail(c, stuckFor) {
			d.end(c, reasonStalled)
			return
		}
	default: // By grpc-go. The sweep ends it only if the server has told it to leave.
		stuck := uint64(0)
		if limit > 0 && c.account.InFlight() == 0 && c.HasOpenStreams() && w.stuckTail(c, stuckFor) {
			stuck = c.SentData() + 1
		}
		if stuck != 0 && c.isTold() {
			d.end(c, reasonStalled)
			return
		}
		if h2.stuck.Load() != stuck {
			c.http2().stuck.Store(stuck)
		}
	}
	if !c.isTold() {
		if c.overAge() >= 0 {
			d.leave(c, reasonAge, ageGrace)
		} else {
			w.checkIdle(c, h2)
		}
		return
	}
	w.visitTold(c, h2)
}

// visitTold does the next step with an HTTP/2 connection that was told to leave.
func (w *sweep) visitTold(c *conn, h2 *http2State) {
	d := w.departures
	told := moments.Told{Patience: moments.GoAwayPatience}
	if _, yielded := c.yieldedFor(); yielded {
		told.Patience = roomPatience
	}
	told.Ago, told.Over = c.toldFor()
	_, told.Answered = c.GoneAway()
	told.Final = c.departure() == departFinal
	told.Unnamed = !c.namesLast()
	told.Idle = c.isIdleHTTP2() || c.opensBeyond() && h2.running.Load() == 0 && !c.HasOpenStreams()
	told.Stays = c.staysIdle(told.Idle)
	switch step := told.Next(); {
	case c.floodsOn():
		d.end(c, reasonAge)
	case step == moments.End && told.Idle && !told.Over && w.isDelivering(c): // The client reads slowly.
	case step == moments.End:
		d.end(c, reasonAge) // The reason for which it was told stands.
	case told.Idle && !c.isHTTP2(): // It was upgraded. Only its next response could have told it.
		if told.Stays && !told.Final && told.Ago > moments.FreshTime && !w.isDelivering(c) {
			d.background.run(c.finalGoAway)
		}
	case step == moments.LastStream:
		d.background.run(c.finalGoAway)
	}
}

// staysIdle reports whether a connection is as idle as at the last sweep. An answer may
// still be on its way to the socket when nothing is in flight any more.
func (c *conn) staysIdle(idle bool) bool {
	f := &c.ensureRare().leave
	before := f.idle
	if f.idle = 0; idle {
		f.idle = c.account.Requests() + 1
	}
	return idle && f.idle == before
}

// checkIdle has an HTTP/2 connection leave that has had no stream for the idle timeout.
// net/http's own timer, and x/net's, is not used: it is set anew when a connection ends with
// open streams, and keeps all that the connection had in memory until it runs out.
func (w *sweep) checkIdle(c *conn, h2 *http2State) {
	timeout, since := c.root.backend.config.HTTP2.IdleTimeout, h2.idleSince.Load()
	idle := sinceStart() - time.Duration(since)
	if timeout <= 0 || since == 0 || idle < timeout {
		return
	}
	// It may not have read its answers yet, where something in between has taken them.
	if idle < moments.ReadTime(c.Unread()) {
		c.AskRead()
		return
	}
	switch c.account.State() {
	case pool.StateIdle:
		w.departures.leave(c, reasonIdle, 0)
	case pool.StateUpgraded:
		w.departures.leaveIdle(c, reasonIdle)
	}
}

// isDelivering reports whether answers are on their way to the client, and move. A close
// would lose them, because the client goes on sending WINDOW_UPDATE: its system would answer
// that by a reset. What the next system has taken may be a proxy's. A client that has gone
// takes none, and sends none. Where others wait for the end of the connection, one that has
// sent nothing since it was told counts as gone, but has roomPatience from when it made room.
// A client that was idle had time to read its answers.
func (w *sweep) isDelivering(c *conn) bool {
	acked, waiting := c.account.Unacknowledged()
	reason, patience := c.account.CloseReason(), moments.GoAwayPatience
	ago, yielded := c.yieldedFor()
	urgent, draining := yielded && ago > roomPatience, w.departures.telling.Load()
	switch {
	case urgent:
	case !draining:
		patience = max(patience, w.live.Load().HTTP2.Progress.ProgressTimeout)
	case waiting:
		patience = moments.DrainPatience
	}
	switch {
	case waiting:
	case reason == reasonIdle, c.HasRead(), (urgent || draining) && c.account.Received() == c.rare().leave.received.Load():
		return false
	default:
		c.AskRead()
	}
	t, known := w.tails[c.account.ID()]
	if known {
		t.waiting += w.elapsed
		t.whole += w.elapsed
	} else {
		t.unread = c.Unread()
	}
	taken := c.Reading() // Whatever else the client sends shows nothing.
	// What its system acknowledges when the kernel has been empty may answer its own frames.
	if t.emptied = t.emptied || !waiting; !t.emptied {
		taken += acked
	}
	if t.sent != taken {
		t.sent, t.waiting = taken, 0
	}
	w.seenTails[c.account.ID()] = t
	return t.waiting < patience && t.whole < min(patience+slowTails*moments.ReadTime(t.unread), longestTail)
}

// How long a client that was told to leave, and has no stream open, may go on giving its
// window back without having read its answers.
const (
	slowTails   = 8 // times [moments.ReadTime], which makes 2 KB a second, but no longer than
	longestTail = 5 * time.Minute
)

// stuckTail reports whether responses whose handlers have returned have been waiting for
// the client's window for too long.
func (w *sweep) stuckTail(c *conn, limit time.Duration) bool {
	sent := c.SentData()
	t, known := w.tails[c.account.ID()]
	if !known || t.sent != sent {
		t = tail{sent: sent}
	} else if !c.account.IsWriting() { // Otherwise checkWrites sees whether the client takes bytes.
		t.waiting += w.elapsed
	}
	w.seenTails[c.account.ID()] = t
	return t.waiting >= limit
}
