package mux

import (
	"log/slog"
	"maps"
	"sync"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
	"github.com/muxserve/muxserve/protocols"
)

// books are what a server counts and logs: its live connections in their pools, requests,
// the times of recognition and TLS handshakes, and why connections were closed. All
// methods may be called concurrently.
type books struct {
	conns      pool.Set
	requests   requestStats
	sniffTimes requests.Durations // from the first wait for bytes to the verdict
	tlsTimes   requests.Durations // of handshakes that succeeded
	closed     closedBook
	logger     *slog.Logger
	accessLog  *slog.Logger // nil: none
}

// newBooks returns empty books.
func newBooks(logger, accessLog *slog.Logger, limits pool.Limits) *books {
	b := &books{logger: logger, accessLog: accessLog}
	b.conns.SetTimeouts(timeoutReasons...)
	b.conns.SetLimits(limits)
	b.requests = b.newRequestStats()
	b.conns.Observe(b.closed.observe)
	b.conns.Observe(b.logEvent)
	return b
}

// tag returns the protocol of the pool that a connection is in.
func (b *books) tag(c *conn) protocols.Protocol { return protocols.Protocol(b.conns.Tag(&c.account)) }

// all returns the live connections that satisfy the condition.
func (b *books) all(which func(*conn) bool) []*conn {
	var some []*conn
	for _, a := range b.conns.Conns() {
		if c, ok := a.Owner().(*conn); ok && which(c) {
			some = append(some, c)
		}
	}
	return some
}

// activeConns returns how many connections are open, by tag, without the empty pools.
func (b *books) activeConns() map[string]int {
	counts := make(map[string]int)
	for tag, p := range b.conns.Stats() {
		if p.Active > 0 {
			counts[tag] = int(p.Active)
		}
	}
	return counts
}

// reportSlow tells the observers of streams that were ended.
func (b *books) reportSlow(c *conn, bodies, responses int) {
	for range bodies {
		b.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Reason: reasonSlowBody})
	}
	for range responses {
		b.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Reason: reasonStalled})
	}
}

// closedBook counts closed connections by what they were and why they were closed.
type closedBook struct {
	mu     sync.Mutex // guards counts
	counts map[pool.Tag]map[string]uint64
}

func (b *closedBook) observe(e pool.Event) {
	if e.Kind != pool.EventRemoved {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.counts == nil {
		b.counts = make(map[pool.Tag]map[string]uint64)
	}
	of := b.counts[e.Tag]
	if of == nil {
		of = make(map[string]uint64)
		b.counts[e.Tag] = of
	}
	of[e.Reason]++
}

func (b *closedBook) all() map[string]map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]map[string]uint64, len(b.counts))
	for tag, of := range b.counts {
		all[string(tag)] = maps.Clone(of)
	}
	return all
}
