package websocket

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/protocols/moments"
)

// Session is an open WebSocket, from [Server.Accept].
type Session struct {
	server  *Server
	conn    *coder.Conn
	raw     *watchedConn
	owner   Owner // nil for none
	request *http.Request
	cancel  context.CancelCauseFunc // of the request's context, which is the handler's
	ends    time.Time               // when it reaches its age; zero for never
	leaving atomic.Bool             // it is being closed, or told to leave behind a message

	// These are guarded by Server.mu. The sweep notes in seen how many reads there have
	// been, and in heard when it first saw that many; in exchanges and exchanged likewise
	// for what has moved parts of messages.
	next             *Session  // of the same owner
	stalled          *stall    // nil while no bytes wait for the client
	pinged           bool      // a ping is not answered yet, and the client has been silent since
	asking           bool      // a ping has no pong yet
	due              time.Time // when the answer is; zero until the sweep has seen the ping leave
	written, asked   uint64    // what sent returned at the last sweep, and before that ping
	readBy           time.Time // when the client has read them, at the least rate of [moments.ReadTime]
	seen, exchanges  uint32
	heard, exchanged time.Time
}

// key is what Server.sessions knows the session by.
func (s *Session) key() any {
	if s.owner != nil {
		return s.owner
	}
	return s
}

// Serve calls h and closes the WebSocket when h returns, as [Handler] says. A panic of h
// closes it without a close frame, and goes on.
func (s *Session) Serve(h Handler) {
	// This is below the handler for as long as it runs, so its frame is small.
	defer s.end()
	s.finish(h(s.request.Context(), s.conn, s.request))
}

// The times that a client has to answer a close frame.
const (
	// closeWait is for all but failed handlers. coder/websocket itself waits 5 s for the
	// frame to be sent and 5 s for the answer, but without a bound for the rest of a
	// message that stands before the answer.
	closeWait = 10 * time.Second
	// failedWait is for failed handlers. RFC 6455 section 7.1.7 asks for no wait; a short
	// one lets the frame arrive before the kernel resets a connection with unread bytes.
	failedWait = 500 * time.Millisecond
)

// finish closes the WebSocket after its handler has returned err.
func (s *Session) finish(err error) {
	told := s.leaving.Swap(true)
	switch {
	case err == nil, told && s.request.Context().Err() == nil:
		err = s.close(coder.StatusNormalClosure, "", closeWait, true)
	case coder.CloseStatus(err) == -1 && s.request.Context().Err() == nil:
		s.server.logger.Debug("websocket handler failed", "err", brief(err))
		err = s.close(coder.StatusInternalError, "", failedWait, true)
	}
	if err != nil {
		s.server.logger.Debug("websocket closed", "err", brief(err))
	}
}

func (s *Session) end() {
	if !s.raw.out.closed.Load() {
		_ = s.conn.CloseNow()
	}
	s.server.remove(s)
	s.cancel(nil)
}

// close sends a close frame behind the message under way, or with now behind the last
// write, unless one was sent. It waits for the client's answer and closes the connection.
// The time for the answer begins when the frame has left. Like a ping, it may then still stand
// behind what the client was sent, so raw lingers unless the handler has failed. What the
// client says meanwhile does not tell how far it has read.
func (s *Session) close(code coder.StatusCode, reason string, wait time.Duration, now bool) error {
	b := s.raw.out.setBye(code, reason)
	s.raw.out.close(b, now)
	s.waitSent()
	if wait == closeWait {
		s.server.mu.Lock()
		s.raw.linger.Store(int64(closeLinger + s.unread(time.Now())))
		s.server.mu.Unlock()
	}
	_ = s.raw.SetReadDeadline(time.Now().Add(wait))
	return s.conn.Close(b.code, b.reason) // It writes the frame where out.close could not.
}

// queueTick is how often waitSent looks.
const queueTick = 50 * time.Millisecond

// waitSent waits until the kernel has sent what was written, for as long as it moves. The
// kernel has nothing to send when the client has reset the connection. waitSent does not
// wait on a stream of HTTP/2, which shares its connection's queue.
func (s *Session) waitSent() {
	if s.request.ProtoMajor != 1 {
		return
	}
	moved, last := time.Now(), uint64(0)
	for !s.raw.out.closed.Load() && !s.raw.ended.Load() {
		taken, waiting := s.raw.queue()
		if !waiting {
			return
		}
		if taken != last {
			moved, last = time.Now(), taken
		}
		if time.Since(moved) >= s.server.config.Load().closeStall() {
			return
		}
		time.Sleep(queueTick)
	}
}

// beginLeave has the client told to leave, in the background, unless the WebSocket is
// being closed already. The owner is told what has ended it, if that is not empty.
func (s *Session) beginLeave(code coder.StatusCode, ended string) {
	if !s.leaving.CompareAndSwap(false, true) {
		return
	}
	text, cause := "server is going away", ErrDraining
	if code == coder.StatusTryAgainLater {
		text, cause = "too many WebSockets", ErrTooMany
	}
	s.raw.out.setBye(code, text)
	go func() {
		if ended != "" {
			s.tell(ended)
		}
		s.leave(code, text, cause)
	}()
}

// leave closes the WebSocket, waits for the client's answer, and then ends the handler's
// context. In the other order the connection would be cut without a close frame.
func (s *Session) leave(code coder.StatusCode, text string, cause error) {
	_ = s.close(code, text, closeWait, false)
	s.cancel(cause)
}

