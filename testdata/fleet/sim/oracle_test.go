package sim

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
)

// pair is two replicas with ten WebSockets, five on each, whose clients reconnect after 1 s.
// The first replica is restarted at 10 s. Its drain has a delay of 8 s and no spread.
func pair() Scenario {
	return Scenario{
		Replicas: 2, Processors: 1, StartTime: time.Second, RTT: 20 * ms, Balancer: HAProxy(RoundRobin),
		Drain:   lifecycle.Config{Delay: 8 * time.Second, Timeout: time.Minute, StepTimeout: 6 * time.Second, AcceptDuringDelay: true},
		Clients: []Clients{{Kind: WebSocket, Count: 10, Backoff: BackoffPage}},
		Events:  []Event{{At: 10 * time.Second, Roll: &Roll{Replicas: 1}}},
	}
}

func (f *fleet) run() *fleet {
	for len(f.queue.heap) > 0 && !f.done {
		e := f.queue.pop()
		f.now = e.at
		f.do(&e)
		f.settle()
	}
	f.finish()
	return f
}

// TestTold computes by hand what becomes of ten clients: five are told 8 s behind the start,
// know it half a round trip later, and reconnect a second behind that. Each handshake costs
// 88.9 µs, one after the other, and two round trips.
func TestTold(t *testing.T) {
	r := Run(pair())
	if r.Series[90] != 5 || r.Reconnects != 5 || r.PeakReconnects != 5 {
		t.Errorf("reconnects %v, in the busiest second %d; want 5 at 9.0 s", r.Series, r.PeakReconnects)
	}
	if want := 1010*ms + 5*costWebSocket + 40*ms; r.Longest != want {
		t.Errorf("longest time without service %v, want %v", r.Longest, want)
	}
	if r.LongestQueue != 5*costWebSocket || math.Abs(r.PeakHandshake-5*costWebSocket.Seconds()) > 1e-9 {
		t.Errorf("a handshake waited %v, load %v", r.LongestQueue, r.PeakHandshake)
	}
	if r.Loss() != 0 || r.Drain != 8*time.Second || r.Outages.Count() != 5 {
		t.Errorf("loss %d and %d, a drain of %v, %d outages", r.Refused, r.Cut, r.Drain, r.Outages.Count())
	}
}

// TestSpread: the product's own moments are one in each fifth of the spread.
func TestSpread(t *testing.T) {
	s := pair()
	s.RTT, s.Drain.Spread = 0, 5*time.Second
	for s.Seed = range 20 {
		r := Run(s)
		for i := range 5 {
			sum := 0
			for j := 90 + 10*i; j < 100+10*i && j < len(r.Series); j++ {
				sum += int(r.Series[j])
			}
			if sum != 1 {
				t.Errorf("%d reconnects in second %d of the spread: %v", sum, i, r.Series[90:])
			}
		}
	}
	s.Uniform = true
	crowded := false
	for s.Seed = range 20 {
		crowded = crowded || Run(s).PeakReconnects > 2
	}
	if !crowded {
		t.Error("independent moments never crowd")
	}
}

// TestForced: what is not told before the drain's timeout is cut, and told clients of
// HTTP/2 whose streams go on are cut, too.
func TestForced(t *testing.T) {
	s := pair()
	s.Drain.Timeout = 5 * time.Second // before the delay is over
	if r := Run(s); r.Cut != 5 || r.Drain != 5*time.Second {
		t.Errorf("cut %d after %v, want all 5 after 5 s", r.Cut, r.Drain)
	}
	s = pair()
	s.Clients = []Clients{{Kind: GRPC, Count: 10, Backoff: BackoffGRPC, Every: time.Second, Takes: 1000 * time.Hour}}
	if r := Run(s); r.Cut != 5 || r.Drain != time.Minute {
		t.Errorf("cut %d after %v, want all 5 after 1 min", r.Cut, r.Drain)
	}
}

