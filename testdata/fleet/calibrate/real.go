package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// play runs a scenario with real processes.
func (sc *scenario) play(ctx context.Context, binary string) (_ outcome, err error) {
	dir, err := os.MkdirTemp("", "muxserve-calibrate-")
	if err != nil {
		return outcome{}, fmt.Errorf("calibrate: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var servers []*server
	defer func() { err = errors.Join(err, closeAll(servers)) }()
	for i := range sc.servers {
		s, err := newServer(binary, fmt.Sprintf("muxserve%d", i), sc.flags()...)
		if err != nil {
			return outcome{}, err
		}
		servers = append(servers, s)
		if err := s.start(ctx); err != nil {
			return outcome{}, err
		}
	}
	h, err := startHAProxy(ctx, dir, sc.balancer, servers)
	if err != nil {
		return outcome{}, err
	}
	defer h.close()

	living, stop := context.WithCancel(ctx)
	defer stop()
	p := startClients(living, sc, h.bind.String())
	defer func() {
		stop()
		p.ended.Wait()
	}()
	books := startAccount(living, servers)
	p.count()
	stalls := watchStalls(living)
	for _, s := range servers[:sc.restarted] {
		if err := s.restart(ctx, h); err != nil {
			return outcome{}, err
		}
	}
	sleep(ctx, sc.settle)
	stop()
	p.ended.Wait()
	books.finish()
	o := p.outcome()
	o.accepted, o.acceptedPeak, o.stall = books.total()-sc.clients(), books.peak(), <-stalls
	return o, ctx.Err()
}

// closeAll closes the servers beside each other.
func closeAll(servers []*server) error {
	errs := make([]error, len(servers))
	var closing sync.WaitGroup
	for i, s := range servers {
		closing.Go(func() { errs[i] = s.close() })
	}
	closing.Wait()
	return errors.Join(errs...)
}

// restart has a server drain, starts it again and waits until the balancer uses it.
func (s *server) restart(ctx context.Context, h *haproxy) error {
	if err := s.drain(ctx); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	return h.waitUp(ctx, s)
}

// outcome returns what the clients have seen. They have ended.
func (p *population) outcome() outcome {
	return outcome{
		reconnects: len(p.reconnects), peak: busiest(p.reconnects, time.Second), refused: p.refused, cut: p.cut,
		operations: p.operations, failed: p.failed, longest: p.longest, faults: p.faults,
	}
}

// busiest returns how many moments fall into the busiest stretch of that length, wherever
// it begins.
func busiest(moments []time.Duration, stretch time.Duration) int {
	slices.Sort(moments)
	most, first := 0, 0
	for last, m := range moments {
		for m-moments[first] >= stretch {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// account is what the servers say of their connections, looked at all the time.
type account struct {
	servers []*server
	ended   chan struct{}
	looks   []look
}

type look struct {
	at    time.Time
	total int
}

// lookInterval is how often the servers are asked. It is short beside the time for which a
// draining server tells its clients.
const lookInterval = 250 * time.Millisecond

// startAccount asks the servers until ctx ends.
func startAccount(ctx context.Context, servers []*server) *account {
	a := &account{servers: servers, ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		for ok := true; ok; ok = sleep(ctx, lookInterval) {
			a.look(ctx)
		}
	}()
	return a
}

func (a *account) look(ctx context.Context) {
	total := 0
	for _, s := range a.servers {
		total += s.total(ctx)
	}
	a.looks = append(a.looks, look{time.Now(), total})
}

// finish asks a last time.
func (a *account) finish() {
	<-a.ended
	a.look(context.Background())
}

// total returns the connections of all servers together.
func (a *account) total() int { return a.looks[len(a.looks)-1].total }

// peak returns the connections a second in the busiest second, and a little.
func (a *account) peak() float64 {
	most, first := 0.0, 0
	for last, l := range a.looks {
		for first+1 < last && l.at.Sub(a.looks[first+1].at) >= time.Second {
			first++
		}
		if d := l.at.Sub(a.looks[first].at); d >= time.Second {
			most = max(most, float64(l.total-a.looks[first].total)/d.Seconds())
		}
	}
	return most
}

// watchStalls returns a channel that gets, when ctx has ended, the longest time for which
// the machine did not let this process run. Clients that wait for it come back together.
func watchStalls(ctx context.Context) <-chan time.Duration {
	longest := make(chan time.Duration, 1)
	go func() {
		const tick = 10 * time.Millisecond
		most := time.Duration(0)
		for before := time.Now(); sleep(ctx, tick); before = time.Now() {
			most = max(most, time.Since(before)-tick)
		}
		longest <- most
	}()
	return longest
}