// check ends the session if it is too old or idle, if its client takes nothing, or does not
// answer a ping. It pings a client that has been silent for too long. A client is heard only
// while the handler reads. The caller holds Server.mu.
func (s *Session) check(now time.Time) {
	c := s.server.config.Load()
	reading, before := s.raw.isReading()
	unread := s.unread(now)
	if before != s.seen {
		s.seen, s.heard, s.pinged = before, now, false
	}
	leaving, limit := s.leaving.Load(), c.stall
	if leaving {
		limit = c.closeStall()
	}
	if waited := s.waited(now); limit > 0 && waited >= moments.Sum(limit, s.consumeTime()) {
		s.cut(EndedStalled)
		return
	}
	if leaving {
		return
	}
	switch {
	case !s.ends.IsZero() && now.After(s.ends):
		s.beginLeave(coder.StatusGoingAway, EndedMaxAge)
	case c.IdleTimeout > 0 && s.idle(now) >= c.IdleTimeout:
		s.beginLeave(coder.StatusGoingAway, EndedIdle)
	case !reading:
		s.pinged = false // An answer could not be heard.
	case !s.pinged:
		silent := now.Sub(s.heard) >= c.PingInterval
		if c.PingInterval > 0 && (silent || !s.asking && unread >= moments.ReadTime(moments.ManyUnread)) {
			s.pinged, s.due = silent, time.Time{}
			s.ask()
		}
	case s.stalled != nil || s.raw.out.wants.Load()&wantPing != 0:
		// The ping has not left, or what was written behind it waits while the client moves.
		if least := now.Add(c.PongTimeout); !s.due.IsZero() && s.due.Before(least) {
			s.due = least
		}
	case s.due.IsZero():
		s.due = now.Add(moments.Sum(c.PongTimeout, unread))
	case !now.Before(s.due):
		s.cut(EndedPingTimeout)
	}
}

// ask pings the client. The caller holds Server.mu.
func (s *Session) ask() {
	if !s.asking { // Else the client's next pong may answer the ping before.
		s.asking, s.asked = true, s.written
	}
	go s.raw.out.want(wantPing)
}

// unread returns how long the client may need for what it may not have read, and takes note of
// what was written since the last call. The client has read what stands before a ping that it
// has answered. What else it says shows nothing. The caller holds Server.mu.
func (s *Session) unread(now time.Time) time.Duration {
	left := s.readBy.Sub(now)
	if s.raw.ponged.Swap(false) && s.asking && s.raw.out.wants.Load()&wantPing == 0 {
		left, s.asking = min(left, moments.ReadTime(s.written-s.asked)), false
	}
	written := s.sent()
	left = min(max(left, 0)+moments.ReadTime(written-s.written), moments.LongestQueue)
	s.written, s.readBy = written, now.Add(left)
	return left
}

// sent returns how many bytes stand before what is sent next: those of the WebSocket, or on a
// stream of HTTP/2 those of all streams, where the owner counts them.
func (s *Session) sent() uint64 {
	if s.owner == nil || s.request.ProtoMajor == 1 {
		return s.raw.out.below.bytes.Load()
	}
	return s.owner.SentData()
}

// consumeTime returns how long the client of a stream may need for what it was sent: it may give
// its windows back in steps of megabytes, and until then nothing shows that it reads.
func (s *Session) consumeTime() time.Duration {
	if s.request.ProtoMajor == 1 {
		return 0
	}
	return moments.ReadTime(s.written)
}

// stall is what the sweep remembers while bytes wait for the client.
type stall struct {
	since time.Time // when it has taken some, or was heard
	taken uint64
}

// waited returns for how long bytes have waited and the client has not moved, as seen from
// sweep to sweep. It asks the kernel only where bytes may wait.
func (s *Session) waited(now time.Time) time.Duration {
	if writing, _ := s.raw.out.below.isWriting(); !writing && s.stalled == nil && !s.pinged {
		return 0
	}
	taken, waiting := s.raw.queue()
	switch {
	case !waiting:
		s.stalled = nil
		return 0
	case s.stalled == nil:
		s.stalled = new(stall)
		fallthrough
	case s.stalled.taken != taken, s.heard.Equal(now):
		*s.stalled = stall{now, taken}
	}
	return now.Sub(s.stalled.since)
}

// cut closes the connection without a close frame, in the background. A session that is
// leaving keeps the reason for that.
func (s *Session) cut(reason string) {
	if s.raw.abrupt.Swap(true) {
		return
	}
	leaving := s.leaving.Swap(true)
	s.server.logger.Debug("websocket peer does not move", "reason", reason)
	go func() {
		if !leaving {
			s.tell(reason)
		}
		_ = s.raw.Close() // coder/websocket's CloseNow waits for a Close that is under way.
		_ = s.conn.CloseNow()
	}()
}

// idle returns for how long no part of a message has passed, as seen from sweep to sweep.
func (s *Session) idle(now time.Time) time.Duration {
	n := s.raw.exchanges.Load()
	if writing, _ := s.raw.out.below.isWriting(); writing || n != s.exchanges {
		s.exchanges, s.exchanged = n, now
	}
	return now.Sub(s.exchanged)
}

// tell tells the owner why the WebSocket is about to be closed.
func (s *Session) tell(reason string) {
	if s.owner != nil {
		s.owner.WebSocketEnds(s.request, reason)
	}
}
