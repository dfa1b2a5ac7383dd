package sim

import (
	"math"
	"time"

	"github.com/muxserve/muxserve/protocols/moments"
)

func (f *fleet) group(at uint32) *group { return &f.groups[f.links[at].group] }

// age returns how old a connection may become.
func (f *fleet) age(c *Clients) time.Duration { return moments.Age(f.rand, c.Age, c.Jitter) }

// wants notes that the client of a link wants service now.
func (f *fleet) wants(at uint32) {
	o := &f.owners[f.links[at].owner]
	if o.open == 0 && o.since < 0 {
		o.since = f.now
		f.without++
	}
}

// move brings a link into another state, which makes its events void.
func (f *fleet) move(l *link, s state) {
	if l.state == open || l.state == closing {
		f.owners[l.owner].open--
	}
	if s == open || s == closing {
		f.owners[l.owner].open++
	}
	l.state = s
	l.epoch++
}

// connect begins an attempt of the client's.
func (f *fleet) connect(at uint32) {
	l, g := &f.links[at], f.group(at)
	if g.Kind != HTTP1New {
		f.wants(at)
	}
	f.move(l, trying)
	l.started = f.now
	l.retries = uint8(f.Balancer.Retries)
	if g.Direct {
		l.retries = 0
		f.attempt(at, (int(at)-g.first)%g.Links)
		return
	}
	f.attempt(at, f.pick(l.view, none))
}

// attempt tries a replica: for the client or, where it has retries left, for the balancer.
func (f *fleet) attempt(at uint32, where int) {
	l, g := &f.links[at], f.group(at)
	l.replica = none
	if where == none {
		f.refused(at, f.RTT)
		return
	}
	r := f.replicas[where]
	switch {
	case r.silent && (f.Balancer.ConnectTimeout == 0 || g.Direct):
		f.later(g.Timeout, doTimeout, at)
	case r.silent:
		f.again(at, where, f.Balancer.ConnectTimeout)
	case !r.accepting:
		f.again(at, where, 0)
	default:
		f.takeIn(at, where)
	}
}

// turnAround is how long HAProxy waits before it tries the same server again.
const turnAround = time.Second

// again has the balancer try once more, or the client see that it failed.
func (f *fleet) again(at uint32, where int, waited time.Duration) {
	l := &f.links[at]
	switch l.retries {
	case 0:
		f.refused(at, waited+f.RTT)
		return
	case 1:
		l.replica = int16(f.pick(l.view, where))
	default:
		l.replica = int16(where)
		waited = max(waited, turnAround)
	}
	l.retries--
	f.later(waited, doRetry, at)
}

// takeIn has a replica accept a connection, which costs it processor time.
func (f *fleet) takeIn(at uint32, where int) {
	l, g, r := &f.links[at], f.group(at), f.replicas[where]
	l.replica, l.state = int16(where), connecting
	r.conns++
	if g.Kind != HTTP1New && f.now >= f.first {
		f.result.Reconnects++
		step := int((f.now - f.first) / SeriesStep)
		for len(f.result.Series) <= step {
			f.result.Series = append(f.result.Series, 0)
		}
		f.result.Series[step]++
	}
	r.load.add(f.now, g.cost)
	r.busy = max(r.busy, f.now) + time.Duration(float64(g.cost)/f.Processors)
	took := r.busy - f.now
	f.result.LongestQueue = max(f.result.LongestQueue, took)
	if took += g.opens; took > g.Timeout {
		f.later(g.Timeout, doTimeout, at)
		return
	}
	f.later(took, doServe, at)
}

// serve has a replica serve a connection.
func (f *fleet) serve(at uint32) {
	l, g := &f.links[at], f.group(at)
	f.move(l, open)
	l.failed = 0
	o := &f.owners[l.owner]
	if o.since >= 0 {
		f.result.Outages.add(f.now - o.since)
		f.result.Longest = max(f.result.Longest, f.now-o.since)
		o.since = -1
		f.without--
	}
	switch {
	case g.Kind == HTTP1New:
		f.later(f.exp(g.Takes), doClose, at)
	case !f.replicas[l.replica].telling:
	case g.Kind == HTTP1: // The response to its first request tells it.
		f.move(l, closing)
		f.later(f.exp(g.Takes), doClose, at)
	default: // It came to its server while the drain tells the others.
		f.tell(at, false)
	}
	if l.state == open && g.Age > 0 {
		due := f.now + f.age(g.Clients)
		if g.Kind != WebSocket && g.Kind != GRPC { // These have timers of their own.
			due = f.nextSweep(due)
		}
		f.later(due-f.now, doAge, at)
	}
}

// nextSweep returns the moment of the first sweep at or behind t.
func (f *fleet) nextSweep(t time.Duration) time.Duration {
	return (t + f.Sweep - 1) / f.Sweep * f.Sweep
}

