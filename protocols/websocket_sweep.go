package protocols

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/coder/websocket"
)

// AgeLimit returns when a connection that was opened at some time has reached the
// age limit: a random moment within a tenth of it, so that connections which began
// together do not end together. It is zero for no limit.
func AgeLimit(opened time.Time, limit time.Duration) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	tenth := limit / 10
	return opened.Add(limit - tenth + rand.N(2*tenth+1)) //nolint:gosec // A herd is spread, no secret is made.
}

// The sweep over the sessions is a tenth as long as what it measures, within bounds.
const (
	minSweep = 10 * time.Millisecond
	maxSweep = time.Second
)

// sweep looks after all sessions until done is closed: one goroutine, and no
// timer for each of them.
func (ws *WebSockets) sweep(done <-chan struct{}) {
	shortest := ws.settings().PingInterval
	if age := ws.settings().MaxAge; shortest == 0 || age > 0 && age < shortest {
		shortest = age
	}
	tick := time.NewTicker(min(max(shortest/10, minSweep), maxSweep))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-done:
			return
		}
		now := time.Now()
		ws.mu.Lock()
		for s := range ws.sessions {
			ws.check(s, now)
		}
		ws.mu.Unlock()
	}
}

// check ends a session that is too old, and pings a peer that has been silent for
// too long. The caller holds mu.
func (ws *WebSockets) check(s *session, now time.Time) {
	reading, before := s.raw.isReading()
	if before != s.seen {
		s.seen, s.heard = before, now
	}
	switch interval := ws.settings().PingInterval; {
	case s.leaving.Load():
	case !s.ends.IsZero() && now.After(s.ends):
		if s.leaving.CompareAndSwap(false, true) {
			go ws.expire(s)
		}
	case interval > 0 && reading && now.Sub(s.heard) >= interval:
		if p := (&awaited{now, s.heard, before}); s.pinged.CompareAndSwap(nil, p) {
			go ws.ping(s, p)
		}
	}
}

// awaited is an answer to a ping that is not there yet.
type awaited struct {
	since  time.Time
	heard  time.Time // when the peer was heard last
	before uint32    // how many reads there had been
}

// hasCome reports whether the peer was heard since the ping.
func (a *awaited) hasCome(s *session) bool {
	_, before := s.raw.isReading()
	return before != a.before
}

// expire ends a session that has reached its age.
func (ws *WebSockets) expire(s *session) {
	ws.ended(s, EndedMaxAge)
	s.leave(websocket.StatusGoingAway)
}

// ping pings a peer and closes the connection of one that does not answer. While the handler does other things than
// read, an answer cannot be heard.
func (ws *WebSockets) ping(s *session, answer *awaited) {
	defer s.pinged.Store(nil)
	ctx, cancel := context.WithTimeout(context.Background(), ws.settings().PongTimeout)
	defer cancel()
	err := s.conn.Ping(ctx)
	if reading, _ := s.raw.isReading(); err == nil || !reading || answer.hasCome(s) || !s.leaving.CompareAndSwap(false, true) {
		return
	}
	ws.logger.Debug("websocket peer does not answer", "err", err)
	if errors.Is(err, context.DeadlineExceeded) {
		// Any other error means that the connection has already ended, for a reason of its own.
		ws.ended(s, EndedPingTimeout)
	}
	s.raw.abrupt.Store(true)
	_ = s.conn.CloseNow()
}

// pingWriteTime is how long coder/websocket tries to write a ping before it closes the connection.
const pingWriteTime = 5 * time.Second

// checkClosing is called when a session's connection is about to be closed, by whomever. It
// tells of the one case that ping comes too late for: not even the ping could be written.
func (ws *WebSockets) checkClosing(s *session) {
	answer, patience := s.pinged.Load(), ws.settings().PongTimeout
	if answer == nil || answer.hasCome(s) || time.Since(answer.since) < min(patience, pingWriteTime) || time.Since(answer.heard) < patience {
		return
	}
	if s.leaving.CompareAndSwap(false, true) {
		ws.ended(s, EndedPingTimeout)
	}
}

func (ws *WebSockets) ended(s *session, reason string) {
	if ws.hooks.Ended != nil {
		ws.hooks.Ended(s.request, reason)
	}
}
