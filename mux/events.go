package mux

import (
	"context"
	"log/slog"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// EventKind says what happened, in one word.
type EventKind = pool.EventKind

// The values of [EventKind], and the fields of [Event] that each fills besides Kind, Seq and
// Time.
const (
	EventAdded         = pool.EventAdded         // a connection was accepted: Conn, Protocol
	EventRemoved       = pool.EventRemoved       // a connection was closed: Conn, Protocol, Reason
	EventRetagged      = pool.EventRetagged      // a connection changed its pool: Conn, Protocol, From
	EventTimeout       = pool.EventTimeout       // a client was too slow: Conn, Protocol, Reason
	EventError         = pool.EventError         // a connection was reset, or an observer panicked: Err
	EventLimitReached  = pool.EventLimitReached  // a limit refused a connection: Protocol, Reason, perhaps Conn
	EventHealthChanged = pool.EventHealthChanged // the health of a pool changed: Protocol, Old, New
)

// Event is something that happened to a connection or a pool.
type Event struct {
	Kind EventKind
	// Seq numbers the events of a server in the order in which they happened. Time is when.
	Seq  uint64
	Time time.Time
	// Conn is zero where the event is about no single connection. It may be closed by the
	// time the observer looks at it.
	Conn Conn
	// Protocol is the pool it happened in: the new one for EventRetagged, where From is the
	// old one, and "total" for the health of all pools together.
	Protocol, From string
	// Reason is the word under which it is counted, as in [Stats].Closed and .Rejected.
	Reason   string
	Err      error
	Old, New Health
}

// Observe has f called for each event of the server's connections and pools, until cancel
// is called. The goroutine that causes an event calls f, so f must be quick and may be
// called by several goroutines at a time. It may call the server, but for Shutdown, Drain,
// Close and Dial: those wait for the connection that has caused the event, and so for f. Start
// a goroutine for them. Events of one goroutine come in order; Seq has the order of all. A
// panic of f is an EventError for the others.
func (s *Server) Observe(f func(Event)) (cancel func()) {
	return s.books.conns.Observe(func(e pool.Event) {
		event := Event{
			Kind: e.Kind, Seq: e.Seq, Time: e.Time, Protocol: string(e.Tag), From: string(e.From),
			Reason: e.Reason, Err: e.Err, Old: e.Old, New: e.New,
		}
		if e.Conn != nil {
			if c, ok := e.Conn.Owner().(*conn); ok {
				event.Conn = c.describe()
			}
		}
		f(event)
	})
}

// logEvent writes an event into the server's log. What a client causes is logged at
// Debug; changes of health and panics of observers stand above that.
func (b *books) logEvent(e pool.Event) {
	if e.Kind == pool.EventHealthChanged {
		b.health.note(e.Tag, healthChange{e.Seq, e.Old, e.New, 1})
		return
	}
	ctx := context.Background()
	if e.Kind == pool.EventError && e.Conn == nil { // An observer panicked.
		b.logger.LogAttrs(ctx, slog.LevelError, "observer panicked", slog.Any(keyErr, e.Err))
		return
	}
	if b.logger.Enabled(ctx, slog.LevelDebug) {
		b.logDebug(ctx, e)
	}
}

// logDebug is apart from logEvent because of the room that the attributes take on the
// stack of whoever closes a connection: 3 % of grpc-newconn.
//
//go:noinline
func (b *books) logDebug(ctx context.Context, e pool.Event) {
	attrs := []slog.Attr{slog.String(keyProtocol, string(e.Tag))}
	if e.Reason != "" {
		attrs = append(attrs, slog.String(keyReason, e.Reason))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any(keyErr, e.Err))
	}
	if a := e.Conn; a != nil {
		attrs = append(attrs, slog.Uint64(keyConnID, a.ID()))
		if c, ok := a.Owner().(*conn); ok {
			peer := c.remoteAddr()
			if e.Kind == pool.EventAdded {
				peer = c.socketPeer() // No PROXY header has told of another one yet.
			}
			attrs = append(attrs, slog.String(keyRemoteAddr, peer))
		}
		if e.Kind == pool.EventRemoved {
			info := a.Info()
			attrs = append(attrs, slog.Uint64(keyBytesRead, info.BytesReceived), slog.Uint64(keyBytesWritten, info.BytesSent),
				slog.Float64(keyDuration, e.Time.Sub(info.Opened).Seconds()))
		}
	}
	b.logger.LogAttrs(ctx, slog.LevelDebug, eventMessages[e.Kind], attrs...)
}

var eventMessages = map[pool.EventKind]string{
	pool.EventAdded:        "connection accepted",
	pool.EventRemoved:      "connection closed",
	pool.EventRetagged:     "connection changed its pool",
	pool.EventTimeout:      "connection timed out",
	pool.EventError:        "connection failed",
	pool.EventLimitReached: "limit reached",
}

// healthChange is a change of a pool's health, or several in a row.
type healthChange struct {
	seq      uint64 // of the last event
	from, to pool.Health
	changes  int
}

// healthPace is the least time between two lines about the health of a pool.
const healthPace = 5 * time.Second

// merge returns two changes as one. Two goroutines may tell theirs in either order.
func (before healthChange) merge(now healthChange) healthChange {
	if now.seq < before.seq {
		before, now = now, before
	}
	return healthChange{now.seq, before.from, now.to, before.changes + now.changes}
}

// logHealth logs a change of a pool's health, unless the pool is back where it was. That
// all are unavailable, the drain logs.
func (b *books) logHealth(tag pool.Tag, c healthChange) {
	level := slog.LevelInfo
	switch {
	case c.from == c.to:
		return
	case c.to == pool.Unavailable || c.from == pool.Unavailable:
		level = slog.LevelDebug
	case c.to == pool.Overloaded:
		level = slog.LevelWarn
	}
	b.logger.Log(context.Background(), level, "pool health changed",
		keyProtocol, string(tag), keyFrom, c.from.String(), keyTo, c.to.String(), keyChanges, c.changes)
}
