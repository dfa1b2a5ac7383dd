package main

import (
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/testdata/fleet/sim"
)

// scenario is a rolling restart of a small fleet: each server is sent SIGTERM and waited
// for, started anew, and is up for the balancer before it is the next one's turn.
type scenario struct {
	name    string
	servers int
	// restarted is how many of them are.
	restarted int
	// The clients: WebSockets, channels of grpc-go, and HTTP/1.1 clients that keep a connection.
	webSockets, channels, keepAlives int
	every                            time.Duration // the mean time between two operations of a client
	backoff                          sim.Backoff   // of the WebSockets
	drain                            lifecycle.Config
	balancer                         sim.Balancer  // HAProxy, its checks and retries
	settle                           time.Duration // how long the clients go on behind the last restart
}

// outcome is what came of a scenario.
type outcome struct {
	reconnects int
	peak       int // reconnects in the busiest second
	// accepted and acceptedPeak are the same by the servers' account.
	accepted     int
	acceptedPeak float64
	refused, cut int // connections
	// operations are requests, calls and messages.
	operations, failed int
	longest            time.Duration // that a client was without service
	stall              time.Duration // of the machine
	faults             []string
}

// scenarios are those that are calibrated. Both have 2,000 clients.
func scenarios() []*scenario {
	profile, err := lifecycle.Profile("haproxy")
	if err != nil {
		panic(err)
	}
	base := scenario{
		servers: 3, restarted: 3, webSockets: 1000, channels: 500, keepAlives: 500,
		every: 8 * time.Second, backoff: sim.BackoffJitter,
		drain: profile, balancer: sim.HAProxy(sim.LeastConn), settle: 5 * time.Second,
	}
	ripple, late := base, base
	ripple.name = "the haproxy profile"
	late.name = "a balancer that notices late"
	late.drain.Delay = 0
	// It takes about 5 s in every run, and each refused connection is the client's.
	late.balancer.Interval, late.balancer.Fall, late.balancer.Retries = 500*time.Millisecond, 10, 0
	return []*scenario{&ripple, &late}
}

func (sc *scenario) clients() int { return sc.webSockets + sc.channels + sc.keepAlives }

// flags are muxserve's, for the scenario's drain.
func (sc *scenario) flags() []string {
	return []string{
		"--drain-delay=" + sc.drain.Delay.String(),
		"--drain-spread=" + sc.drain.Spread.String(),
		"--drain-timeout=" + sc.drain.Timeout.String(),
		"--proxy-protocol=required", "--proxy-trusted=127.0.0.1", // The recipe sends the header.
	}
}

// The times of the real processes on the loopback interface.
const (
	startTime = 100 * time.Millisecond // from the start of a process until it is ready
	roundTrip = time.Millisecond
	work      = time.Millisecond // of an operation
)

// simulate returns what the simulation says of the scenario.
func (sc *scenario) simulate(seed uint64) *sim.Result {
	return sim.Run(sim.Scenario{
		Seed: seed, Replicas: sc.servers, Processors: 1, Drain: sc.drain,
		StartTime: startTime, Balancer: sc.balancer, RTT: roundTrip,
		Clients: []sim.Clients{
			{Name: "websocket", Kind: sim.WebSocket, Count: sc.webSockets, Backoff: sc.backoff},
			{Name: "grpc", Kind: sim.GRPC, Count: sc.channels, Every: sc.every, Takes: work, Backoff: sim.BackoffGRPC},
			{Name: "http1", Kind: sim.HTTP1, Count: sc.keepAlives, Every: sc.every, Takes: work},
		},
		Events: []sim.Event{{Roll: &sim.Roll{Replicas: sc.restarted}}},
	})
}
