package mux

import (
	"log/slog"
	"sync/atomic"
	"weak"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/pool/requests"
	"github.com/muxserve/muxserve/protocols"
)

// books are what a server counts and logs: its live connections in their pools, requests,
// the times of recognition and TLS handshakes. All methods may be called concurrently.
type books struct {
	conns      pool.Set
	requests   requestStats
	sniffTimes requests.Durations // from the first byte to the verdict
	tlsTimes   requests.Durations // of handshakes that succeeded
	health     *paced[pool.Tag, healthChange]
	refusals   *refusals
	calls      methodCounts
	closed     closedConns
	logger     *slog.Logger
	accessLog  *slog.Logger // nil: none

	// unknownNames counts TLS handshakes for a name that no certificate of the listener has.
	unknownNames atomic.Uint64

	// reclassified counts native gRPC connections that brought something else: a request,
	// or a call to a service of the HTTP handler.
	reclassified [len(reclassifications)]atomic.Uint64
}

// reclassifications are what a native gRPC connection may bring that is not the native
// server's.
var reclassifications = [...]string{"request", "call"}

// countReclassified counts such a connection. The first of each kind is logged.
func (b *books) countReclassified(c *conn, isCall bool) {
	kind := 0
	if isCall {
		kind = 1
	}
	if b.reclassified[kind].Add(1) == 1 {
		b.logger.Info("native grpc connection brought something else, and its client's next connections are shared",
			keyKind, reclassifications[kind], keyConnID, c.account.ID(), keyRemoteAddr, c.remoteAddr())
	}
}

// newBooks returns empty books.
func newBooks(logger, accessLog *slog.Logger, limits pool.Limits) *books {
	b := &books{logger: logger, accessLog: accessLog}
	b.health = newPaced(healthPace, healthChange.merge, b.logHealth)
	b.refusals = newRefusals(b.logRefusals)
	b.conns.SetTimeouts(lateReasons...)
	b.conns.SetLimits(limits)
	b.requests = b.newRequestStats()
	b.conns.Observe(b.logEvent)
	return b
}

// end writes the lines that are held back.
func (b *books) end() {
	b.health.end()
	b.refusals.lines.end()
}

// tag returns the protocol of the pool that a connection is in.
func (b *books) tag(c *conn) protocols.Protocol { return protocols.Protocol(c.account.Tag()) }

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

// connRef leads to a connection for as long as it lives. It is for what may last longer
// than the connection: that would keep in memory what the client has sent, its certificates
// among it.
type connRef = weak.Pointer[conn]

func refsOf(conns []*conn) []connRef {
	refs := make([]connRef, len(conns))
	for i, c := range conns {
		refs[i] = weak.Make(c)
	}
	return refs
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
func (b *books) reportSlow(c *conn, n ended) {
	for range n.bodies {
		b.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Reason: reasonSlowBody})
	}
	for range n.responses {
		b.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Reason: reasonStalled})
	}
}
