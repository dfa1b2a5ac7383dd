package sim

import (
	"reflect"
	"testing"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
)

const ms = time.Millisecond

// small is a rolling restart of a small fleet with clients of every kind.
func small() Scenario {
	d, _ := lifecycle.Profile("haproxy")
	return Scenario{
		Seed: 1, Replicas: 5, Processors: 1, Drain: d, StartTime: 2 * time.Second, Balancer: HAProxy(RoundRobin), RTT: 20 * ms,
		Clients: []Clients{
			{Name: "ws", Kind: WebSocket, Count: 500, Backoff: BackoffJitter, TLS: TLSFull},
			{Name: "grpc", Kind: GRPC, Count: 100, Backoff: BackoffGRPC, Every: time.Second, Takes: 50 * ms},
			{Name: "round_robin", Kind: GRPC, Count: 20, Links: 5, Direct: true, Backoff: BackoffGRPC, Every: time.Second, Takes: 50 * ms},
			{Name: "h2", Kind: HTTP2, Count: 100, Every: 2 * time.Second, Takes: 100 * ms},
			{Name: "h1", Kind: HTTP1, Count: 50, Links: 4, Every: 2 * time.Second, Takes: 20 * ms},
			{Name: "new", Kind: HTTP1New, Count: 50, Every: time.Second, Takes: 10 * ms},
		},
		Events: []Event{{At: 10 * time.Second, Roll: &Roll{}}},
	}
}

// balancers are those that the tests run with.
func balancers() []Balancer {
	return []Balancer{HAProxy(RoundRobin), HAProxy(LeastConn), NLB(false), NLB(true), KubeProxy(10)}
}

// TestConservation: in every moment each connection is on the books of the replica that
// holds it, once, and each client is known as served or not.
func TestConservation(t *testing.T) {
	for _, b := range balancers() {
		for _, what := range []Event{{Roll: &Roll{}}, {Roll: &Roll{AtOnce: 3}}, {Kill: &Kill{Replica: 2, Restarts: true}}, {Kill: &Kill{Replica: 2, Silent: true}}, {Add: 3}} {
			s := small()
			s.Balancer = b
			// Calls that are cut at the drain's timeout.
			s.Clients = append(s.Clients, Clients{Kind: GRPC, Count: 20, Every: time.Second, Takes: time.Hour, Backoff: BackoffGRPC})
			what.At = 10 * time.Second
			s.Events, s.Until = []Event{what}, 5*time.Minute
			for i := range s.Clients[:5] {
				s.Clients[i].Age, s.Clients[i].Jitter, s.Clients[i].PingEvery, s.Clients[i].PingTimeout = time.Minute, 0.1, 30*time.Second, 10*time.Second
			}
			if what.Add > 0 {
				s.Clients[2].Direct = false
			}
			f := newFleet(s)
			for n := 0; len(f.queue.heap) > 0 && f.now < s.Until; n++ {
				e := f.queue.pop()
				f.now = e.at
				f.do(&e)
				if n%23 == 0 { // A recount costs more than an event.
					f.verify(t)
				}
				if t.Failed() {
					t.Fatalf("%s, %+v: at %v behind %+v", b.Name, what, f.now, e)
				}
			}
		}
	}
}

// verify recounts everything.
func (f *fleet) verify(t *testing.T) {
	conns, opened, without := make([]int, len(f.replicas)), make([]int32, len(f.owners)), 0
	for i := range f.links {
		l := &f.links[i]
		switch l.state {
		case connecting:
			conns[l.replica]++
		case open, closing:
			conns[l.replica]++
			opened[l.owner]++
			if !f.replicas[l.replica].alive {
				t.Errorf("link %d is open on replica %d, which is gone", i, l.replica)
			}
		case resting, trying, lost:
		}
	}
	for i, r := range f.replicas {
		if r.leaving < 0 || conns[i]+r.leaving != r.conns {
			t.Errorf("replica %d has %d connections on its books, and %d of links and %d that leave", i, r.conns, conns[i], r.leaving)
		}
	}
	for i, o := range f.owners {
		if o.since >= 0 {
			without++
		}
		if o.open != opened[i] || o.open > 0 && o.since >= 0 {
			t.Errorf("client %d: %d connections serve it, %d on its books; without service since %v", i, opened[i], o.open, o.since)
		}
	}
	if without != f.without {
		t.Errorf("%d clients are without service, %d on the books", without, f.without)
	}
}

// TestSameTwice: the same scenario gives the same result to the last digit, and another
// seed another one.
func TestSameTwice(t *testing.T) {
	first, again := Run(small()), Run(small())
	if !reflect.DeepEqual(first, again) {
		t.Errorf("%+v\n%+v", first, again)
	}
	s := small()
	s.Seed++
	if other := Run(s); reflect.DeepEqual(first, other) {
		t.Error("another seed gave the same")
	}
	if first.Loss() != 0 {
		t.Errorf("a rolling restart with HAProxy's own profile lost %d and %d", first.Refused, first.Cut)
	}
	if first.Reconnects < 700 {
		t.Errorf("only %d reconnects", first.Reconnects)
	}
}
