package settings

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
)

// The processor time that a replica needs for a new connection: a gRPC client's with its
// first call, the dearest kind in the table of costs in testdata/bench. TLS is a full
// handshake, because a client may not resume. testdata/fleet simulates with the same
// figures. Its tables "handshakes" and "spreads" show that clients wait as soon as a replica
// is asked for more than it has: at 1.3 processors where it has one, for a second and a half.
const (
	plainHandshake = 130400 * time.Nanosecond // grpc-newconn
	tlsHandshake   = 661700 * time.Nanosecond // tls-grpc-newconn
)

// leastSpread stands for a drain.spread of zero: clients need about so long to come back
// even when all of them are told at once.
const leastSpread = time.Second

// herd warns where the drain is bound to make a herd: where the clients of this replica
// come back at a higher rate than one replica with as many processors can serve
// handshakes. One replica may have to take them all, because a balancer that prefers the
// fewest connections sends them to the replica that was restarted just before.
//
// Only numbers of connections count that somebody has set. The default bound follows from
// the file descriptors, and says nothing about how many clients there are.
func (s *Settings) herd(processors int) []string {
	n := s.expectedConnections()
	kind, cost := "plain", plainHandshake
	if slices.ContainsFunc(s.Mux.Listeners, func(l listeners.Config) bool { return l.TLS.Enabled() }) {
		kind, cost = "TLS", tlsHandshake
	}
	capacity := float64(processors) * (float64(time.Second) / float64(cost))
	least := time.Duration(math.Ceil(float64(n)/capacity)) * time.Second
	spread := s.Mux.Drain.Spread
	cause, cure := fmt.Sprintf("drain.spread %v", spread), fmt.Sprintf("drain.spread %v or more", least)
	if s.Mux.Drain.Skips(lifecycle.StepStopAccepting) {
		spread, cause, cure = 0, "drain.skip_steps with stop-accepting", "that step, and a drain.spread,"
	}
	over := "over " + spread.String()
	if spread == 0 {
		over = "at once"
	}
	rate := float64(n) / max(spread, leastSpread).Seconds()
	if rate <= capacity {
		return nil
	}
	return []string{fmt.Sprintf(
		"%s makes a herd: %d connections %s are %.0f reconnects a second, "+
			"and a replica (GOMAXPROCS %d) has time for %.0f %s handshakes; %s spreads them",
		cause, n, over, rate, processors, math.Floor(capacity), kind, cure)}
}

// expectedConnections returns for how many connections the replica is configured: the keys
// max_connections that were set, but not more than all bounds together allow. It is 0 if
// none was set.
func (s *Settings) expectedConnections() int {
	pools := []struct {
		key   string
		bound int
	}{
		{"http1.max_connections", s.Mux.HTTP1.MaxConnections},
		{"http2.max_connections", s.Mux.HTTP2.MaxConnections},
		{"grpc.max_connections", s.Mux.GRPC.MaxConnections},
		{"websocket.max_connections", s.Mux.WebSocket.MaxConnections},
	}
	isSet := func(key string) bool {
		_, set := s.origins[key]
		return set
	}
	// most is the sum of the pools' bounds where all have one; expected that of those that were set.
	most, expected := 0, 0
	allBound := true
	for _, p := range pools {
		most += p.bound
		allBound = allBound && p.bound > 0
		if isSet(p.key) {
			expected += p.bound
		}
	}
	total := s.Mux.Limits.MaxConnections
	if isSet("limits.max_connections") && total > 0 {
		expected = total
	}
	if allBound {
		expected = min(expected, most)
	}
	if total > 0 {
		expected = min(expected, total)
	}
	return expected
}