// TestAcceptDuringDelay: where the doors close first, the balancer sends new connections to
// a closed door until it has noticed.
func TestAcceptDuringDelay(t *testing.T) {
	s := pair()
	s.Clients = []Clients{{Kind: HTTP1New, Count: 1000, Every: time.Second}}
	s.Balancer.Retries = 0
	if r := Run(s); r.Loss() != 0 {
		t.Errorf("accepting in the delay: lost %d", r.Loss())
	}
	s.Drain.AcceptDuringDelay = false
	f := newFleet(s)
	// The third failed check marks it down.
	phase, every := f.replicas[0].seen[0].phase, s.Balancer.Interval
	first := phase + (10*time.Second-phase+every-1)/every*every
	noticed := first + 2*every - 10*time.Second
	want := 500 * noticed.Seconds() // Round robin: half of a thousand requests a second.
	if r := f.run().result; math.Abs(float64(r.Refused)-want) > 4*math.Sqrt(want) || r.Cut != 0 {
		t.Errorf("refused %d and cut %d, want %.0f refused in %v", r.Refused, r.Cut, want, noticed)
	}
	s.Balancer.Retries = 2
	if r := Run(s); r.Loss() != 0 {
		t.Errorf("with redispatch: lost %d", r.Loss())
	}
}

// TestLateBalancer: with a delay that is shorter than the balancer takes, it sends new
// connections to a closed door.
func TestLateBalancer(t *testing.T) {
	s := pair()
	s.Clients = []Clients{{Kind: HTTP1New, Count: 1000, Every: time.Second}}
	s.Balancer.Retries, s.Drain.Delay = 0, 2*time.Second
	f := newFleet(s)
	phase, every := f.replicas[0].seen[0].phase, s.Balancer.Interval
	noticed := phase + (10*time.Second-phase+every-1)/every*every + 2*every - 10*time.Second
	back := 3 * time.Second // It drains 2 s, and starts in 1 s: then it takes connections again.
	want := 500 * (min(noticed, back) - 2*time.Second).Seconds()
	if r := f.run().result; math.Abs(float64(r.Refused)-want) > 4*math.Sqrt(want) {
		t.Errorf("refused %d, want %.0f: noticed in %v", r.Refused, want, noticed)
	}
}

// TestCutsDown: an NLB that ends connections of unhealthy targets cuts all of them when
// it marks a draining replica down, and one that does not cuts none.
func TestCutsDown(t *testing.T) {
	s := pair()
	s.Drain.Delay, s.Drain.Timeout = 40*time.Second, 2*time.Minute
	s.Clients[0].Count = 600
	s.Balancer = NLB(true)
	// They come back to zones that have not noticed yet, and may be cut again.
	if r := Run(s); r.Cut < 300 || r.Cut > 600 {
		t.Errorf("cut %d of 300", r.Cut)
	}
	s.Balancer = NLB(false)
	if r := Run(s); r.Cut != 0 {
		t.Errorf("cut %d", r.Cut)
	}
}

// TestBackoff: the attempts at a replica that is away for 10 s come when they are due.
func TestBackoff(t *testing.T) {
	exact := BackoffGRPC
	exact.Jitter = 0
	for name, test := range map[string]struct {
		clients Clients
		refused int
		served  time.Duration
	}{
		// From the start of each attempt: 0, 1, 1.6, 2.56, 4.096 and 6.5536 s.
		"gRPC": {Clients{Kind: GRPC, Backoff: exact, Every: time.Second}, 5, 15819600*time.Microsecond + 40*ms + costGRPC},
		// From the end of each: 1, 2, 4 and 8 s, and a round trip for each that is refused.
		"exponential": {Clients{Kind: WebSocket, Backoff: BackoffExponential}, 3, 15070*ms + 40*ms + costWebSocket},
		// Every second and a round trip: at 1.01, 2.03, ... 10.19.
		"page": {Clients{Kind: WebSocket, Backoff: BackoffPage}, 9, 10190*ms + 40*ms + costWebSocket},
	} {
		test.clients.Count = 1
		r := Run(Scenario{
			Replicas: 1, Processors: 1, StartTime: 10 * time.Second, RTT: 20 * ms, Clients: []Clients{test.clients},
			Events: []Event{{At: time.Second, Kill: &Kill{Restarts: true}}},
		})
		if r.Refused != test.refused || r.Longest != test.served || r.Cut != 1 {
			t.Errorf("%s: refused %d, served after %v; want %d, %v", name, r.Refused, r.Longest, test.refused, test.served)
		}
	}
}

