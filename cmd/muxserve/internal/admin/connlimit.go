package admin

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// The bounds of the connections of an admin listener, each of which takes memory and a
// descriptor of the process. Event streams and profiles leave some of the fewest to probes.
const (
	maxConns = 256
	minConns = maxStreams + 8
)

// connLimit returns how many connections the listener has at most: a quarter of the descriptors
// that the connections of the service leave, within the bounds. Package demo opens files with
// two other quarters.
func connLimit() int { return min(maxConns, max(minConns, pool.DefaultConfig().MaxConnections/36)) }

// streamBuffer is how many bytes of events the system keeps for a client that does not read
// them, beside those in the client's own system. Left alone, Linux keeps megabytes.
const streamBuffer = 16 << 10

// newTime is how long a connection is new. The first request of a client that is far away
// comes within that time.
const newTime = time.Second

// ConnLimiter bounds the connections of the server of the pages. For one that comes above
// the bound it closes the connection that has been without a request for longest, and for
// newTime at least: a client that has just come can ask. Where no connection has been idle
// so long, it looks at the client that has most of them, if it has more than a quarter of
// all, or else at all clients, and closes the connection whose state is oldest. So one
// client that does nothing, or asks all the time, keeps no probe of another out. Event
// streams and profiles stay. The zero value is ready to use. All methods may be called
// concurrently.
type ConnLimiter struct {
	newFor time.Duration // newTime where it is 0

	mu      sync.Mutex // guards what follows
	all     map[net.Conn]*adminConn
	clients map[netip.Addr]*int // how many of all each has; see [pool.ClientOf]
}

// adminConn is a connection of the server of the pages.
type adminConn struct {
	net.Conn
	stays atomic.Bool // it has a request that takes its time
	// Guarded by ConnLimiter.mu.
	client netip.Addr
	share  *int // how many connections the client has
	active bool // it has a request
	since  time.Time
}

type connKey struct{}

// Context is the server's ConnContext: a connection has come.
func (s *ConnLimiter) Context(ctx context.Context, conn net.Conn) context.Context {
	c := &adminConn{Conn: conn, since: time.Now()}
	c.client, _ = pool.ClientOf(conn.RemoteAddr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all, s.clients = make(map[net.Conn]*adminConn), make(map[netip.Addr]*int)
	}
	if len(s.all) >= connLimit() {
		s.makeRoom()
	}
	if s.clients[c.client] == nil {
		s.clients[c.client] = new(int)
	}
	c.share = s.clients[c.client]
	*c.share++
	s.all[conn] = c
	return context.WithValue(ctx, connKey{}, c)
}

// State is the server's ConnState.
func (s *ConnLimiter) State(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.all[conn]
	if c == nil {
		return // It has made room.
	}
	switch state {
	case http.StateActive, http.StateIdle:
		c.active, c.since = state == http.StateActive, time.Now()
		c.stays.Store(false)
	case http.StateClosed, http.StateHijacked:
		s.forget(c)
	case http.StateNew:
	}
}

// forget is the other half of Context. The caller holds mu.
func (s *ConnLimiter) forget(c *adminConn) {
	delete(s.all, c.Conn)
	if *c.share--; *c.share == 0 {
		delete(s.clients, c.client)
	}
}

// makeRoom closes a connection. The caller holds mu.
func (s *ConnLimiter) makeRoom() {
	var first *adminConn
	begun, fair := time.Now().Add(-cmp.Or(s.newFor, newTime)), connLimit()/4
	for _, c := range s.all {
		if !c.stays.Load() && (first == nil || c.leavesBefore(first, begun, fair)) {
			first = c
		}
	}
	if first != nil {
		s.forget(first)
		_ = first.Close()
	}
}

// leavesBefore is asked for two connections at a time. Those that have been as they are since
// begun or longer are not new. A client that has no more than fair connections has not many.
func (c *adminConn) leavesBefore(other *adminConn, begun time.Time, fair int) bool {
	if unused := c.isUnused(begun); unused != other.isUnused(begun) {
		return unused
	} else if share, others := max(fair, *c.share), max(fair, *other.share); !unused && share != others {
		return share > others
	}
	return c.since.Before(other.since)
}

// isUnused reports whether a connection that is not new has no request.
func (c *adminConn) isUnused(begun time.Time) bool { return !c.active && !c.since.After(begun) }

// connOf returns the connection of a request; nil where its server has no [ConnLimiter].
func connOf(r *http.Request) *adminConn {
	c, _ := r.Context().Value(connKey{}).(*adminConn)
	return c
}

// stay keeps the connection of a request that takes its time, until it is over.
func stay(r *http.Request) {
	if c := connOf(r); c != nil {
		c.stays.Store(true)
	}
}

// stayForEvents is stay for an event stream.
func stayForEvents(r *http.Request) {
	stay(r)
	if c := connOf(r); c != nil {
		if socket, ok := c.Conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
			_ = socket.SetWriteBuffer(streamBuffer)
		}
	}
}
