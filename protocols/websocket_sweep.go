package protocols

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
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

// watchedConn knows when its peer was last heard, and whether anybody listens.
type watchedConn struct {
	net.Conn
	opened  time.Time
	heard   atomic.Int64 // when bytes last came, in nanoseconds since opened
	reading atomic.Bool
}

func watch(c net.Conn) *watchedConn { return &watchedConn{Conn: c, opened: time.Now()} }

// Read implements [net.Conn].
func (c *watchedConn) Read(p []byte) (int, error) {
	c.reading.Store(true)
	n, err := c.Conn.Read(p)
	c.reading.Store(false)
	if n > 0 {
		c.heard.Store(int64(time.Since(c.opened)))
	}
	return n, err
}

// silence returns for how long the peer has not been heard.
func (c *watchedConn) silence() time.Duration {
	return time.Since(c.opened) - time.Duration(c.heard.Load())
}

// The sweep over the sessions is a tenth as long as what it measures, within bounds.
const (
	minSweep = 10 * time.Millisecond
	maxSweep = time.Second
)

// sweep looks after all sessions until done is closed: one goroutine, and no
// timer for each of them.
func (ws *WebSockets) sweep(done <-chan struct{}) {
	shortest := ws.config.PingInterval
	if age := ws.config.MaxAge; shortest == 0 || age > 0 && age < shortest {
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
		ws.mu.Lock()
		for s := range ws.sessions {
			ws.check(s, time.Now())
		}
		ws.mu.Unlock()
	}
}

// check ends a session that is too old, and pings a peer that has been silent for
// too long.
func (ws *WebSockets) check(s *session, now time.Time) {
	switch {
	case !s.ends.IsZero() && now.After(s.ends):
		if s.pinged.CompareAndSwap(false, true) {
			go s.leave(websocket.StatusGoingAway)
		}
	case ws.config.PingInterval > 0 && s.raw.reading.Load() && s.raw.silence() >= ws.config.PingInterval:
		if s.pinged.CompareAndSwap(false, true) {
			go ws.ping(s)
		}
	}
}

// ping pings a peer and closes the connection of one that does not answer.
func (ws *WebSockets) ping(s *session) {
	ctx, cancel := context.WithTimeout(context.Background(), ws.config.PongTimeout)
	defer cancel()
	if err := s.conn.Ping(ctx); err != nil && s.raw.silence() >= ws.config.PongTimeout {
		ws.logger.Debug("websocket peer does not answer", "err", err)
		_ = s.conn.CloseNow()
		return
	}
	s.pinged.Store(false)
}