// TestDelay: the jitter stays within its share, and reaches most of it.
func TestDelay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, test := range []struct {
		name   string
		b      Backoff
		failed int
		want   time.Duration
	}{
		{"gRPC 0", BackoffGRPC, 0, 0},
		{"gRPC 1", BackoffGRPC, 1, time.Second},
		{"gRPC 2", BackoffGRPC, 2, 1600 * ms},
		{"gRPC 11", BackoffGRPC, 11, 109951162777},
		{"gRPC 12", BackoffGRPC, 12, 120 * time.Second},
		{"gRPC 200", BackoffGRPC, 200, 120 * time.Second},
		{"socket.io 0", BackoffJitter, 0, time.Second},
		{"socket.io 3", BackoffJitter, 3, 5 * time.Second},
		{"exponential 5", BackoffExponential, 5, 30 * time.Second},
	} {
		least, most := time.Duration(math.MaxInt64), time.Duration(0)
		for range 10000 {
			d := test.b.Delay(r, test.failed)
			least, most = min(least, d), max(most, d)
		}
		jitter := test.b.Jitter
		if test.b.FromStart && test.failed < 2 {
			jitter = 0
		}
		for got, want := range map[time.Duration]float64{least: float64(test.want) * (1 - jitter), most: float64(test.want) * (1 + jitter)} {
			if math.Abs(float64(got)-want) > 0.001*float64(test.want) {
				t.Errorf("%s: %v to %v, want %v and %v of it up or down", test.name, least, most, test.want, jitter)
			}
		}
	}
}

// TestLeaves computes by hand when an HTTP/2 connection has ended that is told at 18.0 s:
// sweeps come every 0.625 s, at 18.125, 18.75, 19.375 s.
func TestLeaves(t *testing.T) {
	for name, test := range map[string]struct {
		clients Clients
		rtt     time.Duration
		at      time.Duration
		cut     bool
	}{
		"its client closes":          {Clients{}, 20 * ms, 18010 * ms, false},
		"its client lingers":         {Clients{Lingers: true}, 20 * ms, 18750 * ms, false},
		"it answers after 200 ms":    {Clients{Lingers: true}, 200 * ms, 19375 * ms, false},
		"its streams go on":          {Clients{Every: time.Second, Takes: 1000 * time.Hour, Grace: time.Second}, 20 * ms, 19375 * ms, true},
		"they are idle in its grace": {Clients{Grace: time.Second}, 20 * ms, 18010 * ms, false},
	} {
		f := newFleet(Scenario{Replicas: 1, RTT: test.rtt})
		f.now = 18 * time.Second
		if at, cut := f.leaves(&group{Clients: &test.clients}); at != test.at || cut != test.cut {
			t.Errorf("%s: at %v, cut %v; want %v, %v", name, at, cut, test.at, test.cut)
		}
	}
}

// TestSilentHost: clients notice by their pings, at different moments, or by nothing.
func TestSilentHost(t *testing.T) {
	s := pair()
	s.Events = []Event{{At: 10 * time.Second, Kill: &Kill{Silent: true}}}
	s.Clients[0].Count = 2000
	s.Clients[0].PingEvery, s.Clients[0].PingTimeout = 30*time.Second, 10*time.Second
	if r := Run(s); r.Cut != 1000 || r.Longest < 40*time.Second || r.Longest > 42*time.Second || r.Outages.Quantile(0.01) < 11*time.Second {
		t.Errorf("cut %d, longest %v, first %v", r.Cut, r.Longest, r.Outages.Quantile(0.01))
	}
	s.Clients[0].PingTimeout = 0
	if r := Run(s); r.Longest < 15*time.Minute {
		t.Errorf("noticed in %v without a ping", r.Longest)
	}
	s.Balancer.CutsDown = true
	if r := Run(s); r.Longest > 9*time.Second {
		t.Errorf("noticed in %v though the balancer resets", r.Longest)
	}
}

