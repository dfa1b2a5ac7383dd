// Package sim simulates a fleet of muxserve processes behind a layer-4 load balancer, event
// by event: who reconnects when, to which replica, what that costs it, and what is lost.
//
// A [Scenario] is everything that [Run] needs, and it returns a [Result]. The same scenario
// gives the same result to the last digit. The moments at which a server has its clients
// leave come from the product's own code, package protocols/moments, and a drain's times
// from package lifecycle.
package sim

import (
	"math/rand/v2"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/protocols/moments"
)

// Scenario is a fleet and what happens to it.
type Scenario struct {
	Seed     uint64
	Replicas int
	// Processors is how many of a replica's processors are free for handshakes.
	Processors float64
	// Drain is how each replica drains; see [lifecycle.Profile].
	Drain lifecycle.Config
	// Uniform has a drain tell each client at a moment of the spread that is independent of
	// the others' moments. The product's own moments are stratified; see [moments.Spread].
	Uniform bool
	// StartTime is how long a process takes from its start until it is ready.
	StartTime time.Duration
	Balancer  Balancer
	// RTT is the round trip between a client and a replica.
	RTT     time.Duration
	Clients []Clients
	Events  []Event
	// Sweep is the time between two sweeps of a server. 0 is that of the default
	// configuration.
	Sweep time.Duration
	// Until ends the run. 0: it ends when the events are over, no replica drains, and no
	// client is without service.
	Until time.Duration
	// Balanced is how full the fullest replica may be, in means, to be counted as balanced;
	// see [Result.BalancedAfter]. Without Until the run ends then. SampleEvery is how often
	// that is looked at.
	Balanced    float64
	SampleEvery time.Duration
}

// Policy is how a balancer chooses a replica.
type Policy int

// The policies.
const (
	RoundRobin Policy = iota
	LeastConn         // HAProxy's leastconn: the one with the fewest connections
	Random            // kube-proxy's iptables rules, and the flow hash of an NLB
)

func (p Policy) String() string { return [...]string{"round robin", "least connections", "random"}[p] }

// Balancer is a layer-4 load balancer.
type Balancer struct {
	Name   string
	Policy Policy
	// Views is how many parts of it see the replicas' health, each for itself: nodes or
	// zones. A client goes through one of them. 0 is 1.
	Views int
	// Interval is the time between two checks of a replica's readiness. A replica is down
	// for new connections behind Fall failed checks in a row, and up behind Rise good ones.
	Interval   time.Duration
	Fall, Rise int
	// Push has the balancer told at once when a replica begins to drain, ends or is ready,
	// as Kubernetes tells kube-proxy. Only a silent host has to be found by the checks.
	Push bool
	// LagLeast and LagMost bound the time that a view takes to act on what was noticed.
	LagLeast, LagMost time.Duration
	// CutsDown has the balancer reset established connections to a replica that is marked
	// down: an NLB by default, and HAProxy with "on-marked-down shutdown-sessions".
	CutsDown bool
	// Retries is how often a connection that a replica refuses is tried again, unseen by
	// the client: a second later on the same replica, and the last time on another one
	// (HAProxy's retries with "option redispatch").
	Retries int
	// ConnectTimeout bounds an attempt at a silent replica. 0: the client's own.
	ConnectTimeout time.Duration
}

// HAProxy is cmd/muxserve/deploy/haproxy.cfg: inter 2s fall 3 rise 1, retries 2 and
// redispatch, established connections are left alone.
func HAProxy(p Policy) Balancer {
	return Balancer{
		Name: "HAProxy", Policy: p, Interval: 2 * time.Second, Fall: 3, Rise: 1,
		Retries: 2, ConnectTimeout: 2 * time.Second,
	}
}

// NLB is an AWS Network Load Balancer with three zones: two checks, 10 s apart, and up to
// 10 s more until a zone acts. cuts is the attribute
// target_health_state.unhealthy.connection_termination.enabled, which is on by default.
func NLB(cuts bool) Balancer {
	return Balancer{
		Name: "NLB", Policy: Random, Views: 3, Interval: 10 * time.Second, Fall: 2, Rise: 2,
		LagMost: 10 * time.Second, CutsDown: cuts,
	}
}

// KubeProxy is a Kubernetes service on so many nodes: each hears of an endpoint that
// terminates or is ready up to 3 s later. A node that falls silent is found after 40 s
// (node-monitor-grace-period of old; 50 s since 1.32). Conntrack keeps what is established.
func KubeProxy(nodes int) Balancer {
	return Balancer{
		Name: "kube-proxy", Policy: Random, Views: nodes, Interval: 10 * time.Second, Fall: 4, Rise: 1,
		Push: true, LagMost: 3 * time.Second,
	}
}

// Kind is what a client speaks, and so how it is told and comes back.
type Kind int

