package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

const (
	crowdSize   = 3000
	crowdAtOnce = 200
)

// countingListener counts what it accepts.
type countingListener struct {
	net.Listener

	accepted *atomic.Uint64
}

// Accept implements [net.Listener].
func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// crowded is a server under a crowd of clients.
type crowded struct {
	*server
	crowd

	accepted atomic.Uint64
	served   sync.WaitGroup
	seen     map[*pool.Conn]struct{} // belongs to the goroutine that squeezes
}

// limitRandomly sets limits that a crowd exceeds, or none.
func limitRandomly(c *mux.Config, rng *rand.Rand) {
	n := func(most int) int { return max(0, rng.IntN(most+most/4)-most/4) }
	c.Limits.MaxConnections, c.Limits.PerAddress = n(300), n(60)
	c.HTTP1.MaxConnections, c.HTTP2.MaxConnections, c.GRPC.MaxConnections, c.WebSocket.MaxConnections = n(100), n(40), n(30), n(30)
}

// newCrowded serves on a listener of its own and on one behind a balancer, each in
// plaintext and with optional TLS.
func newCrowded(t *testing.T, seed uint64) *crowded {
	t.Helper()
	ca := newAuthority(t)
	m := mux.New(
		mux.Configure(func(c *mux.Config) {
			noDelay(c)
			c.Drain.Timeout = 2 * time.Second
			c.Sniff.Timeout = 300 * time.Millisecond
			c.HTTP2.UpgradeH2C = true
		}),
		mux.WithTLS(&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}),
		mux.WithHandler(routes()),
		mux.WithLogger(discard),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }),
	)
	plain, behind := listen(t), listen(t)
	c := &crowded{
		server: &server{Server: m, addr: plain.Addr().String()},
		crowd: crowd{
			seed: seed, plain: plain.Addr().String(), proxied: behind.Addr().String(),
			roots: ca.pool, call: firstCall(t, "grpc-go/1.85.0", 1000),
		},
		seen: make(map[*pool.Conn]struct{}),
	}
	proxied, err := listeners.NewProxyListener(countingListener{behind, &c.accepted},
		listeners.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{"127.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []net.Listener{countingListener{plain, &c.accepted}, proxied} {
		c.served.Go(func() {
			if err := m.ServeOptional(l); !errors.Is(err, mux.ErrServerClosed) {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	eventually(t, "serving", func() bool { return m.Phase() == lifecycle.PhaseServing })
	t.Cleanup(func() { _ = m.Close() })
	return c
}

// squeeze changes the limits again and again, and collects the connections, until ctx
// ends.
func (c *crowded) squeeze(ctx context.Context, rng *rand.Rand) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		config := c.Config()
		limitRandomly(&config, rng)
		_, _ = c.Reload(config, "test") // It fails once the drain has begun.
		for _, account := range c.Accounts() {
			c.seen[account] = struct{}{}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// come starts the crowd. The drain begins when drainAt clients have begun.
func (c *crowded) come(t *testing.T, drainAt int) {
	t.Helper()
	var crowd sync.WaitGroup
	var drained <-chan drainResult
	slots := make(chan struct{}, crowdAtOnce)
	for i := range crowdSize {
		if i == drainAt {
			drained = c.drain(t.Context())
		}
		slots <- struct{}{}
		crowd.Go(func() {
			defer func() { <-slots }()
			c.visit(t, i)
		})
	}
	crowd.Wait()
	within(t, "the drain", drained)
	c.served.Wait()
}

// check compares every gauge at the end.
func (c *crowded) check(t *testing.T) {
	t.Helper()
	stats := c.Stats()
	var closed uint64
	for tag, p := range stats.Pools {
		if p.Active != 0 || p.Accepted != p.Closed+p.Moved {
			t.Errorf("pool %s: %+v", tag, p)
		}
		closed += p.Closed
	}
	if all := stats.Pools[string(pool.Sniffing)].Accepted; closed != all || all != c.accepted.Load() {
		t.Errorf("%d connections accepted, %d counted, %d closed", c.accepted.Load(), all, closed)
	}
	for tag, r := range stats.Requests {
		var answered uint64
		for _, n := range stats.Codes[tag] {
			answered += n
		}
		if r.InFlight != 0 || answered != r.Total {
			t.Errorf("%s: %d requests in flight, %d ended with %d codes", tag, r.InFlight, r.Total, answered)
		}
	}
	for account := range c.seen {
		if n := account.InFlight(); n != 0 {
			t.Errorf("connection %d, which is gone, has %d requests in flight", account.ID(), n)
		}
	}
	if n := len(c.Connections()); n != 0 || c.NativeConns() != 0 {
		t.Errorf("%d connections are shown, and %d of native calls", n, c.NativeConns())
	}
	for _, fault := range c.UnseenFaults(c.clients()) {
		t.Error(fault)
	}
}

// refusals fails unless the crowd has met a refusal of each kind. Otherwise the test
// would show less than it says.
func (c *crowded) refusals(t *testing.T) {
	t.Helper()
	reasons := make(map[string]uint64)
	for _, byReason := range c.Stats().Rejected {
		for reason, n := range byReason {
			reasons[reason] += n
		}
	}
	t.Logf("refused: %v", c.Stats().Rejected)
	for _, reason := range []string{pool.ReasonLimit, pool.ReasonAddressLimit, "proxy_header", "tls_handshake", "no_match"} {
		if reasons[reason] == 0 {
			t.Errorf("no connection was refused because of %s", reason)
		}
	}
	for tag, p := range c.Stats().Pools {
		t.Logf("pool %s: %d came, %d closed, %d moved on", tag, p.Accepted, p.Closed, p.Moved)
	}
}

// TestGauges: clients of every kind come and die at any moment, while limits change and a
// drain begins. In the end every gauge is zero and the counters agree.
func TestGauges(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newCrowded(t, seed)
	rng := rand.New(rand.NewPCG(seed, crowdSize))
	drainAt := crowdSize*3/4 + rng.IntN(crowdSize/5)
	ctx, cancel := context.WithCancel(t.Context())
	var squeezing sync.WaitGroup
	squeezing.Go(func() { c.squeeze(ctx, rng) })
	c.come(t, drainAt)
	cancel()
	squeezing.Wait()
	c.refusals(t)
	c.check(t)
}
