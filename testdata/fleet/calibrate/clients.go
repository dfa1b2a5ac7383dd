package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// operationTime is the deadline of each request, call and message. A message may be sent
// again on the next WebSocket meanwhile.
const operationTime = 10 * time.Second

// population is a number of clients of all kinds, and what became of them.
type population struct {
	address string
	sc      *scenario

	opening sync.WaitGroup // until each client has had its first answer
	ended   sync.WaitGroup

	mu         sync.Mutex
	begun      time.Time       // guarded by mu; since when they are counted
	reconnects []time.Duration // guarded by mu; since begun: connections that a server serves
	refused    int             // guarded by mu; connections that ended before a server said anything
	cut        int             // guarded by mu; those that ended later, without a word or with an operation in flight
	operations int             // guarded by mu
	failed     int             // guarded by mu; operations
	longest    time.Duration   // guarded by mu; the longest time that a client was without service
	faults     []string        // guarded by mu; the first of them
}

// client is one of a population.
type client struct {
	*population

	opened sync.Once
	// shut is set while its last connection was refused: until then its operations fail
	// for that reason.
	shut atomic.Bool
	// since is since when it wants a connection and has none; zero while it has one. The
	// population's mu guards it.
	since time.Time
}

// openTime is the time over which the clients connect at first.
const openTime = 4 * time.Second

// startClients starts the clients and returns when each has had an answer. They end when
// ctx does.
func startClients(ctx context.Context, sc *scenario, address string) *population {
	p := &population{address: address, sc: sc}
	start := func(n int, run func(*client, context.Context)) {
		for range n {
			c := &client{population: p}
			p.opening.Add(1)
			p.ended.Go(func() {
				defer c.opened.Do(p.opening.Done) // Where ctx has ended before.
				if sleep(ctx, rand.N(openTime)) {
					run(c, ctx)
				}
			})
		}
	}
	start(sc.webSockets, (*client).webSocket)
	start(sc.channels, (*client).channel)
	start(sc.keepAlives, (*client).keepAlive)
	p.opening.Wait()
	return p
}

// count has the connections and operations from now on counted.
func (p *population) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = time.Now()
}

// counted calls f with the lock while the clients are counted.
func (p *population) counted(f func(*population)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun.IsZero() {
		f(p)
	}
}

// faultf keeps what went wrong. The caller holds the lock.
func (p *population) faultf(format string, args ...any) {
	if len(p.faults) < maxFaults {
		p.faults = append(p.faults, fmt.Sprintf(format, args...))
	}
}

// maxFaults bounds how many faults are printed.
const maxFaults = 5

// sleep waits for d, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// dial connects to the balancer, which accepts before it has a server.
func (c *client) dial(ctx context.Context) (net.Conn, error) {
	c.wants()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	return &watched{Conn: nc, client: c}, nil
}

// wants notes that the client wants service now, and has none.
func (c *client) wants() {
	c.counted(func(*population) {
		if c.since.IsZero() {
			c.since = time.Now()
		}
	})
}

// hasService notes that a server serves the client again.
func (c *client) hasService() {
	c.shut.Store(false)
	c.counted(func(p *population) {
		p.reconnects = append(p.reconnects, time.Since(p.begun))
		p.longest = max(p.longest, time.Since(c.since))
		c.since = time.Time{}
	})
}

// watched is a connection of a client that sees whether a server serves it.
type watched struct {
	net.Conn

	client *client
	known  atomic.Bool // whether a server serves it
	closed atomic.Bool // by the client
}

// Read implements [net.Conn].
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 && !w.known.Swap(true) {
		w.client.hasService()
	}
	w.see(err)
	return n, err
}

// Write implements [net.Conn].
func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.see(err)
	return n, err
}

// see takes note of the end of a connection on which no server has said anything.
func (w *watched) see(err error) {
	if err == nil || w.closed.Load() || w.known.Swap(true) {
		return
	}
	w.client.shut.Store(true)
	w.client.counted(func(p *population) { p.refused++ })
}

// Close implements [net.Conn].
func (w *watched) Close() error {
	w.closed.Store(true)
	return w.Conn.Close()
}

// ask does one operation after the other until ctx ends. The time between two is
// exponential, as in the simulation.
func (c *client) ask(ctx context.Context, operation func(context.Context) error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, operationTime)
		err := operation(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			c.opened.Do(c.opening.Done)
		}
		c.counted(func(p *population) {
			p.operations++
			if err == nil {
				return
			}
			p.failed++
			if !c.shut.Load() {
				p.cut++
				p.faultf("%v", err)
			}
		})
		if !sleep(ctx, time.Duration(rand.ExpFloat64()*float64(c.sc.every))) {
			return
		}
	}
}

// keepAlive asks over one kept HTTP/1.1 connection of net/http's client.
func (c *client) keepAlive(ctx context.Context) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }}
	defer t.CloseIdleConnections()
	c.ask(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://fleet.test/livez", nil)
		if err != nil {
			return err
		}
		resp, err := t.RoundTrip(req)
		if err != nil {
			return err
		}
		return finish(resp)
	})
}

// channel makes calls over a channel of grpc-go. With round_robin it connects anew as soon
// as it has been told to leave, and not with the next call.
func (c *client) channel(ctx context.Context) {
	channel, err := grpc.NewClient("passthrough:///fleet.test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.dial(ctx) }))
	if err != nil {
		panic(err) // Its options are constant.
	}
	defer channel.Close()
	echo := demov1.NewEchoClient(channel)
	c.ask(ctx, func(ctx context.Context) error {
		_, err := echo.Unary(ctx, &demov1.EchoRequest{Message: "hello"})
		return err
	})
}

// finish reads a response to its end, so that its connection can be used again.
func finish(resp *http.Response) error {
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
