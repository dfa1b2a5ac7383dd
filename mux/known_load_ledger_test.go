package mux_test

import (
	"math"
	"net"
	"slices"
	"sync"
	"time"
)

// interval bounds the moment of an event that the test cannot see: it came after one time
// and before the other.
type interval struct{ after, before time.Time }

// booked is a number of events that the server books one by one. Each comes after one of
// the first times, and before one of the second times, which may still be to come.
type booked struct{ after, before []time.Time }

// bounds returns how many events the server may have booked in the seconds from and
// later, before the second to. Seconds are numbered from began.
func (b booked) bounds(began interval, from, to int) (least, most float64) {
	count := func(times []time.Time, began time.Time, second int) (n float64) {
		end := began.Add(time.Duration(second) * time.Second)
		for _, at := range times {
			if at.Before(end) {
				n++
			}
		}
		return n
	}
	leastBefore := func(second int) float64 { return count(b.before, began.after, second) }
	mostBefore := func(second int) float64 { return count(b.after, began.before, second) }
	return leastBefore(to) - mostBefore(from), mostBefore(to) - leastBefore(from)
}

// ledger is the measure of the handlers and the clients of one protocol. The server's
// clock starts before the handler's and stops after it. The client's clock is around
// both.
type ledger struct {
	mu              sync.Mutex // guards what follows
	ends            booked
	handled, waited []time.Duration
	failed          uint64
}

// handle is the work of request i, and reports whether it fails. It books the time that
// it took, because a sleep is too long on a busy machine.
func (l *ledger) handle(i int) (failed bool) {
	started := time.Now()
	time.Sleep(loadSleep(i))
	failed = loadFails(i)
	l.mu.Lock()
	defer l.mu.Unlock()
	if failed {
		l.failed++
	}
	now := time.Now()
	l.ends.after = append(l.ends.after, now)
	l.handled = append(l.handled, now.Sub(started))
	return failed
}

// generate calls ask with the number of each request at its time, without a wait for
// earlier requests. It returns when all are over.
func (l *ledger) generate(ask func(i int)) {
	timed := func(i int) {
		started := time.Now()
		ask(i)
		now := time.Now()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ends.before = append(l.ends.before, now)
		l.waited = append(l.waited, now.Sub(started))
	}
	var wg sync.WaitGroup
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	started := time.Now()
	for asked := 0; asked < loadRequests; {
		<-tick.C
		// The loop makes up for a tick that a busy machine has missed.
		due := min(int(time.Since(started)/loadInterval), loadRequests)
		for i := asked; i < due; i++ {
			wg.Go(func() { timed(i) })
		}
		asked = max(asked, due)
	}
	wg.Wait()
}

// bounds is booked.bounds of the requests' ends.
func (l *ledger) bounds(began interval, from, to int) (least, most float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ends.bounds(began, from, to)
}

// quantile returns the durations that the share p of all requests did not exceed, by the
// handlers' clock and by the clients'.
func (l *ledger) quantile(p float64) (handled, waited float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := func(durations []time.Duration) float64 {
		sorted := slices.Sorted(slices.Values(durations))
		return sorted[int(math.Ceil(p*float64(len(sorted))))-1].Seconds()
	}
	return of(l.handled), of(l.waited)
}

// acceptLedger is a listener that books its accepts. The server has counted a connection
// before it asks for the next one.
type acceptLedger struct {
	net.Listener

	mu    sync.Mutex // guards what follows
	asked bool
	conns booked
}

// Accept implements [net.Listener].
func (l *acceptLedger) Accept() (net.Conn, error) {
	l.mu.Lock()
	if l.asked {
		l.conns.before = append(l.conns.before, time.Now())
	}
	l.asked = true
	l.mu.Unlock()
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns.after = append(l.conns.after, time.Now())
	}
	return conn, err
}

// bounds is booked.bounds of the connections.
func (l *acceptLedger) bounds(began interval, from, to int) (least, most float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns.bounds(began, from, to)
}
