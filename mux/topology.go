package mux

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// topology is what a server listens on and serves by: endpoints, the roots of their
// sockets, the backends that the roots' connections go to, and custom protocols. All
// methods may be called concurrently.
type topology struct {
	books      *books
	running    *running
	admission  *admission
	departures *departures
	live       *reloader
	contexts   *contexts
	openSocket func(context.Context, string) (net.Listener, error)
	tlsConfig  *tls.Config  // of listeners whose configuration has none; nil for plaintext
	watch      *sniff.Watch // over HTTP/2 connections

	// backend is the servers that new connections go to; a reload replaces it.
	backend atomic.Pointer[backend]

	// opening is held by Listen and by a reload, which open addresses and may take long, and
	// changing by a reload and where endpoints begin to be served: each comes after another.
	// They are locked in this order, and mu behind them.
	opening, changing sync.Mutex

	// mu guards what follows.
	mu             sync.Mutex
	started        bool // the server has begun to serve
	listens        bool // ListenAndServe was called
	served         bool // ListenAndServe serves the configured endpoints; set with changing held
	custom         []*custom
	local          *local        // of in-process connections; nil before the first
	endpoints      []*endpoint   // the configured ones, in the configuration's order
	roots          []*root       // of all endpoints, those that are being replaced included
	backends       []*backend    // all that are not closed, the last one being in use
	backendsClosed bool          // backends that come are closed at once
	changed        chan struct{} // closed when an endpoint has ended or was replaced
}

// isServing reports whether the server has begun to serve, and does not drain.
func (t *topology) isServing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.started && !t.running.drainBegun.Load()
}

// noteDrain notes that the drain begins: no listener is added any more. Those that are there
// accept until stop. It reports whether there are any.
func (t *topology) noteDrain() (served bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running.drainBegun.Store(true)
	t.wakeWaiters()
	return slices.ContainsFunc(t.roots, func(r *root) bool { return !r.endpoint.local })
}

// start notes that the server begins to serve.
func (t *topology) start() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.started = true
}

// beginListening notes that ListenAndServe is called. It reports false where it was before,
// and the server is not closing.
func (t *topology) beginListening() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.listens
	t.listens = true
	return first || t.running.drainBegun.Load()
}

// giveUpListening notes that ListenAndServe has failed, and may be called again.
func (t *topology) giveUpListening() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listens = false
}

// closeUnserved closes the configured endpoints if ListenAndServe does not serve them.
func (t *topology) closeUnserved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.served {
		return
	}
	for _, e := range t.endpoints {
		e.abandon()
	}
	if !t.running.drainBegun.Load() {
		t.endpoints = nil // They may be opened again.
	}
}

// configured returns the endpoints of the configuration, those that have failed included.
func (t *topology) configured() []*endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.endpoints)
}

// brought returns the endpoints that callers of Serve have brought and that no other one has
// replaced, those that have failed included.
func (t *topology) brought() []*endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	var brought []*endpoint
	for _, r := range t.roots {
		if e := r.endpoint; e.brought && !e.isReplaced() && !slices.Contains(brought, e) {
			brought = append(brought, e)
		}
	}
	return brought
}

// addresses returns the addresses that serve a protocol.
func (t *topology) addresses(p protocols.Protocol) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var addresses []string
	for _, r := range t.roots {
		if address := r.listener.Addr().String(); r.allow.serves(p) && !r.endpoint.local && r.endpoint.isListening() && !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// firstAddr returns the first address that is served, or else open, or else configured.
func (t *topology) firstAddr() net.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.roots {
		if !r.endpoint.local && r.endpoint.isListening() {
			return r.listener.Addr()
		}
	}
	if len(t.endpoints) > 0 {
		return t.endpoints[0].Addr()
	}
	if configured := t.live.Load().Listeners; len(configured) > 0 {
		return addrOf(configured[0].Address)
	}
	return listenAddr("")
}

// wanted returns the configured listeners as they are to be opened, or none where the
// server serves only listeners that callers of Serve have brought.
func (t *topology) wanted(c *Config) []listeners.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.endpoints == nil {
		return nil
	}
	return listeners.Arrange(c.Listeners)
}

