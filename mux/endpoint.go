package mux

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/muxserve/muxserve/listeners"
)

// endpoint is an address that the server listens on: its sockets, how they are served, and
// the roots that serve them. A reload replaces an endpoint by another, which may have the
// same sockets.
type endpoint struct {
	config   listeners.Config // the zero one where brought; written with changing and mu held
	brought  bool             // by a caller of Serve
	local    bool             // of in-process connections
	sockets  []net.Listener
	opening  *listeners.Opening // of the sockets; nil where brought
	tls      *listeners.TLS     // nil: plaintext, or WithTLS
	optional bool
	allow    allow

	mu         sync.Mutex  // guards what follows, and config
	handshakes *tls.Config // see tlsConfigFor; nil before it is needed
	roots      []*root
	left       int // roots that have not ended
	err        error
	// replaced is set when another endpoint serves the address, or none is to. next is the
	// successor of a brought endpoint.
	replaced bool
	next     *endpoint

	first *endpoint // of a chain of successors; nil: this one
}

// newEndpoint returns the endpoint of a configured listener, whose certificates it reads.
// It has no sockets until [topology.open] has opened them.
func newEndpoint(c listeners.Config) (*endpoint, error) {
	e := &endpoint{config: c, optional: c.TLS.Optional, allow: allowOf(c.Protocols)}
	if c.TLS.Enabled() {
		var err error
		if e.tls, err = listeners.NewTLS(c.TLS); err != nil {
			return nil, fmt.Errorf("mux: listener %s: %w", c.Address, err)
		}
	}
	return e, nil
}

// abandon closes all sockets of an endpoint that was not served, because the server is
// closing.
func (e *endpoint) abandon() {
	closeSockets(e.sockets)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.left = 0
}

func closeSockets(sockets []net.Listener) {
	for _, l := range sockets {
		_ = l.Close()
	}
}

// bare returns the sockets without the layers of their connections.
func (e *endpoint) bare() []net.Listener {
	var bare []net.Listener
	for _, l := range e.sockets {
		bare = append(bare, listeners.Unwrap(l))
	}
	return bare
}

// Addr returns the address of the first socket; all have the same.
func (e *endpoint) Addr() net.Addr { return e.sockets[0].Addr() }

// shown returns how the endpoint is configured at the moment, for people.
func (e *endpoint) shown() listeners.Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.config.Shown()
}

// end reports whether the endpoint serves no more, and why.
func (e *endpoint) end() (ended bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next != nil { // Where e has failed meanwhile, that is why the next one does.
		ended, err = e.next.end()
		return ended, errors.Join(e.err, err)
	}
	return e.roots != nil && e.left == 0, e.err
}

// successor returns an endpoint that goes on serving the sockets of a brought one.
func (e *endpoint) successor() *endpoint {
	next := &endpoint{brought: true, sockets: e.sockets, tls: e.tls, optional: e.optional, allow: e.allow, first: cmp.Or(e.first, e)}
	for _, before := range []*endpoint{e, next.first} { // Serve has the first one, and so none between.
		before.mu.Lock()
		before.next = next
		before.mu.Unlock()
	}
	return next
}

// replace marks the endpoint as replaced, and returns its roots.
func (e *endpoint) replace() []*root {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.replaced = true
	return slices.Clone(e.roots)
}

// handOver stops accepting. It leaves the sockets to the next endpoint, with what the kernel
// has queued.
func (e *endpoint) handOver() {
	for _, r := range e.replace() {
		// canHandOver has checked it. A listener that has failed fails for its successor.
		_, _ = r.listener.Detach()
	}
}

// canHandOver returns an error where handOver is not possible.
func (e *endpoint) canHandOver() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.roots {
		if err := r.listener.CanDetach(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("mux: listener %s cannot go on under another configuration: %w", e.Addr(), err)
		}
	}
	return nil
}

// stop accepts what the kernel has queued, and closes the sockets: at once where the
// endpoint was not served. Another endpoint may have their addresses by now.
func (e *endpoint) stop() {
	roots := e.replace()
	if len(roots) == 0 {
		closeSockets(e.sockets)
	}
	for _, r := range roots {
		r.listener.Release()
	}
}

func (e *endpoint) isReplaced() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.replaced
}

// fail notes that the socket of one of the roots has failed, and why. It reports false where
// that matters no more, because the endpoint was replaced.
func (e *endpoint) fail(r *root, err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.replaced {
		return false
	}
	r.failed = true
	e.err = errors.Join(e.err, err)
	return true
}

// hasFailed reports whether all sockets have failed, and are closed.
func (e *endpoint) hasFailed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.roots) > 0 && !slices.ContainsFunc(e.roots, func(r *root) bool { return !r.failed })
}

// isListening reports whether the endpoint has its address: it neither failed nor was replaced.
func (e *endpoint) isListening() bool { return !e.isReplaced() && !e.hasFailed() }

// ended notes that one of the roots has ended.
func (e *endpoint) ended() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.left--
}

// undoEndpoints closes what open has opened, and has kept sockets be as they were.
func undoEndpoints(endpoints []*endpoint) error {
	var err error
	for _, e := range slices.Backward(endpoints) {
		err = errors.Join(err, e.opening.Undo())
	}
	return err
}

// tlsConfigFor returns the configuration of the endpoint's handshakes, or nil for
// plaintext. common is that of endpoints without a configuration of their own. ALPN offers
// no more than the endpoint serves. The sockets of an endpoint share the configuration, and
// with it the session ticket keys: a client does not choose its socket. The caller holds mu.
func (e *endpoint) tlsConfigFor(common *tls.Config) *tls.Config {
	if !e.local && e.handshakes == nil {
		e.handshakes = e.newTLSConfig(common)
	}
	return e.handshakes
}

func (e *endpoint) newTLSConfig(common *tls.Config) *tls.Config {
	switch {
	case e.tls != nil:
		return e.tls.Config(e.allow.nextProtos([]string{alpnHTTP2, alpnHTTP1})...)
	case common != nil && e.allow != allowAll:
		c := common.Clone()
		c.NextProtos = e.allow.nextProtos(c.NextProtos)
		return c
	default:
		return common
	}
}
