package mux

import (
	"context"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// sweep looks after the live connections from tick to tick: one goroutine, and no
// timer for any of them. It ends what has reached its age, and what has stopped
// moving where net/http's own timeouts do not look.
type sweep struct {
	server  *Server
	now     time.Time     // of this sweep
	elapsed time.Duration // from one to the next
	writes  pool.StallWatch
	// What is remembered of the few connections that wait: HTTP/1.1 uploads, and
	// HTTP/2 connections whose handlers are all done while streams are open.
	uploads, seenUploads map[*conn]upload1
	tails, seenTails     map[*conn]tail
}

// upload1 is an upload and which of the connection's requests it belongs to.
type upload1 struct {
	upload

	request uint64
	before  uint64 // what the connection had received when it was first seen
}

// tail is the end of HTTP/2 responses that the client does not take.
type tail struct {
	waiting time.Duration
	sent    uint64
}

// The bounds of the time between two sweeps, which is an eighth of the shortest time that is measured.
const (
	minSweep = 10 * time.Millisecond
	maxSweep = time.Second
	perSweep = 8
)

// sweepEvery returns the time between two sweeps.
func (c Config) sweepEvery() time.Duration {
	every := maxSweep
	for _, d := range []time.Duration{
		c.HTTP1.MaxAge, c.HTTP1.MaxAgeGrace, c.HTTP1.Progress.BodyGrace, c.HTTP1.Progress.ProgressTimeout,
		c.HTTP2.MaxAge, c.HTTP2.MaxAgeGrace, c.HTTP2.Progress.BodyGrace, c.HTTP2.Progress.ProgressTimeout,
	} {
		if d > 0 {
			every = min(every, d/perSweep)
		}
	}
	return max(every, minSweep)
}

// sweepConns sweeps until ctx ends.
func (s *Server) sweepConns(ctx context.Context) {
	w := &sweep{
		server:      s,
		elapsed:     s.live.Load().sweepEvery(),
		uploads:     make(map[*conn]upload1),
		seenUploads: make(map[*conn]upload1),
		tails:       make(map[*conn]tail),
		seenTails:   make(map[*conn]tail),
	}
	s.conns.Sweep(ctx, w.elapsed, w.visit)
}

// begin begins a sweep: what was not seen again in the last one is forgotten.
func (w *sweep) begin(now time.Time) {
	w.now = now
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
	if !ok || !c.has(flagClassified) {
		return
	}
	s := w.server
	if c.overAge() >= 0 && !c.has(flagNotified) {
		s.notices.end(c)
	}
	switch protocols.Protocol(s.conns.Tag(a)) {
	case protocols.HTTP1, protocols.WebSocket:
		w.visitHTTP1(now, c)
	case protocols.HTTP2:
		w.visitHTTP2(now, c)
	case protocols.GRPC:
		if !w.checkWrites(now, c, s.live.Load().HTTP2.Progress.ProgressTimeout) && c.overAge() >= 0 {
			s.leave(c)
		}
	}
}

// checkWrites closes a connection whose peer takes nothing of what is written to it.
func (w *sweep) checkWrites(now time.Time, c *conn, limit time.Duration) (closed bool) {
	if stalled := w.writes.Check(now, &c.account); limit <= 0 || stalled < limit {
		return false
	}
	w.writes.Forget(&c.account)
	c.closeFor(pool.ReasonStalled)
	return true
}

func (w *sweep) visitHTTP1(now time.Time, c *conn) {
	config := &w.server.live.Load().HTTP1
	if w.checkWrites(now, c, config.Progress.ProgressTimeout) {
		return
	}
	if c.account.State() == pool.StateUpgraded {
		// Its own age is WebSocket's affair; that its server was replaced is not.
		if c.overAge() >= 0 && c.has(flagNoGrace) && !c.has(flagTold) && w.server.webSockets.Leave(c) > 0 {
			c.set(flagTold)
		}
		return
	}
	if c.has(flagReading) && c.has(flagBody) && w.slowUpload(c, &config.Progress) {
		c.account.SetCloseReason(pool.ReasonSlowBody)
		// The handler's read fails, and it may still say so.
		_ = c.SetReadDeadline(aLongTimeAgo)
		return
	}
	if c.has(flagTold) {
		c.closeIdle(freshTime) // Its last response was on its way when it was told.
	}
	if over := c.overAge(); over >= 0 {
		c.account.SetCloseReason(pool.ReasonAge)
		c.closeIdle(freshTime)
		if config.MaxAgeGrace > 0 && over > config.MaxAgeGrace && !c.has(flagNoGrace) {
			w.server.background.run(func() { _ = c.Close() }) // TLS may take its time to say goodbye.
		}
	}
}

// slowUpload reports whether the body that the handler of an HTTP/1.1 request waits for comes too slowly.
func (w *sweep) slowUpload(c *conn, config *protocols.ProgressConfig) bool {
	u, known := w.uploads[c]
	received, request := c.account.Received(), c.account.Requests()
	if !known || u.request != request {
		u = upload1{request: request, before: received}
	}
	slow := u.tick(w.elapsed, int64(received-u.before), c.has(flagDeclared), config)
	w.seenUploads[c] = u
	return slow
}

// goAwayPatience is how long a client may take to answer the PING behind the first GOAWAY.
const goAwayPatience = 5 * time.Second

func (w *sweep) visitHTTP2(now time.Time, c *conn) {
	config := &w.server.live.Load().HTTP2
	limit := config.Progress.ProgressTimeout
	if w.checkWrites(now, c, limit) {
		return
	}
	if slow, stuck := c.http2().exchanges.sweep(w.elapsed, c.WindowShut(), &config.Progress); slow+stuck > 0 {
		w.server.reportSlow(c, slow, stuck)
	}
	if limit > 0 && c.account.State() == pool.StateActive && c.http2().running.Load() == 0 && w.stuckTail(c, limit) {
		w.server.endHTTP2(c, pool.ReasonStalled)
		return
	}
	over := c.overAge()
	if over < 0 {
		return
	}
	if c.account.State() == pool.StateUpgraded { // By "Upgrade: h2c": only its next response can say it.
		if c.account.InFlight() == 0 && over > freshTime || config.MaxAgeGrace > 0 && over > config.MaxAgeGrace && !c.has(flagNoGrace) {
			c.closeFor(pool.ReasonAge)
		}
		return
	}
	w.server.leave(c)
	_, acked := c.GoneAway()
	switch idle := c.account.State() == pool.StateIdle; {
	case config.MaxAgeGrace > 0 && over > config.MaxAgeGrace && !c.has(flagNoGrace),
		idle && c.has(flagFinalTold):
		w.server.endHTTP2(c, pool.ReasonAge)
	case idle && (acked || over > goAwayPatience):
		// It is closed at the next sweep, so that the frame gets there first.
		w.server.background.run(c.finalGoAway)
	}
}

// endHTTP2 closes an HTTP/2 connection behind a GOAWAY, in the background: a client that reads nothing takes a second.
func (s *Server) endHTTP2(c *conn, reason string) {
	c.account.SetCloseReason(reason)
	if !s.background.run(func() {
		c.finalGoAway()
		_ = c.Close()
	}) {
		_ = c.Close()
	}
}

// stuckTail reports whether the last of a connection's responses have been waiting
// for the client's window for too long, their handlers being gone.
func (w *sweep) stuckTail(c *conn, limit time.Duration) bool {
	t, sent := w.tails[c], c.SentData()
	if t.waiting += w.elapsed; t.sent != sent {
		t = tail{sent: sent}
	}
	w.seenTails[c] = t
	return t.waiting >= limit
}

// reportSlow tells the observers of streams that were ended.
func (s *Server) reportSlow(c *conn, bodies, responses int) {
	for range bodies {
		s.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Reason: pool.ReasonSlowBody})
	}
	for range responses {
		s.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Reason: pool.ReasonStalled})
	}
}

