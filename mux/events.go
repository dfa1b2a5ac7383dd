package mux

import (
	"context"
	"log/slog"

	"github.com/muxserve/muxserve/pool"
)

// Observe has f called for each event of the server's connections and pools, until cancel
// is called: connections that are accepted, change their pool and are closed, with the
// reason; timeouts, errors, limits that were reached, and changes of health. See
// [pool.Set.Observe] for when and how. [ConnectionOf] tells more of an event's
// connection.
func (s *Server) Observe(f func(pool.Event)) (cancel func()) { return s.books.conns.Observe(f) }

// The reasons for which the server closes a connection, beside those that package pool
// finds out for itself ("peer_closed", "reset", "timeout" and "server_closed") and those
// of custom protocols. They stand in Stats.Closed, in events and in the log.
const (
	reasonIdle     = "idle_timeout"    // nothing was in flight for too long
	reasonHeader   = "header_timeout"  // a request's header took too long
	reasonSlowBody = "slow_body"       // a request's body made no progress
	reasonStalled  = "write_stalled"   // the client did not take what it was sent
	reasonPing     = "ping_timeout"    // a ping was not answered
	reasonSniff    = "sniff_timeout"   // the protocol was not known in time
	reasonTLS      = "tls_handshake"   // the handshake failed
	reasonAge      = "max_age"         // the connection was old enough
	reasonRequests = "max_requests"    // the connection has had all its requests
	reasonDrain    = "drain"           // the server leaves
	reasonForced   = "forced"          // the server leaves, and the time for it was up
	reasonRefused  = "refused"         // a limit kept the connection out
	reasonFlood    = "too_many_resets" // the client reset streams faster than is allowed
)

// timeoutReasons are those of a client that was too slow, of which an EventTimeout tells.
var timeoutReasons = []string{reasonIdle, reasonHeader, reasonSlowBody, reasonStalled, reasonPing, reasonSniff}

// ConnectionOf returns what is known of an event's connection, and false without one.
func ConnectionOf(e pool.Event) (pool.Info, bool) {
	if e.Conn == nil {
		return pool.Info{}, false
	}
	c, ok := e.Conn.Owner().(*conn)
	if !ok {
		return pool.Info{}, false
	}
	return c.info(), true
}

// logEvent writes an event into the server's log. What a client causes is logged at
// Debug; changes of health and panics of observers stand above that.
func (b *books) logEvent(e pool.Event) {
	if e.Kind == pool.EventHealthChanged {
		b.logHealth(e)
		return
	}
	ctx := context.Background()
	if e.Kind == pool.EventError && e.Conn == nil { // An observer panicked.
		b.logger.LogAttrs(ctx, slog.LevelError, "observer panicked", slog.Any(keyErr, e.Err))
		return
	}
	if !b.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
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
			attrs = append(attrs, slog.String(keyRemoteAddr, c.remoteAddr()))
		}
		if e.Kind == pool.EventRemoved {
			info := b.conns.Info(a)
			attrs = append(attrs, slog.Uint64(keyBytesRead, info.BytesReceived), slog.Uint64(keyBytesWritten, info.BytesSent),
				slog.Duration(keyDuration, e.Time.Sub(info.Opened)))
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

// logHealth logs a change of a pool's health. That all are unavailable, the drain logs.
func (b *books) logHealth(e pool.Event) {
	level := slog.LevelInfo
	switch {
	case e.New == pool.Unavailable || e.Old == pool.Unavailable:
		level = slog.LevelDebug
	case e.New == pool.Overloaded:
		level = slog.LevelWarn
	}
	b.logger.Log(context.Background(), level, "pool health changed",
		keyProtocol, string(e.Tag), keyFrom, e.Old.String(), keyTo, e.New.String())
}
