package mux

import (
	"errors"
	"fmt"
	"math/rand/v2"
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

// Plan returns the changes that Reload would make, or every fault of the configuration. It
// does not read certificates.
func (s *Server) Plan(c Config) ([]Change, error) { return s.live.plan(&c) }

// OnReload registers a function that takes part in every change of the configuration. It
// is called before anything changes, with the configuration in force and the next one,
// neither of which it may modify. Where it returns an error or panics, nothing changes.
// It may open what the next configuration needs, and says in a [ReloadPart] how that is
// put in force or given back.
//
// Keys of the caller's own travel in Config.Extra. Functions are called in the order of
// their registration, one change at a time, and must not call Reload.
func (s *Server) OnReload(prepare func(from, to Config) (ReloadPart, error)) {
	s.live.onReload(prepare)
}

// Reload puts another configuration in force while the server runs: whole, or not at all.
// origin names the caller in [Server.History].
//
// Keys that are ApplyRuntime take effect at once. The others are applied without refusing
// or cutting a connection. New addresses are bound first. An address that stays keeps its
// socket, also one that was passed to [Server.Serve], and new protocol servers take its
// new connections. The clients of what was replaced are told to leave over Drain.Spread,
// as at a drain, and take the time they need. An address that is not in c is released
// once the connections in its kernel queue have been accepted. Where neither Listen nor
// ListenAndServe was called, c.Listeners is not opened.
//
// The files of certificates, keys and ticket keys are read again. New handshakes use
// them; where they differ, that is a change with the path "certificates".
//
// Reload returns [ErrReloading], [ErrNotServing], every fault of the configuration, or
// the error of an address, a certificate or a function of [Server.OnReload]. Then nothing
// has changed. The first two are not recorded in the history.
func (s *Server) Reload(c Config, origin string) (Version, error) {
	return s.live.reload(origin, func(Config) (Config, error) { return c, nil })
}

// ReloadFunc is [Server.Reload] of the configuration that load returns. load is called
// with the configuration in force, and no other change comes in between. Its error is
// returned and recorded in the history.
func (s *Server) ReloadFunc(origin string, load func(Config) (Config, error)) (Version, error) {
	return s.live.reload(origin, load)
}

// Rollback is [Server.Reload] of the configuration of an earlier version. It fails for a
// number that is not in the history, and for a version that was never in force.
func (s *Server) Rollback(number int, origin string) (Version, error) {
	return s.live.rollback(number, origin)
}

// History returns the last versions of the configuration.
func (s *Server) History() History { return s.live.snapshot() }

// prepareReload opens what a change needs, and returns how to put it in force. It is the
// reloader's last part, so it is never undone.
func (s *Server) prepareReload(from, to Config) (ReloadPart, error) {
	changes := planOf(&from, &to)
	next, ch := s.backend.Load(), &change{endpoints: s.configured()}
	var err error
	if needsBackend(changes) {
		if next, err = s.newBackend(&to); err != nil {
			return ReloadPart{}, err
		}
	}
	abort := func(err error) (ReloadPart, error) {
		if next != s.backend.Load() {
			next.close()
		}
		return ReloadPart{}, err
	}
	if len(changes) > 0 {
		if ch, err = s.prepare(&to, next); err != nil {
			return abort(err)
		}
	}
	renewed, err := ch.renew()
	if err != nil {
		_ = closeEndpoints(ch.opened)
		return abort(err)
	}
	part := ReloadPart{Commit: func() {
		for _, use := range renewed {
			use()
		}
		if len(changes) > 0 {
			s.apply(&to, ch)
		}
	}}
	if len(renewed) > 0 {
		part.Changes = []Change{{
			Path: "certificates", Old: "the files as they were", New: "the files as they are", Apply: ApplyRuntime,
			How: "new handshakes meet what the files hold now",
		}}
	}
	return part, nil
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
	for _, want := range s.wanted(c) {
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

// wanted returns the configured listeners; none where the server serves only listeners that
// callers of Serve have brought.
func (s *Server) wanted(c *Config) []listeners.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endpoints == nil && !s.listens {
		return nil
	}
	return c.Listeners
}

// sameListener reports whether a listener need not be touched.
func sameListener(a, b listeners.Config) bool {
	p := new(planner)
	p.compareListeners([]listeners.Config{a}, []listeners.Config{b})
	return len(p.changes) == 0
}

// apply makes the change. Nothing of it can fail.
func (s *Server) apply(c *Config, ch *change) {
	s.setLimits(c.limits())
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
		at := time.Duration((float64(i) + rand.Float64()) / float64(len(leaving)) * float64(spread)) //nolint:gosec // A herd is spread, no secret is made.
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