// TestPolicies: round robin shares new connections out evenly, and least connections sends
// them to the emptiest replica until it has as many as the others.
func TestPolicies(t *testing.T) {
	for _, policy := range []Policy{RoundRobin, LeastConn, Random} {
		s := pair()
		s.Replicas, s.Balancer.Policy, s.Clients[0].Count = 4, policy, 1600
		s.Events = []Event{{At: time.Second, Roll: &Roll{Replicas: 1}}, {At: 100 * time.Second, Kill: &Kill{Replica: 3}}}
		s.Until = 2 * time.Minute
		f := newFleet(s)
		for len(f.queue.heap) > 0 && f.now < s.Until {
			e := f.queue.pop()
			f.now = e.at
			f.do(&e)
		}
		// The first restart moves 400 to the three others, 533 each. Then the last one dies,
		// and its 533 move to the other three.
		got := [2]int{f.replicas[0].conns, f.replicas[1].conns}
		want := [2]int{178, 711}
		if policy == LeastConn {
			want = [2]int{533, 533}
		}
		slack := 2
		if policy == Random {
			slack = 80
		}
		for i := range got {
			if got[i] < want[i]-slack || got[i] > want[i]+slack {
				t.Errorf("%v: %v connections, want %v", policy, got, want)
			}
		}
	}
}

// TestOverload: handshakes that wait longer than their clients are given up, and tried
// again on top of the work that is queued already.
func TestOverload(t *testing.T) {
	s := pair()
	s.Clients[0].Count, s.Clients[0].TLS, s.Clients[0].Timeout = 20000, TLSFull, 5*time.Second
	s.Processors = 0.5 // 10,000 handshakes of 615 µs take it 12.3 s.
	r := Run(s)
	if r.LongestQueue < 12*time.Second || r.Refused < 5000 || r.Longest < 12*time.Second {
		t.Errorf("queue %v, refused %d, longest %v", r.LongestQueue, r.Refused, r.Longest)
	}
}

// TestBalance computes by hand when a fleet that has doubled is balanced, where ages are
// over evenly within an hour: round robin has to move 80 % of the clients to new places,
// and least connections 40 %, all of them to new replicas.
func TestBalance(t *testing.T) {
	for policy, want := range map[Policy]time.Duration{RoundRobin: 48 * time.Minute, LeastConn: 24 * time.Minute} {
		r := Run(Scenario{
			Replicas: 5, Processors: 1, RTT: 20 * ms, Balancer: HAProxy(policy), Balanced: 1.2, SampleEvery: time.Second,
			Clients: []Clients{{Kind: WebSocket, Count: 50000, Backoff: BackoffPage, Age: time.Hour, Opened: time.Hour}},
			Events:  []Event{{At: time.Second, Add: 5}},
		})
		if r.BalancedAfter < want-time.Minute || r.BalancedAfter > want+time.Minute || r.Loss() != 0 {
			t.Errorf("%v: balanced after %v, want %v", policy, r.BalancedAfter, want)
		}
	}
}

// TestChecks: checks count in a row. A good one between makes a view begin again.
func TestChecks(t *testing.T) {
	f := newFleet(pair())
	at := func(ready bool, want bool) {
		t.Helper()
		f.replicas[0].ready = ready
		f.check(0, 0)
		if got := f.replicas[0].seen[0].want; got != want {
			t.Errorf("seen up: %v, want %v", got, want)
		}
	}
	at(false, true)
	at(false, true)
	at(true, true)
	at(false, true)
	at(false, true)
	at(false, false)
}

// TestPeak: the busiest second begins anywhere.
func TestPeak(t *testing.T) {
	series := make([]int32, 40)
	series[0], series[15], series[24], series[25] = 8, 3, 4, 5
	if got := peak(series); got != 9 { // 24 and 25; 15 and 24 are within a second, 15 and 25 are not.
		t.Errorf("peak %d, want 9", got)
	}
}
