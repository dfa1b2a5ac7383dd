package mux

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
)

// change is what a reload does to listeners and servers, once nothing can fail any more.
type change struct {
	backend   *backend
	endpoints []*endpoint // the configured ones, as they will be
	begin     []*endpoint // of those, the ones that are new
	opened    []*endpoint // of those, the ones for which sockets were opened or kept
	handOver  []handOver  // the ones whose sockets are served another way, brought ones included
	end       []*endpoint // the ones that are no longer wanted
}

// handOver is an endpoint whose first sockets are served another way.
type handOver struct {
	*endpoint

	sockets int
}

// prepare opens what a change to c and b needs. After an error nothing is left open.
func (t *topology) prepare(c *Config, b *backend) (*change, error) {
	ch := &change{backend: b}
	left := t.configured()
	rebuild := b != t.backend.Load()
	for _, want := range t.wanted(c) {
		i := slices.IndexFunc(left, func(e *endpoint) bool { return e.config.Address == want.Address })
		var e *endpoint
		var err error
		switch {
		case i < 0:
			if e, err = t.open(want); err == nil {
				ch.opened = append(ch.opened, e)
			}
		case !rebuild && sameListener(left[i].config, want):
			ch.endpoints = append(ch.endpoints, left[i])
			left = slices.Delete(left, i, i+1)
			continue
		default:
			old := left[i]
			left = slices.Delete(left, i, i+1)
			if err = old.canHandOver(); err == nil {
				if e, err = t.open(want, old.bare(max(1, want.ReusePort))...); err == nil {
					ch.opened = append(ch.opened, e)
					ch.handOver = append(ch.handOver, handOver{old, e.kept})
				}
			}
		}
		if err != nil {
			_ = closeEndpoints(ch.opened)
			return nil, err
		}
		ch.endpoints = append(ch.endpoints, e)
		ch.begin = append(ch.begin, e)
	}
	ch.end = append(ch.end, left...)
	if rebuild {
		for _, old := range t.brought() {
			if err := old.canHandOver(); err != nil {
				_ = closeEndpoints(ch.opened)
				return nil, err
			}
			ch.handOver = append(ch.handOver, handOver{old, len(old.sockets)})
		}
	}
	return ch, nil
}

// sameListener reports whether a listener need not be touched.
func sameListener(a, b listeners.Config) bool {
	p := new(planner)
	p.compareListeners([]listeners.Config{a}, []listeners.Config{b})
	return len(p.changes) == 0
}

// renew reads the certificates of the endpoints that stay, and returns one function for
// each endpoint whose certificate changes.
func (ch *change) renew() (use []func(), err error) {
	for _, e := range ch.endpoints {
		if e.tls == nil {
			continue
		}
		if !slices.Contains(ch.begin, e) {
			swap, eerr := e.tls.Prepare()
			if eerr != nil {
				err = errors.Join(err, fmt.Errorf("mux: listener %s: %w", e.Addr(), eerr))
			} else if swap != nil {
				use = append(use, swap)
			}
			continue
		}
		for _, old := range ch.handOver {
			if old.config.Address == e.config.Address && old.tls != nil && !old.tls.Certificate().Equal(e.tls.Certificate()) {
				use = append(use, func() {}) // open has read it.
			}
		}
	}
	return use, err
}

// apply makes the change. Nothing of it can fail.
func (t *topology) apply(c *Config, ch *change) {
	if ch.backend != t.backend.Load() {
		t.use(ch.backend)
	}
	t.mu.Lock()
	roots := slices.Clone(t.roots)
	t.endpoints = ch.endpoints
	t.mu.Unlock()
	for _, r := range roots {
		r.configure(c)
	}
	var retired []*root
	for _, e := range ch.end {
		retired = append(retired, e.replace()...)
	}
	retired = append(retired, t.replaceLocal()...)
	// A socket that stays queues connections in the kernel meanwhile. Where the address
	// changes, the new one is served first.
	begin := ch.begin
	for _, e := range ch.handOver {
		retired = append(retired, e.replace()...)
		if e.brought {
			begin = append(begin, e.successor())
		}
		e.handOver(e.sockets)
	}
	t.serve(begin...)
	for _, e := range ch.end {
		e.stop()
	}
	t.announceChange()
	t.running.background.run(func() { t.retire(retired, c.Drain.Spread) })
}

// retire has the clients of roots that accept no more leave, each at a moment of the
// spread, and waits until they have. Then it closes the backends that are not used any
// more.
func (t *topology) retire(roots []*root, over time.Duration) {
	if len(roots) == 0 {
		return
	}
	serving := t.running.serving
	_ = waitRoots(serving, roots)
	leaving := t.books.all(func(c *conn) bool { return slices.Contains(roots, c.root) })
	spread(serving, slices.Clone(leaving), over, func(c *conn) { t.departures.leave(c, reasonReload, 0) })
	isClosed := func(c *conn) bool { return c.account.State() == pool.StateClosing }
	tick := time.NewTicker(retireInterval)
	defer tick.Stop()
	for leaving = slices.DeleteFunc(leaving, isClosed); len(leaving) > 0; leaving = slices.DeleteFunc(leaving, isClosed) {
		select {
		case <-tick.C:
		case <-serving.Done():
			return // The end of the server closes the rest.
		}
	}
	t.forget(roots)
}

// retireInterval is how often retire looks whether the connections are gone.
const retireInterval = 100 * time.Millisecond
