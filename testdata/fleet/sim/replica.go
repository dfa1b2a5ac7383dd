package sim

import (
	"slices"
	"time"

	"github.com/muxserve/muxserve/protocols/moments"
)

// replica is one muxserve process after the other at one address.
type replica struct {
	life      uint32 // Events of an earlier process are void.
	alive     bool
	silent    bool // Its host answers nothing.
	ready     bool // /readyz
	accepting bool
	telling   bool // The drain tells clients, or has told them.
	ended     bool // The process ends as soon as the drain's times allow it.
	conns     int  // that the process holds
	leaving   int  // those among them that their clients use no more
	busy      time.Duration
	load      window
	began     time.Duration // of the drain
	spreadEnd time.Duration
	seen      []seen // by each view
	roll      *roll  // that waits for it
	restarts  bool
}

// roll is a rolling restart under way.
type roll struct {
	Roll

	at, next, running, over int
}

func (f *fleet) addReplica() {
	r := &replica{seen: make([]seen, len(f.views))}
	f.replicas = append(f.replicas, r)
	at := len(f.replicas) - 1
	r.open(f.now)
	for v := range r.seen {
		if f.Balancer.Interval > 0 {
			r.seen[v].phase = time.Duration(f.rand.Int64N(int64(f.Balancer.Interval)))
		}
		r.seen[v].want = true
		f.mark(at, v, true)
	}
}

// open has a new process serve.
func (r *replica) open(now time.Duration) {
	r.alive, r.silent, r.ready, r.accepting, r.telling, r.ended = true, false, true, true, false, false
	r.busy, r.restarts = now, false
}

func (f *fleet) doReplica(e *entry) {
	at := int(e.who)
	r := f.replicas[at]
	switch e.what {
	case doLeft:
		r.conns--
		r.leaving--
		f.emptied(at)
	case doStop:
		f.stop(at)
	case doEndSpread:
		f.emptied(at)
	case doForce:
		f.force(at)
	case doEnd:
		f.end(at)
	case doStart:
		r.open(f.now)
		f.changed(at, true)
		f.rolled(at)
	}
}

// begin begins a rolling restart.
func (f *fleet) begin(r Roll) {
	if r.Replicas == 0 {
		r.Replicas = len(f.replicas)
	}
	r.AtOnce = max(1, r.AtOnce)
	f.waiting++
	f.rolls = append(f.rolls, &roll{Roll: r, at: len(f.rolls)})
	f.roll(f.rolls[len(f.rolls)-1])
}

// roll drains the next replicas.
func (f *fleet) roll(r *roll) {
	for r.running < r.AtOnce && r.next < r.Replicas {
		f.replicas[r.next].roll = r
		f.replicas[r.next].restarts = true
		f.drain(r.next)
		r.next++
		r.running++
	}
}

// rolled has the rolling restart go on if every view sees a restarted replica up.
func (f *fleet) rolled(at int) {
	p := f.replicas[at]
	r := p.roll
	if r == nil || !p.ready || slices.ContainsFunc(p.seen, func(s seen) bool { return !s.up }) {
		return
	}
	p.roll = nil
	r.running--
	r.over++
	if r.over == r.Replicas {
		f.waiting--
		return
	}
	f.after(r.Pause, doRoll, uint32(r.at), 0)
}

// drain begins a drain, in the order of the steps of package lifecycle.
func (f *fleet) drain(at int) {
	r := f.replicas[at]
	f.draining++
	r.began, r.ready = f.now, false
	f.changed(at, false)
	f.after(f.Drain.Timeout, doForce, uint32(at), r.life)
	if f.Drain.AcceptDuringDelay {
		f.after(f.Drain.Delay, doStop, uint32(at), r.life)
	} else {
		f.stop(at)
	}
}