// listen opens every configured listener, or none: after a failure it closes those that it
// has opened. It reports false, and opens nothing, where they are open.
func (t *topology) listen() (first bool, err error) {
	t.opening.Lock()
	defer t.opening.Unlock()
	switch {
	case t.running.drainBegun.Load():
		return false, ErrServerClosed // Whether the addresses are free does not matter.
	case t.isOpen():
		return false, nil
	}
	var opened []*endpoint
	undo := func(err error) (bool, error) {
		return false, errors.Join(err, undoEndpoints(opened))
	}
	endpoints := []*endpoint{} // nil says that nothing is configured.
	for _, c := range listeners.Arrange(t.live.Load().Listeners) {
		e, err := newEndpoint(c)
		if err != nil {
			return false, err
		}
		endpoints = append(endpoints, e)
	}
	for _, e := range bySockets(endpoints) {
		if err := t.open(context.Background(), e, listeners.Config{}); err != nil {
			return undo(err)
		}
		opened = append(opened, e)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running.drainBegun.Load() {
		return undo(ErrServerClosed)
	}
	for _, e := range opened {
		e.opening.Commit()
	}
	t.endpoints = endpoints
	return true, nil
}

// bySockets returns endpoints in the order in which they are opened: those last that have
// several sockets, each of which gets connections from now on. Of an upgrade, the process
// before accepts from those that it has passed alone.
func bySockets(endpoints []*endpoint) []*endpoint {
	return slices.SortedStableFunc(slices.Values(endpoints), func(a, b *endpoint) int {
		return cmp.Compare(a.config.ReusePort, b.config.ReusePort)
	})
}

// isOpen reports whether the configured listeners are open.
func (t *topology) isOpen() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.endpoints != nil
}

// open opens the sockets of a configured endpoint. Bare sockets of its address that are
// open, as was says, may be passed in keep. They are used first, and are as they were
// after an error. The caller commits or undoes e.opening.
func (t *topology) open(ctx context.Context, e *endpoint, was listeners.Config, keep ...net.Listener) (err error) {
	if e.opening, err = e.config.Reopen(ctx, t.openSocket, was, keep...); err != nil {
		return fmt.Errorf("mux: %w", err)
	}
	e.sockets = e.opening.Listeners
	return nil
}

// serve serves an endpoint that a caller of Serve has brought. Where the server is closing,
// it closes the endpoint and reports false.
func (t *topology) serve(e *endpoint) bool {
	t.changing.Lock()
	defer t.changing.Unlock()
	return t.beginUnlessClosing(e)
}

// serveConfigured is serve for the configured endpoints. From now on, reloads serve what
// they put in their place.
func (t *topology) serveConfigured() bool {
	t.changing.Lock()
	defer t.changing.Unlock()
	t.mu.Lock()
	t.served = true
	endpoints := slices.Clone(t.endpoints)
	t.mu.Unlock()
	return t.beginUnlessClosing(endpoints...)
}

func (t *topology) beginUnlessClosing(endpoints ...*endpoint) bool {
	if t.running.drainBegun.Load() {
		t.abandon(endpoints)
		return false
	}
	return t.begin(endpoints...)
}

// begin begins to serve endpoints by the backend in use, each of them once. Where the drain
// has ended accepting, it closes them and reports false; before that, a drain still lets
// connections in. The caller holds changing.
func (t *topology) begin(endpoints ...*endpoint) bool {
	b := t.backend.Load()
	var roots []*root
	for _, e := range endpoints {
		e.mu.Lock()
		for i := range e.sockets {
			e.roots = append(e.roots, t.newRoot(b, e, e.sockets[i]))
		}
		e.left = len(e.roots)
		roots = append(roots, e.roots...)
		e.mu.Unlock()
	}
	t.mu.Lock()
	stopping := t.running.isStopping() // If not, stop will find them.
	if !stopping {
		t.roots = append(t.roots, roots...)
	}
	t.mu.Unlock()
	if stopping {
		t.abandon(endpoints)
		return false
	}
	for _, r := range roots {
		go t.serveRoot(r)
	}
	return true
}