// clockStart is what connections count their own times from.
var clockStart = time.Now()

// sinceStart returns the time of the process's own clock; never 0.
func sinceStart() time.Duration { return max(1, time.Since(clockStart)) }

// setEnd sets when the connection has reached its age; the zero time is never.
func (c *conn) setEnd(t time.Time) {
	if !t.IsZero() {
		c.ends.Store(int64(max(1, t.Sub(clockStart))))
	}
}

// overAge returns for how long the connection has been too old, negative if it is not.
func (c *conn) overAge() time.Duration {
	ends := c.ends.Load()
	if ends == 0 {
		return -1
	}
	return sinceStart() - time.Duration(ends)
}

// leave has an HTTP/2 connection end as one that has reached its age: its client is told, and what is in flight goes on.
// It is told in the background, because one that reads nothing takes a second.
func (s *Server) leave(c *conn) {
	if s.beginLeave(c) {
		s.background.run(c.GoAway)
	}
}

// leaveNow is leave for the goroutine of a request, before its answer: the client is to know of it when it has that.
func (s *Server) leaveNow(c *conn) {
	if s.beginLeave(c) {
		c.GoAway()
	}
}

// beginLeave reports whether the client of c is still to be told. Its WebSockets are.
func (s *Server) beginLeave(c *conn) bool {
	if c.overAge() < 0 {
		c.ends.Store(int64(sinceStart()))
	}
	if !c.claim(flagTold) {
		return false
	}
	if c.root.backend.config.HTTP2.WebSocket {
		s.webSockets.Leave(c)
	}
	return true
}

// finalGoAway tells the client of an HTTP/2 connection which of its streams were the last.
func (c *conn) finalGoAway() {
	if c.claim(flagFinalTold) {
		c.FinalGoAway(http2.ErrCodeNo)
	}
}

// closeFor closes the connection through all of its layers, for a reason.
func (c *conn) closeFor(reason string) {
	c.account.SetCloseReason(reason)
	_ = c.Close()
}
