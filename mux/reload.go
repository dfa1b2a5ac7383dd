package mux

import (
	"errors"
	"slices"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
)

// The errors of [Server.Reload] that do not come from the configuration.
var (
	// ErrReloading says that another change is being made at the moment.
	ErrReloading = errors.New("mux: another change of the configuration is under way")
	// ErrNotServing says that the server has not begun to serve, or does not any more.
	ErrNotServing = errors.New("mux: the server is not serving")
)

// Config returns the configuration in force. It must not be changed.
func (s *Server) Config() Config { return s.live.Load().clone() }

// Plan returns what Reload would change, or every fault of the configuration.
func (s *Server) Plan(c Config) (Plan, error) {
	if err := c.Validate(); err != nil {
		return Plan{}, err
	}
	return planOf(s.live.Load(), &c), nil
}

// OnReload registers a check that is asked before each change of the configuration. Where one
// returns an error, or panics, nothing is changed. The configurations must not be changed by it.
func (s *Server) OnReload(name string, check func(from, to Config) error) {
	s.reloads.mu.Lock()
	defer s.reloads.mu.Unlock()
	s.reloads.checks = append(s.reloads.checks, reloadCheck{name, check})
}

// Reload puts another configuration in force while the server runs: whole, or not at all. origin
// says who wanted it, for [Server.History].
//
// Keys that are ApplyRuntime take effect at once. The others are applied without refusing a
// connection or cutting one: addresses that are new are bound first; an address that stays keeps its socket,
// and other protocol servers take its new connections. Then the clients of what is replaced are told to leave, over
// Drain.Spread, as they are at a drain, and take the time they need. An address that is no longer there is
// released once what its kernel queue holds has been accepted.
//
// When it fails, nothing has changed, and the error says why: [ErrReloading], [ErrNotServing], every fault of the
// configuration, an address that cannot be bound, a certificate that is no good, a check that refused.
// Listeners that were brought by [Server.Serve] keep their socket, too. Certificates' files are not read
// again unless their listener changes; see [Server.ReloadCertificates].
func (s *Server) Reload(c Config, origin string) (Version, error) {
	return s.reload(c.clone(), origin)
}

func (s *Server) reload(c Config, origin string) (Version, error) {
	if !s.reloads.busy.TryLock() {
		return Version{}, ErrReloading
	}
	defer s.reloads.busy.Unlock()
	v := Version{Time: time.Now(), Origin: origin, config: c}
	plan, err := s.change(&c)
	v.Changes = plan.Changes
	switch {
	case err != nil:
		v.Outcome, v.Err = OutcomeFailed, err.Error()
	case len(plan.Changes) == 0:
		v.Outcome = OutcomeUnchanged
	default:
		v.Outcome = OutcomeApplied
	}
	return s.reloads.add(v), err
}

// change puts c in force, or fails without having changed anything.
func (s *Server) change(c *Config) (Plan, error) {
	plan, err := s.Plan(*c)
	if err != nil || len(plan.Changes) == 0 {
		return plan, err
	}
	if !s.isServing() {
		return plan, ErrNotServing
	}
	if err := s.reloads.check(s.live.Load(), c); err != nil {
		return plan, err
	}
	next := s.backend.Load()
	if plan.needsBackend() {
		if next, err = s.newBackend(c); err != nil {
			return plan, err
		}
	}
	change, err := s.prepare(c, next)
	if err != nil {
		if next != s.backend.Load() {
			next.close()
		}
		return plan, err
	}
	s.apply(c, change)
	return plan, nil
}

func (s *Server) isServing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started && !s.closing
}

// change is what a reload does to listeners and servers, with all that could fail behind it.
type change struct {
	backend   *backend
	endpoints []*endpoint // the configured ones, as they will be
	begin     []*endpoint // of those, the ones that are new
	opened    []*endpoint // of those, the ones for which sockets were opened or kept
	handOver  []handOver  // the ones whose sockets are served another way, the brought ones included
	end       []*endpoint // the ones that are no longer wanted
}

// handOver is an endpoint whose first sockets are served another way.
type handOver struct {
	*endpoint

	sockets int
}