// abandon closes endpoints that are not served.
func (t *topology) abandon(endpoints []*endpoint) {
	for _, e := range endpoints {
		e.abandon()
	}
	t.announceChange()
}

// serveRoot serves a root until it ends, and notes that.
func (t *topology) serveRoot(r *root) {
	r.base = t.contexts.of(r.socket) // The embedder's function may call the server: no lock is held.
	r.divide(t.customs(false), t.customs(true))
	close(r.done)
	r.endpoint.ended()
	if !r.endpoint.isReplaced() && t.hasFailed() {
		t.finishCustoms()
	}
	t.announceChange()
}

// hasFailed reports whether every listener has failed. Then no custom protocol gets another
// connection. Where a reload replaces a listener, another one comes, and where Listen has
// opened some, ListenAndServe.
func (t *topology) hasFailed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.running.drainBegun.Load() && (t.served || t.endpoints == nil) && !slices.ContainsFunc(t.roots, func(r *root) bool { return !isDone(r.done) || r.endpoint.isReplaced() })
}

// isDone reports whether a channel is closed.
func isDone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// announceChange wakes the callers of waitServed.
func (t *topology) announceChange() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wakeWaiters()
}

// wakeWaiters is announceChange for a caller that holds mu.
func (t *topology) wakeWaiters() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// waitServed waits until none of the endpoints is served any more, and returns why. It
// reports true where that is because the server closes. Where there are none, a reload may
// bring some.
func (t *topology) waitServed(which func() []*endpoint) (closing bool, err error) {
	for {
		t.mu.Lock()
		changed, closing := t.changed, t.running.drainBegun.Load()
		t.mu.Unlock()
		var err error
		endpoints := which()
		open := len(endpoints) == 0 && !closing
		for _, e := range endpoints {
			ended, eerr := e.end()
			open = open || !ended
			err = errors.Join(err, eerr)
		}
		if !open {
			return closing || t.running.drainBegun.Load(), err
		}
		<-changed
	}
}

// stop ends accepting: the listeners take in what the kernel has queued, and close. It
// returns the roots that were serving. In-process connections are still made.
func (t *topology) stop() []*root {
	t.running.stopAccepting()
	t.closeUnserved()
	t.mu.Lock()
	roots := slices.DeleteFunc(slices.Clone(t.roots), func(r *root) bool { return r.endpoint.local })
	t.mu.Unlock()
	for _, r := range roots {
		r.listener.Stop()
	}
	return roots
}

// use has new connections go to b. Where the backends were closed, b is closed as well.
func (t *topology) use(b *backend) {
	t.mu.Lock()
	t.backends = append(t.backends, b)
	closed := t.backendsClosed
	t.mu.Unlock()
	t.backend.Store(b)
	if closed {
		b.close()
		return
	}
	t.running.background.run(func() { _ = b.refuser.Serve(b.toRefuse) })
}

// allBackends returns the backends that are not closed.
func (t *topology) allBackends() []*backend {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.backends)
}

// closeBackends closes the protocols' servers at once.
func (t *topology) closeBackends() {
	t.mu.Lock()
	t.backendsClosed = true
	t.mu.Unlock()
	for _, b := range t.allBackends() {
		b.close()
	}
}

// forget drops roots that have no connections any more, and the backends that only they
// used.
func (t *topology) forget(roots []*root) {
	t.mu.Lock()
	t.roots = slices.DeleteFunc(t.roots, func(r *root) bool { return slices.Contains(roots, r) })
	isUsed := func(b *backend) bool {
		return b == t.backend.Load() || slices.ContainsFunc(t.roots, func(r *root) bool { return r.backend == b })
	}
	var unused []*backend
	for _, b := range t.backends {
		if !isUsed(b) {
			unused = append(unused, b)
		}
	}
	t.backends = slices.DeleteFunc(t.backends, func(b *backend) bool { return slices.Contains(unused, b) })
	t.mu.Unlock()
	for _, b := range unused {
		b.close()
	}
}