// stop is the step stop-accepting.
func (f *fleet) stop(at int) {
	r := f.replicas[at]
	r.accepting, r.telling = false, true
	left := min(f.Drain.StepTimeout+f.Drain.Spread, r.began+f.Drain.Timeout-f.now)
	over := moments.Within(f.Drain.Spread, left)
	r.spreadEnd = f.now + over
	var told []uint32
	for i := range f.links {
		if l := &f.links[i]; int(l.replica) == at && l.state == open && f.groups[l.group].Kind != HTTP1New {
			told = append(told, uint32(i))
		}
	}
	for i, moment := range moments.Spread(f.rand, len(told), over) {
		if f.Uniform {
			moment = time.Duration(f.rand.Float64() * float64(over))
		}
		f.later(moment, doTell, told[i])
	}
	f.after(over, doEndSpread, uint32(at), r.life)
	f.emptied(at)
}

// emptied has a draining process end if it holds no connection any more.
func (f *fleet) emptied(at int) {
	r := f.replicas[at]
	if !r.telling || r.ended || r.conns > 0 || !r.alive {
		return
	}
	r.ended = true
	wait := time.Duration(0)
	if !f.Drain.AcceptDuringDelay {
		wait = min(r.spreadEnd, f.now) + f.Drain.Delay - f.now // The delay comes behind the spread.
	}
	f.after(wait, doEnd, uint32(at), r.life)
}

// force cuts every connection at the drain's timeout.
func (f *fleet) force(at int) {
	f.result.Cut += f.replicas[at].leaving
	f.cut(at, none)
	f.end(at)
}

// cut ends the connections of a replica without a word: those through a view, or all.
func (f *fleet) cut(at, through int) {
	for i := range f.links {
		l := &f.links[i]
		if int(l.replica) != at || through != none && int(l.view) != through || f.groups[l.group].Direct && through != none {
			continue
		}
		switch l.state {
		case resting, trying:
		case connecting:
			f.release(l)
			f.refused(uint32(i), f.RTT/2)
		case open, closing:
			f.result.Cut++
			f.release(l)
			f.comeBack(uint32(i))
		case lost:
			f.comeBack(uint32(i))
		}
	}
}

// end is the end of a process behind its drain.
func (f *fleet) end(at int) {
	r := f.replicas[at]
	f.result.Drain = max(f.result.Drain, f.now-r.began)
	f.draining--
	f.gone(at)
	if r.restarts {
		f.after(f.StartTime, doStart, uint32(at), r.life)
	}
}

// gone takes a process off the books.
func (f *fleet) gone(at int) {
	r := f.replicas[at]
	r.life++
	r.alive, r.ready, r.accepting, r.telling, r.ended = false, false, false, false, false
	r.conns, r.leaving = 0, 0
}

// kill ends a replica without a drain.
func (f *fleet) kill(k *Kill) {
	r := f.replicas[k.Replica]
	if !k.Silent {
		f.result.Cut += r.leaving
		f.cut(k.Replica, none)
		f.killed(k.Replica)
		f.changed(k.Replica, false)
		if k.Restarts {
			f.after(f.StartTime, doStart, uint32(k.Replica), r.life)
		}
		return
	}
	f.killed(k.Replica)
	r.silent = true
	f.fallSilent(k.Replica)
	f.changed(k.Replica, false)
}

// killed takes a process off the books that may have been draining.
func (f *fleet) killed(at int) {
	if r := f.replicas[at]; r.alive && !r.ready {
		f.draining--
	}
	f.gone(at)
}

// tcpGivesUp is when Linux gives up a connection whose peer acknowledges nothing
// (tcp_retries2 15).
const tcpGivesUp = 924 * time.Second

// fallSilent has the clients of a replica be without service. They notice later.
func (f *fleet) fallSilent(at int) {
	for i := range f.links {
		l := &f.links[i]
		if int(l.replica) != at {
			continue
		}
		g := &f.groups[l.group]
		switch l.state {
		case connecting:
			f.move(l, trying) // Its doServe is void.
			f.later(g.Timeout, doTimeout, uint32(i))
			l.replica = none
		case open, closing:
			f.result.Cut++
			f.move(l, lost)
			f.wants(uint32(i))
			notices := tcpGivesUp
			if g.PingTimeout > 0 {
				notices = time.Duration(f.rand.Float64()*float64(g.PingEvery)) + g.PingTimeout
			}
			f.later(notices, doNotice, uint32(i))
		case resting, trying, lost:
		}
	}
}
