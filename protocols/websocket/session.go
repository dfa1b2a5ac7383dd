package websocket

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	coder "github.com/coder/websocket"
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
	pinged  atomic.Pointer[ping]    // the ping that is not answered yet
	leaving atomic.Bool             // it is being closed, so the sweep ignores it

	// These are guarded by Server.mu. The sweep notes in seen how many reads there have
	// been, and in heard when it first saw that many.
	next  *Session // of the same owner
	seen  uint32
	heard time.Time
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
	s.leaving.Store(true)
	switch {
	case err == nil:
		err = s.close(coder.StatusNormalClosure, "", closeWait)
	case coder.CloseStatus(err) == -1 && s.request.Context().Err() == nil:
		s.server.logger.Debug("websocket handler failed", "err", err)
		err = s.close(coder.StatusInternalError, "", failedWait)
	}
	if err != nil {
		s.server.logger.Debug("websocket closed", "err", err)
	}
}

func (s *Session) end() {
	if !s.raw.closed.Load() {
		_ = s.conn.CloseNow()
	}
	s.server.remove(s)
	s.cancel(nil)
}

func (s *Session) close(code coder.StatusCode, reason string, wait time.Duration) error {
	_ = s.raw.SetReadDeadline(time.Now().Add(wait))
	return s.conn.Close(code, reason)
}

// beginLeave has the client told to leave, in the background, unless the WebSocket is
// being closed already.
func (s *Session) beginLeave(code coder.StatusCode) {
	if s.leaving.CompareAndSwap(false, true) {
		go s.leave(code)
	}
}

// leave closes the WebSocket, waits for the client's answer, and then ends the handler's
// context. In the other order the connection would be cut without a close frame.
func (s *Session) leave(code coder.StatusCode) {
	reason, cause := "server is going away", ErrDraining
	if code == coder.StatusTryAgainLater {
		reason, cause = "too many WebSockets", ErrTooMany
	}
	_ = s.close(code, reason, closeWait)
	s.cancel(cause)
}

// check ends the session if it is too old, and pings a client that has been silent for
// too long. A client is heard only while the handler reads. The caller holds Server.mu.
func (s *Session) check(now time.Time) {
	reading, before := s.raw.isReading()
	if before != s.seen {
		s.seen, s.heard = before, now
	}
	if s.leaving.Load() {
		return
	}
	interval := s.server.config.Load().PingInterval
	switch {
	case !s.ends.IsZero() && now.After(s.ends):
		if s.leaving.CompareAndSwap(false, true) {
			go func() {
				s.tell(EndedMaxAge)
				s.leave(coder.StatusGoingAway)
			}()
		}
	case interval > 0 && reading && now.Sub(s.heard) >= interval:
		if p := (&ping{now, s.heard, before}); s.pinged.CompareAndSwap(nil, p) {
			go s.ping(p)
		}
	}
}

// tell tells the owner why the WebSocket is about to be closed.
func (s *Session) tell(reason string) {
	if s.owner != nil {
		s.owner.WebSocketEnds(s.request, reason)
	}
}

// ping is a ping that has no answer yet.
type ping struct {
	since  time.Time
	heard  time.Time // when the client was heard last
	before uint32    // how many reads there had been
}

// isAnswered reports whether the client was heard since.
func (p *ping) isAnswered(s *Session) bool {
	_, before := s.raw.isReading()
	return before != p.before
}

// ping pings the client, and closes the connection if no answer comes. It does not close
// where the handler does not read, because then an answer cannot be heard.
func (s *Session) ping(p *ping) {
	defer s.pinged.Store(nil)
	ctx, cancel := context.WithTimeout(context.Background(), s.server.config.Load().PongTimeout)
	defer cancel()
	err := s.conn.Ping(ctx)
	if reading, _ := s.raw.isReading(); err == nil || !reading || p.isAnswered(s) || !s.leaving.CompareAndSwap(false, true) {
		return
	}
	s.server.logger.Debug("websocket peer does not answer", "err", err)
	if errors.Is(err, context.DeadlineExceeded) {
		s.tell(EndedPingTimeout) // Any other error means that it has already ended for another reason.
	}
	s.raw.abrupt.Store(true)
	_ = s.conn.CloseNow()
}

// pingWriteTime is how long coder/websocket tries to write a ping before it closes the
// connection.
const pingWriteTime = 5 * time.Second

// closing is called when the connection is about to be closed, by any goroutine. It tells
// the owner of a ping timeout that ping sees too late: the ping itself could not be
// written.
func (s *Session) closing() {
	p, patience := s.pinged.Load(), s.server.config.Load().PongTimeout
	if p == nil || p.isAnswered(s) || time.Since(p.since) < min(patience, pingWriteTime) || time.Since(p.heard) < patience {
		return
	}
	if s.leaving.CompareAndSwap(false, true) {
		s.tell(EndedPingTimeout)
	}
}
