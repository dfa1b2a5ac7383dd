package mux

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// root is one listening socket and the cmux that divides what it accepts. To cmux it is
// a net.Listener, whose connections are all of type *conn.
type root struct {
	books      *books
	running    *running
	admission  *admission
	departures *departures

	backend     *backend
	endpoint    *endpoint
	listener    *listeners.Listener
	socket      net.Listener    // what listener wraps
	base        context.Context //nolint:containedctx // Of what comes from the socket; set by serveRoot.
	tlsConfig   *tls.Config     // nil: plaintext
	tlsOptional bool
	allow       allow
	watch       *sniff.Watch
	sniffs      atomic.Pointer[sniffs]

	failed bool // the socket failed, and is closed; guarded by the endpoint's mu

	// unsettled counts the connections that are accepted and neither dispatched nor closed.
	// Only accept adds to it.
	unsettled sync.WaitGroup
	// ending is closed when nothing more is accepted.
	ending chan struct{}
	// done is closed when nothing more comes out of this root.
	done chan struct{}
}

// sniffs is how connections are recognised: normal ones, and those that a limit keeps out.
// The server does not speak first to the latter, so that to an HTTP/2 client without a
// request the attempt to connect has failed.
type sniffs struct {
	normal, refused sniff.Config
	handshake       time.Duration // bounds a TLS handshake; 0 for no bound
}

// refusalPatience is how long a client that a limit keeps out has to send its first
// request, so that it can be answered.
const refusalPatience = 200 * time.Millisecond

// newRoot returns a root that takes l over, which is one of e's sockets.
func (t *topology) newRoot(b *backend, e *endpoint, l net.Listener) *root {
	r := &root{
		books:       t.books,
		running:     t.running,
		admission:   t.admission,
		departures:  t.departures,
		backend:     b,
		endpoint:    e,
		listener:    listeners.New(l, t.books.logger),
		socket:      l,
		tlsConfig:   e.tlsConfigFor(t.tlsConfig),
		tlsOptional: e.optional,
		allow:       e.allow,
		watch:       t.watch,
		ending:      make(chan struct{}),
		done:        make(chan struct{}),
	}
	r.configure(t.live.Load())
	return r
}

// configure puts the limits of c in force for the connections that come.
func (r *root) configure(c *Config) {
	normal := sniff.Config{
		Timeout:            c.Sniff.Timeout,
		SilentTimeout:      cmp.Or(r.backend.config.HTTP1.IdleTimeout, protocols.DefaultHTTP1Config().IdleTimeout),
		HeadTimeout:        c.HTTP1.HeaderTimeout,
		MaxBytes:           c.Sniff.MaxBytes,
		UndecidedTimeout:   r.backend.config.HTTP2.IdleTimeout,
		Settings:           r.backend.settings,
		SaysNative:         r.backend.saysNative,
		Transport:          r.allow.transport(r.backend.config.GRPC.Transport),
		Watch:              r.watch,
		CallsOnly:          !r.allow.http2,
		MaxResetsPerMinute: c.HTTP2.MaxResetsPerMinute,
		MaxStreams:         max(r.backend.config.HTTP2.MaxStreams, r.backend.config.GRPC.MaxStreams),
		MaxHeaderListBytes: r.backend.config.HTTP2.MaxHeaderListBytes,
	}
	refused := normal
	refused.Settings, refused.SilentTimeout = nil, 0
	refused.Patience = refusalPatience
	r.sniffs.Store(&sniffs{normal, refused, c.Sniff.TLSTimeout})
}

// accept returns the next connection. It holds back the error that ends the listener until
// every earlier connection is settled, because cmux drops connections after an error.
func (r *root) accept() (*conn, error) {
	for {
		raw, err := r.listener.Accept()
		if err != nil {
			err = fmt.Errorf("mux: %s: %w", r.listener.Addr(), err)
			r.end(err)
			r.unsettled.Wait()
			return nil, err
		}
		if c := r.admit(raw); c != nil {
			return c, nil
		}
	}
}

// end notes that nothing more is accepted, and why. It closes the socket, unless another
// endpoint has it by now: the kernel would go on taking clients for a socket that has failed.
// In a drain the caller of Serve, or muxserve, may close the socket, because another process
// accepts from it.
func (r *root) end(err error) {
	given := r.running.drainBegun.Load() && errors.Is(err, net.ErrClosed)
	if !given && !r.running.isStopping() && r.endpoint.fail(r, err) {
		r.books.logger.Error("listener failed", keyLocalAddr, r.listener.Addr().String(), keyErr, err)
	}
	_ = r.listener.Close()
	close(r.ending)
	r.endWaits()
}

// admit accounts for a connection. It returns nil for one that it had to close at once.
func (r *root) admit(raw net.Conn) *conn {
	c := &conn{root: r}
	c.refused = refusalOf(r.admission.add(c, raw))
	r.unsettled.Add(1)
	c.Init(&c.account)
	if socket, ok := raw.(tlsConn); ok {
		// The caller of Serve brought a TLS listener of its own.
		c.ensureLayers().tls = socket
	}
	if cutting := r.running.cutting.Load(); cutting || c.isCrowded() {
		c.decide(c.crowded())
		if cutting {
			c.account.SetCloseReason(reasonDrain)
		}
		_ = c.Close()
		return nil
	}
	return c
}

// endWaits ends the wait of the root's connections that are undecided, and shortens that of
// silent ones. For those that come to it later, prepare does.
func (r *root) endWaits() {
	for _, c := range r.books.all(func(c *conn) bool { return c.root == r && c.stage() <= stageOpen }) {
		c.EndWait()
	}
}

// waitRoots waits until nothing more comes out of the roots.
func waitRoots(ctx context.Context, roots []*root) error {
	for _, r := range roots {
		select {
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