// refused is an attempt that failed, as the client will know in so long.
func (f *fleet) refused(at uint32, known time.Duration) {
	l, g := &f.links[at], f.group(at)
	if !g.Direct || f.owners[l.owner].open == 0 { // Others of the channel serve.
		f.result.Refused++
	}
	f.wants(at)
	f.move(l, resting)
	l.replica = none
	l.failed = uint8(min(int(l.failed)+1, math.MaxUint8))
	wait := known
	switch {
	case g.Kind != WebSocket && g.Kind != GRPC:
		wait += f.exp(g.Every) // That request has failed. The next one makes the next attempt.
	case g.Backoff.FromStart:
		wait = max(wait, l.started+g.Backoff.Delay(f.rand, int(l.failed))-f.now)
	default:
		wait += g.Backoff.Delay(f.rand, int(l.failed))
	}
	f.later(wait, doConnect, at)
}

// release takes the connection of a link off its replica's books.
func (f *fleet) release(l *link) {
	if l.replica == none || l.state == resting || l.state == trying {
		return
	}
	r := f.replicas[l.replica]
	l.replica = none
	r.conns--
}

// comeBack has the client of a link whose connection has ended open the next one.
func (f *fleet) comeBack(at uint32) {
	l, g := &f.links[at], f.group(at)
	f.move(l, resting)
	l.replica = none
	wait := f.RTT / 2 // until the client knows
	switch g.Kind {
	case WebSocket:
		f.wants(at)
		wait += g.Backoff.Delay(f.rand, 0)
	case GRPC:
		f.wants(at)
	default:
		wait += f.exp(g.Every)
	}
	f.later(wait, doConnect, at)
}

// tell has a replica tell a client to leave: in a drain, or because of its age.
func (f *fleet) tell(at uint32, aged bool) {
	l, g := &f.links[at], f.group(at)
	where := int(l.replica)
	switch g.Kind {
	case WebSocket:
		f.release(l)
		f.comeBack(at)
		f.emptied(where)
	case GRPC, HTTP2:
		// What is in flight ends on the old connection, and what is new has another one.
		leaves, cut := f.leaves(g)
		f.after(leaves-f.now, doLeft, uint32(where), f.replicas[where].life)
		f.replicas[where].leaving++
		if cut {
			f.result.Cut++
		}
		f.comeBack(at)
	case HTTP1:
		f.tellHTTP1(at, aged)
	case HTTP1New:
	}
}

// leaves returns when an HTTP/2 connection that is told now has ended, and whether the
// sweep cuts what is in flight then.
func (f *fleet) leaves(g *group) (at time.Duration, cut bool) {
	idle := f.now + f.RTT/2
	for range f.poisson(float64(g.Takes) / float64(max(1, g.Every))) {
		idle = max(idle, f.now+f.exp(g.Takes))
	}
	due := moments.Cut(f.now, g.Grace)
	told := moments.Told{Patience: moments.GoAwayPatience}
	// Sweeps while streams are open, and before they are cut, find nothing to do.
	from := idle
	if due != 0 {
		from = min(idle, due)
	}
	for sweep := f.nextSweep(from); ; sweep += f.Sweep {
		told.Ago = sweep - f.now
		told.Answered, told.Idle, told.Over = told.Ago >= f.RTT, sweep >= idle, due != 0 && sweep > due
		told.Stays = told.Final && told.Idle // It was idle at the sweep before, too.
		switch told.Next() {
		case moments.End:
			if idle <= sweep && !g.Lingers {
				return idle, false
			}
			return sweep, idle > sweep
		case moments.LastStream:
			told.Final = true
		case moments.Wait:
		}
	}
}

// poisson returns a number of a Poisson distribution: of calls that are in flight.
func (f *fleet) poisson(mean float64) int {
	if mean > 50 { // Its normal approximation is good enough for that many.
		return max(0, int(math.Round(mean+math.Sqrt(mean)*f.rand.NormFloat64())))
	}
	n, p, least := 0, f.rand.Float64(), math.Exp(-mean)
	for ; p > least; n++ {
		p *= f.rand.Float64()
	}
	return n
}

// tellHTTP1 tells the client of an HTTP/1.1 connection: by the response that is under way,
// by the end of a connection that is idle, or by the next response if it is fresh.
func (f *fleet) tellHTTP1(at uint32, aged bool) {
	l, g := &f.links[at], f.group(at)
	r := f.replicas[l.replica]
	fresh, patience := moments.Fresh(f.Drain.Spread), r.spreadEnd-f.now
	if aged && !r.telling {
		fresh, patience = moments.FreshTime, f.nextSweep(f.now+1)-f.now
	}
	if patience <= 0 {
		fresh = 0
	}
	busy := float64(g.Takes) / float64(max(1, g.Every+g.Takes))
	f.move(l, closing)
	switch {
	case f.rand.Float64() < busy:
		f.later(f.exp(g.Takes), doClose, at)
	case f.exp(g.Every) < fresh: // That long ago its last response was over.
		f.later(min(f.exp(g.Every), patience), doClose, at)
	default:
		if f.exp(g.Every) < f.RTT/2 {
			f.result.Retried++ // The next request is on its way already.
		}
		f.closed(at)
	}
}

// closed is the end of an HTTP/1.1 connection.
func (f *fleet) closed(at uint32) {
	l, g := &f.links[at], f.group(at)
	where := int(l.replica)
	f.release(l)
	if g.Kind == HTTP1New {
		f.move(l, resting)
		f.later(f.exp(g.Every), doConnect, at)
	} else {
		f.comeBack(at)
	}
	f.emptied(where)
}
