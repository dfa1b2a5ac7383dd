package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// fleet is the state of a run.
type fleet struct {
	Scenario

	rand     *rand.Rand
	now      time.Duration
	queue    queue
	replicas []*replica
	views    []view
	links    []link
	owners   []owner
	groups   []group
	rolls    []*roll

	waiting  int // events of the scenario, and rolls, that are not over
	draining int
	without  int // clients without service
	first    time.Duration
	result   Result
	done     bool
}

// state is that of a link.
type state uint8

const (
	resting    state = iota // no connection; the next request or back-off makes one
	trying                  // with the balancer, or on the way to a silent host
	connecting              // a replica has accepted it
	open
	closing // HTTP/1.1: told, but it has a response to give
	lost    // its host is silent, and the client does not know
)

// none is no replica.
const none = -1

// link is one connection of a client, and the next one behind it. There may be millions.
type link struct {
	started time.Duration // of the client's last attempt
	owner   uint32
	epoch   uint32 // Events of an older epoch are void.
	replica int16  // that holds the connection or, while trying, is the next to be tried; or none
	group   uint8
	view    uint8
	state   state
	failed  uint8 // attempts in a row
	retries uint8 // that the balancer has left for this attempt
}

// owner is a client.
type owner struct {
	since time.Duration // since when it wants service and has none; negative: it has
	open  int32         // links that serve it
}

// group is what the links of a group share.
type group struct {
	*Clients

	first int // of its links
	cost  time.Duration
	opens time.Duration // round trips until it is served
}

// Run simulates a scenario.
func Run(s Scenario) *Result {
	f := newFleet(s)
	for len(f.queue.heap) > 0 && !f.done {
		e := f.queue.pop()
		if f.Until > 0 && e.at > f.Until {
			f.now = f.Until
			break
		}
		f.now = e.at
		f.result.Events++
		f.do(&e)
		f.settle()
	}
	f.finish()
	return &f.result
}

func newFleet(s Scenario) *fleet {
	f := &fleet{Scenario: s, rand: rand.New(rand.NewPCG(s.Seed, 0x6d7578))}
	if f.Sweep == 0 {
		f.Sweep = defaultSweep
	}
	f.Balancer.Views = max(1, f.Balancer.Views)
	f.views = make([]view, f.Balancer.Views)
	f.result.BalancedAfter = -1
	for range s.Replicas {
		f.addReplica()
	}
	for i := range f.Clients {
		f.addClients(&f.Clients[i])
	}
	f.waiting = len(f.Events)
	for i, e := range f.Events {
		if i == 0 || e.At < f.first {
			f.first = e.At
		}
		f.after(e.At, doAction, uint32(i), 0)
	}
	if f.SampleEvery > 0 {
		f.after(f.first, doSample, 0, 0)
	}
	f.result.Clients, f.result.Links = len(f.owners), len(f.links)
	return f
}

// addClients adds a group whose connections are open, shared out evenly.
func (f *fleet) addClients(c *Clients) {
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	c.Links = max(1, c.Links)
	if c.Direct && c.Links != f.Replicas {
		panic(fmt.Sprintf("sim: %s: %d links to %d replicas", c.Name, c.Links, f.Replicas))
	}
	g := group{Clients: c, first: len(f.links), cost: Cost(c.Kind, c.TLS), opens: trips(c.Kind, c.TLS) * f.RTT}
	f.groups = append(f.groups, g)
	for i := range c.Count {
		f.owners = append(f.owners, owner{since: -1})
		for range c.Links {
			at := len(f.links)
			f.links = append(f.links, link{
				owner: uint32(len(f.owners) - 1), replica: none, group: uint8(len(f.groups) - 1), view: uint8(i % len(f.views)),
			})
			if c.Kind == HTTP1New {
				f.after(f.exp(c.Every), doConnect, uint32(at), 0)
				continue
			}
			l := &f.links[at]
			l.replica, l.state = int16((at-g.first)%len(f.replicas)), open
			f.replicas[l.replica].conns++
			f.owners[l.owner].open++
			if c.Age > 0 {
				opened := -time.Duration(f.rand.Float64() * float64(c.Opened))
				due := opened + f.age(c)
				for due < 0 {
					due += f.age(c)
				}
				f.after(due, doAge, uint32(at), l.epoch)
			}
		}
	}
}

