package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
	"github.com/muxserve/muxserve/mux"
)

const (
	// warmUp is how many cycles fill pools and caches before the count begins.
	warmUp = 2 * atOnce
	// atOnce is how many servers run at the same time, since each drain waits most of
	// the time: net/http gives a client a second to take note of its GOAWAY.
	atOnce = 20
	// objectsAllowed is how many more objects a cycle may leave on the heap. A timer, goroutine or
	// connection that is left behind is at least one, with all that hangs on it; what
	// the runtime keeps for reuse comes to a small part of one.
	objectsAllowed = 0.5
	// silentEvery is how often a connection is there that says nothing. A drain waits
	// for its first word as long as the sniff time, which is sniffCycle: a busy machine
	// may let more than a second pass between the dial and the first byte of the others.
	silentEvery = 50
	sniffCycle  = 5 * time.Second
	// spreadCycle is the spread of the drains, not zero so that its timers run.
	spreadCycle = 10 * time.Millisecond
)

// usage is what a process holds.
type usage struct {
	goroutines, files int
	// objects are those on the heap, which a timer that has not fired is one of.
	objects uint64
}

// measure returns what this process holds after a garbage collection.
func measure() (usage, error) {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return usage{}, fmt.Errorf("restarts: %w", err)
	}
	// The first collection runs finalizers, the second one empties the pools' victims.
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{runtime.NumGoroutine(), len(files), m.HeapObjects}, nil
}

// cycles starts and drains servers within this process, each with connections of
// every protocol, and wants nothing of them left.
func cycles(ctx context.Context, o *options) error {
	t := &tally{kind: "all in one"}
	if err := runCycles(ctx, t, warmUp); err != nil {
		return err
	}
	before, err := measure()
	if err != nil {
		return err
	}
	started := time.Now()
	if err := runCycles(ctx, t, o.cycles); err != nil {
		return err
	}
	took := time.Since(started)
	allowed := before.objects + uint64(objectsAllowed*float64(o.cycles)) + objectsNoise
	var after usage
	// The clients' goroutines end a moment after their connections.
	settled := eventually(ctx, "nothing is left", func() (bool, error) {
		after, err = measure()
		return after.goroutines <= before.goroutines && after.files <= before.files && after.objects <= allowed, err
	})
	err = tallies{t}.write(o.out, "cycles")
	fmt.Fprintf(o.out, "%d cycles in %v; goroutines %d before, %d after; descriptors %d, %d; heap objects %d, %d\n", o.cycles, took.Round(time.Millisecond),
		before.goroutines, after.goroutines, before.files, after.files, before.objects, after.objects)
	return errors.Join(err, settled)
}

// runCycles runs n cycles.
func runCycles(ctx context.Context, t *tally, n int) error {
	slots := make(chan struct{}, atOnce)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = cycle(ctx, t, i%silentEvery == 0)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// objectsNoise is by how much two counts of the heap's objects differ for no reason of ours.
const objectsNoise = 1000

// cycle starts a server, opens streams and connections of every protocol on it, and drains it.
func cycle(ctx context.Context, t *tally, silent bool) (err error) {
	s := mux.New(
		mux.WithHandler(demo.Routes(demo.Files{})), mux.WithGRPC(demo.RegisterGRPC), mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Drain.Delay, c.Drain.Spread = 0, spreadCycle
			c.Sniff.Timeout = sniffCycle
		}))
	if err := s.Listen(); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.ListenAndServe() }()
	address := s.Addrs()[0].String
	visits, err := visit(ctx, t, address, silent)
	defer func() { visits.close() }()
	if err != nil {
		return errors.Join(err, s.Close())
	}
	err = s.Shutdown(ctx)
	visits.streams.Wait()
	if serveErr := <-served; !errors.Is(serveErr, mux.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

// visitors are the clients of one cycle.
type visitors struct {
	streams sync.WaitGroup // those that are open, until they have been told to leave
	closers []func()
}

func (v *visitors) close() {
	for _, c := range v.closers {
		c()
	}
}

// visit makes one request of each kind and keeps the connections, and opens one
// stream of each kind, and a connection that says nothing if that is wanted.
func visit(ctx context.Context, t *tally, address func() string, silent bool) (*visitors, error) {
	v := new(visitors)
	unary, err := newCalls(t, 1, address)
	if err != nil {
		return v, err
	}
	var asked sync.WaitGroup
	for _, c := range []client{newRequests(t, keepAlive, 1, address), newRequests(t, newEach, 1, address), newRequests(t, h2c, 1, address), unary} {
		v.closers = append(v.closers, c.close)
		asked.Add(1)
		c.begin(ctx, 1, asked.Done)
	}
	asked.Wait()
	w := &webSockets{t: t, address: address}
	g := &links{t: t, address: address, connect: connectGRPC}
	h := &links{t: t, address: address, connect: connectHTTP}
	v.closers = append(v.closers, g.close, h.close)
	for _, open := range []func(context.Context) (session, error){
		func(ctx context.Context) (session, error) { return w.open(ctx, 0) }, g.open, h.open,
	} {
		if err := v.stream(ctx, t, open); err != nil {
			return v, err
		}
	}
	if !silent {
		return v, nil
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address())
	if err != nil {
		return v, err
	}
	v.closers = append(v.closers, func() { _ = c.Close() })
	return v, nil
}

// stream opens a session, exchanges a message, and leaves when it is told to.
func (v *visitors) stream(ctx context.Context, t *tally, open func(context.Context) (session, error)) error {
	s, err := open(ctx)
	if err != nil {
		return err
	}
	t.sent.Add(1)
	if err := exchange(s, 1); err != nil {
		s.close()
		return err
	}
	t.answered.Add(1)
	m := &messenger{t: t}
	v.streams.Go(func() {
		defer s.close()
		received := make(chan reception)
		go receiveAll(s, received)
		told := s.told()
		for {
			select {
			case <-told:
				told = nil
				s.leave()
			case r := <-received:
				m.account(s, r.err, false)
				return
			}
		}
	})
	return nil
}
