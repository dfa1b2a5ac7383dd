package sim

import (
	"slices"
	"time"
)

// view is a part of the balancer that sees the replicas' health for itself.
type view struct {
	up   []int // the replicas that it chooses from, in order
	next int   // whose turn it is
}

// seen is what a view knows of a replica.
type seen struct {
	up       bool
	want     bool // what was noticed last; up follows behind the lag
	streak   int  // checks in a row that say otherwise
	phase    time.Duration
	checking bool // A check is queued. While nothing changes there is none.
}

// pick returns the replica for a new connection, not the one to avoid if there is another.
func (f *fleet) pick(through uint8, avoid int) int {
	v := &f.views[through]
	n := len(v.up)
	if n == 0 {
		return none
	}
	if f.Balancer.Policy == Random {
		v.next = f.rand.IntN(n)
	} else {
		v.next %= n
	}
	if v.up[v.next] == avoid {
		v.next = (v.next + 1) % n
	}
	at := v.next
	if f.Balancer.Policy == LeastConn {
		for i := range n { // Ties go round.
			c := (v.next + i) % n
			if v.up[c] != avoid && (f.replicas[v.up[c]].conns < f.replicas[v.up[at]].conns || v.up[at] == avoid) {
				at = c
			}
		}
	}
	v.next++
	return v.up[at]
}

// changed is called when a replica's readiness has changed.
func (f *fleet) changed(at int, ready bool) {
	r := f.replicas[at]
	for v := range r.seen {
		if f.Balancer.Push && !r.silent {
			f.lag(at, v, ready)
			continue
		}
		f.checkLater(at, v)
	}
}

// lag has a view act on what was noticed.
func (f *fleet) lag(at, v int, up bool) {
	f.replicas[at].seen[v].want = up
	d := f.Balancer.LagLeast
	if more := f.Balancer.LagMost - d; more > 0 {
		d += time.Duration(f.rand.Int64N(int64(more)))
	}
	arg := uint32(v) << 1
	if up {
		arg |= 1
	}
	f.after(d, doMark, uint32(at), arg)
}

// checkLater queues the view's next check of a replica.
func (f *fleet) checkLater(at, v int) {
	s := &f.replicas[at].seen[v]
	every := f.Balancer.Interval
	if s.checking || every <= 0 {
		return
	}
	s.checking = true
	n := (f.now - s.phase + every) / every // checks are at phase, phase+every, ...
	f.after(max(0, s.phase+n*every-f.now), doCheck, uint32(at), uint32(v))
}

// check asks a replica for its readiness.
func (f *fleet) check(at, v int) {
	r := f.replicas[at]
	s := &r.seen[v]
	s.checking = false
	good := r.alive && r.ready
	if good == s.up {
		s.streak = 0
		return // Nothing changes until the replica does.
	}
	most := f.Balancer.Fall
	if good {
		most = f.Balancer.Rise
	}
	if s.streak++; s.streak >= most {
		s.streak = 0
		f.lag(at, v, good)
		return
	}
	f.checkLater(at, v)
}

// mark has a view choose a replica, or choose it no more.
func (f *fleet) mark(at, through int, up bool) {
	r, v := f.replicas[at], &f.views[through]
	s := &r.seen[through]
	if s.up == up || s.want != up {
		return
	}
	s.up = up
	where, _ := slices.BinarySearch(v.up, at)
	if up {
		v.up = slices.Insert(v.up, where, at)
	} else {
		v.up = slices.Delete(v.up, where, where+1)
		if f.Balancer.CutsDown {
			f.cut(at, through)
			f.emptied(at)
		}
	}
	f.rolled(at)
	// It may have changed again meanwhile.
	if !f.Balancer.Push || r.silent {
		f.checkLater(at, through)
	}
}