// exp returns a time of an exponential distribution.
func (f *fleet) exp(mean time.Duration) time.Duration {
	return time.Duration(f.rand.ExpFloat64() * float64(mean))
}

// after queues an event.
func (f *fleet) after(d time.Duration, w what, who, arg uint32) {
	f.queue.push(entry{at: f.now + max(0, d), what: w, who: who, arg: arg})
}

// later queues an event of a link, which is void when the link has gone on.
func (f *fleet) later(d time.Duration, w what, at uint32) { f.after(d, w, at, f.links[at].epoch) }

func (f *fleet) do(e *entry) {
	switch e.what {
	case doConnect, doRetry, doServe, doTimeout, doTell, doAge, doClose, doNotice:
		if f.links[e.who].epoch == e.arg {
			f.doLink(e)
		}
	case doLeft, doStop, doEndSpread, doForce, doEnd, doStart:
		if f.replicas[e.who].life == e.arg {
			f.doReplica(e)
		}
	case doCheck:
		f.check(int(e.who), int(e.arg))
	case doMark:
		f.mark(int(e.who), int(e.arg>>1), e.arg&1 == 1)
	case doAction:
		f.waiting--
		f.act(&f.Events[e.who])
	case doRoll:
		f.roll(f.rolls[e.who])
	case doSample:
		f.sample()
	}
}

func (f *fleet) doLink(e *entry) {
	switch e.what {
	case doConnect:
		f.connect(e.who)
	case doRetry:
		f.attempt(e.who, int(f.links[e.who].replica))
	case doServe:
		f.serve(e.who)
	case doTimeout:
		f.release(&f.links[e.who])
		f.refused(e.who, 0)
	case doTell, doAge:
		f.tell(e.who, e.what == doAge)
	case doClose:
		f.closed(e.who)
	case doNotice:
		f.comeBack(e.who)
	}
}

func (f *fleet) act(e *Event) {
	switch {
	case e.Roll != nil:
		f.begin(*e.Roll)
	case e.Kill != nil:
		f.kill(e.Kill)
	case e.Add > 0:
		for range e.Add {
			f.addReplica()
		}
	}
}

// settle ends the run when nothing is left to happen.
func (f *fleet) settle() {
	if f.Until == 0 && f.Balanced == 0 && f.waiting == 0 && f.draining == 0 && f.without == 0 {
		f.done = true
	}
}

// sample looks how full the fullest replica is.
func (f *fleet) sample() {
	most, all, alive := 0, 0, 0
	for _, r := range f.replicas {
		if r.alive {
			alive++
			all += r.conns
			most = max(most, r.conns)
		}
	}
	fullest := float64(most) * float64(alive) / float64(max(1, all))
	f.result.Fullest = append(f.result.Fullest, fullest)
	if f.Balanced > 0 && f.waiting == 0 && fullest < f.Balanced && f.result.BalancedAfter < 0 {
		f.result.BalancedAfter = f.now - f.first
		f.done = f.Until == 0
	}
	f.after(f.SampleEvery, doSample, 0, 0)
}

func (f *fleet) finish() {
	r := &f.result
	r.Took = f.now - f.first
	for i := range f.owners { // Who has no service at the end has had none until now.
		if since := f.owners[i].since; since >= 0 {
			r.Outages.add(f.now - since)
			r.Longest = max(r.Longest, f.now-since)
		}
	}
	r.PeakReconnects = peak(r.Series)
	for _, p := range f.replicas {
		r.PeakHandshake = max(r.PeakHandshake, p.load.most)
	}
}