// prepare opens what is new. When it fails it closes that again.
func (s *Server) prepare(c *Config, b *backend) (*change, error) {
	ch := &change{backend: b}
	left := s.configured()
	rebuild := b != s.backend.Load()
	for _, want := range c.Listeners {
		i := slices.IndexFunc(left, func(e *endpoint) bool { return e.config.Address == want.Address })
		var e *endpoint
		var err error
		switch {
		case i < 0:
			if e, err = s.open(want); err == nil {
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
				if e, err = s.open(want, old.bare(max(1, want.ReusePort))...); err == nil {
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
		for _, old := range s.brought() {
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

// apply makes the change. Nothing of it can fail.
func (s *Server) apply(c *Config, ch *change) {
	s.live.Store(c)
	s.SetLimits(c.limits())
	s.conns.SetHealthConfig(c.Health)
	_ = s.machine.Configure(c.Drain) // It fails where a drain has begun, which has its own already.
	s.webSockets.Configure(c.WebSocket)
	if ch.backend != s.backend.Load() {
		s.use(ch.backend)
	}
	s.mu.Lock()
	roots := slices.Clone(s.roots)
	s.endpoints = ch.endpoints
	s.mu.Unlock()
	for _, r := range roots {
		r.configure(c)
	}
	var retired []*root
	for _, e := range ch.end {
		retired = append(retired, e.replace()...)
	}
	// Where a socket stays, the kernel queues who comes in between. Where it does not, the new one is served first.
	begin := ch.begin
	for _, e := range ch.handOver {
		retired = append(retired, e.replace()...)
		if e.brought {
			begin = append(begin, e.successor())
		}
		e.handOver(e.sockets)
	}
	s.serveEndpoints(begin...)
	for _, e := range ch.end {
		e.stop()
	}
	s.announceChange()
	s.background.run(func() { s.retire(retired, c.Drain.Spread) })
}

// retire has the clients of roots that accept no more leave, each at a moment of the spread, and
// waits until they have. Then it closes the backends that nobody uses any more.
func (s *Server) retire(roots []*root, spread time.Duration) {
	if len(roots) == 0 {
		return
	}
	_ = waitRoots(s.serving, roots)
	theirs := func(c *conn) bool { return slices.Contains(roots, c.root) }
	var leaving []*conn
	for _, a := range s.conns.Conns() {
		if c, ok := a.Owner().(*conn); ok && theirs(c) {
			leaving = append(leaving, c)
		}
	}
	for i, c := range leaving {
		at := moment(i, len(leaving), spread)
		c.set(flagNoGrace)
		c.ends.Store(int64(sinceStart() + at)) // The sweep tells it then, as one that has reached its age.
	}
	tick := time.NewTicker(retireInterval)
	defer tick.Stop()
	for slices.ContainsFunc(leaving, func(c *conn) bool { return c.account.State() != pool.StateClosing }) {
		select {
		case <-tick.C:
		case <-s.serving.Done():
			return // The end of the server closes the rest.
		}
		leaving = slices.DeleteFunc(leaving, func(c *conn) bool { return c.account.State() == pool.StateClosing })
	}
	s.forgetRoots(roots)
}

// retireInterval is how often it is looked whether the connections of what was replaced are gone.
const retireInterval = 100 * time.Millisecond

// forgetRoots drops roots that have no connections any more, and the backends that only they used.
func (s *Server) forgetRoots(roots []*root) {
	s.mu.Lock()
	s.roots = slices.DeleteFunc(s.roots, func(r *root) bool { return slices.Contains(roots, r) })
	used := make(map[*backend]bool)
	for _, r := range s.roots {
		used[r.backend] = true
	}
	var unused []*backend
	for _, b := range s.backends {
		if !used[b] && b != s.backend.Load() {
			unused = append(unused, b)
		}
	}
	s.mu.Unlock()
	for _, b := range unused {
		s.drop(b)
	}
}

// brought returns the endpoints that callers of Serve have brought and that are being served.
func (s *Server) brought() []*endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var brought []*endpoint
	for _, r := range s.roots {
		if e := r.endpoint; e.brought && !e.isReplaced() && !slices.Contains(brought, e) {
			brought = append(brought, e)
		}
	}
	return brought
}

// clone returns a copy that shares nothing which is changed.
func (c Config) clone() Config {
	c.Listeners = slices.Clone(c.Listeners)
	for i := range c.Listeners {
		l := &c.Listeners[i]
		l.Protocols = slices.Clone(l.Protocols)
		l.ProxyProtocol.Trusted = slices.Clone(l.ProxyProtocol.Trusted)
		l.TLS.CipherSuites = slices.Clone(l.TLS.CipherSuites)
	}
	c.Drain.SkipSteps = slices.Clone(c.Drain.SkipSteps)
	c.WebSocket.OriginPatterns = slices.Clone(c.WebSocket.OriginPatterns)
	return c
}