// The kinds.
const (
	// WebSocket is told by 1001, and reconnects after its back-off.
	WebSocket Kind = iota
	// GRPC is told by GOAWAY. Calls under way end on the old connection; the channel
	// connects anew at once.
	GRPC
	// HTTP2 is told like GRPC, and connects anew with its next request.
	HTTP2
	// HTTP1 is a kept-alive connection of a pool. It is told by its next response or by the
	// end of an idle connection, and is opened anew with the next request that wants it.
	HTTP1
	// HTTP1New opens a connection for each request.
	HTTP1New
)

// Clients are a number of clients that are alike.
type Clients struct {
	Name  string
	Kind  Kind
	Count int
	// Links is how many connections each has. A client is without service when it has
	// none. 0 is 1.
	Links int
	// Direct is gRPC's round_robin over the replicas' own addresses: link i goes to replica
	// i, past the balancer. Links has to be the number of replicas.
	Direct bool
	// Every is the mean time between two requests or calls on a link, and Takes how long
	// one takes on average. Both are exponential: the requests have no memory.
	Every, Takes time.Duration
	// Backoff is the time before each attempt to connect.
	Backoff Backoff
	// Timeout is how long the client waits for a connection. 0 is 20 s, gRPC's.
	Timeout time.Duration
	TLS     TLS
	// Age is the server's max_age for them, and Jitter its jitter, a share of the age; see
	// [moments.Age]. Grace is max_age_grace.
	Age    time.Duration
	Jitter float64
	Grace  time.Duration
	// Opened is the time before the start over which their connections were opened.
	Opened time.Duration
	// Lingers has HTTP/2 clients keep a connection without streams that was told to leave.
	// Others close it, as grpc-go, net/http and browsers do.
	Lingers bool
	// PingEvery and PingTimeout are how they notice a silent host. 0: when the balancer
	// resets, or after 15 min, when the kernel gives up.
	PingEvery, PingTimeout time.Duration
}

// Backoff is the time before an attempt to connect.
type Backoff struct {
	First  time.Duration // before the first attempt
	Factor float64       // from one to the next; 0 is 1
	Most   time.Duration // 0: no bound
	Jitter float64       // a share, up or down
	// FromStart is gRPC's rule: the first attempt is made at once, and a time counts from
	// the start of the attempt before it. The first such time has no jitter.
	FromStart bool
}

// The back-offs of well-known clients.
var (
	// BackoffGRPC is doc/connection-backoff.md of gRPC.
	BackoffGRPC = Backoff{First: time.Second, Factor: 1.6, Most: 120 * time.Second, Jitter: 0.2, FromStart: true}
	// BackoffPage is a page's onclose with setTimeout(connect, 1000).
	BackoffPage = Backoff{First: time.Second}
	// BackoffExponential is what most libraries do, without jitter.
	BackoffExponential = Backoff{First: time.Second, Factor: 2, Most: 30 * time.Second}
	// BackoffJitter is socket.io's: 1 s, doubled up to 5 s, half of it up or down.
	BackoffJitter = Backoff{First: time.Second, Factor: 2, Most: 5 * time.Second, Jitter: 0.5}
)

// Delay returns the time before the attempt behind so many failed ones. For FromStart it
// counts from the start of the last attempt, and is 0 for the first one.
func (b Backoff) Delay(r *rand.Rand, failed int) time.Duration {
	if b.FromStart {
		if failed == 0 {
			return 0
		}
		failed--
	}
	d := float64(b.First)
	for range failed {
		if d *= max(1, b.Factor); b.Most > 0 && d >= float64(b.Most) {
			d = float64(b.Most)
			break
		}
	}
	if b.Jitter > 0 && !(b.FromStart && failed == 0) {
		d *= 1 + b.Jitter*(2*r.Float64()-1)
	}
	return time.Duration(d)
}

// Event is something that happens to the fleet. One of its actions is set.
type Event struct {
	At   time.Duration
	Roll *Roll
	Kill *Kill
	Add  int // so many replicas, ready at once
}

// Roll is a rolling restart: each replica drains, ends and starts again. The next one
// begins when every part of the balancer has seen it up.
type Roll struct {
	Replicas int           // how many are restarted; 0: all
	AtOnce   int           // how many at the same time; 0 is 1
	Pause    time.Duration // before the next one
}

// Kill ends a replica without a drain.
type Kill struct {
	Replica int
	// Silent has its host fall silent: nothing is reset. Otherwise the process dies, and
	// the kernel resets its connections.
	Silent bool
	// Restarts has it start again at once, which takes StartTime.
	Restarts bool
}

// defaultSweep is that of the default configuration: body_grace 5 s is the shortest time
// that the sweep measures.
var defaultSweep = moments.SweepEvery(5*time.Second, time.Minute, 2*time.Minute)
