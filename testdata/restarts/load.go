package main

import (
	"context"
	"sync"
	"time"
)

// operationTime is the deadline of each request and message.
const operationTime = 10 * time.Second

// client is one kind of client. A load begins operations of it without waiting
// for those before.
type client interface {
	// begin begins operation n and returns at once. done is called when the
	// operation is over, which is within operationTime and a little.
	begin(ctx context.Context, n uint64, done func())
	// close ends the client's connections. No operation is under way.
	close()
}

// share is a kind of client and its weight in the mix.
type share struct {
	weight int
	client client
}

// wheel returns the clients in an order that spreads each of them evenly.
func wheel(shares []share) []client {
	total := 0
	for _, s := range shares {
		total += s.weight
	}
	// Smooth weighted round-robin: whoever is owed most goes next.
	owed := make([]int, len(shares))
	var order []client
	for range total {
		next := 0
		for i, s := range shares {
			owed[i] += s.weight
			if owed[i] > owed[next] {
				next = i
			}
		}
		owed[next] -= total
		order = append(order, shares[next].client)
	}
	return order
}

// load is an open loop: operations begin when their time has come, whether or
// not those before are over.
type load struct {
	ctx     context.Context
	cancel  context.CancelFunc
	clients []share
	stopped chan struct{} // closed when no operation begins any more
	stop    chan struct{}
	flight  sync.WaitGroup
}

// startLoad begins rate operations a second, and goes on until finish.
func startLoad(ctx context.Context, rate int, clients []share) *load {
	l := &load{clients: clients, stopped: make(chan struct{}), stop: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(ctx)
	go l.run(rate)
	return l
}

func (l *load) run(rate int) {
	defer close(l.stopped)
	order := wheel(l.clients)
	started := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := uint64(0); ; n++ {
		// The time is that of the plan, so that a late start does not thin the load out.
		at := started.Add(time.Duration(n) * time.Second / time.Duration(rate))
		timer.Reset(time.Until(at))
		select {
		case <-timer.C:
		case <-l.stop:
			return
		case <-l.ctx.Done():
			return
		}
		l.flight.Add(1)
		order[n%uint64(len(order))].begin(l.ctx, n, l.flight.Done)
	}
}

// finish begins no more operations, waits for those that are under way, and
// closes the clients.
func (l *load) finish() {
	close(l.stop)
	<-l.stopped
	l.flight.Wait()
	for _, s := range l.clients {
		s.client.close()
	}
	l.cancel()
}
