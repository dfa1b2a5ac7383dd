package mux

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// root is one listening socket and, once one is needed, the cmux that divides what it accepts. To
// cmux it is a net.Listener, whose connections are all of type *conn.
type root struct {
	server      *Server
	backend     *backend
	endpoint    *endpoint
	listener    *listeners.Listener
	tlsConfig   *tls.Config // nil: plaintext
	tlsOptional bool
	allow       allow
	sniffs      atomic.Pointer[sniffs]

	// queue is where cmux gets its connections from, where an HTTP/1.1 server has had the first look at them; see express.go.
	queue     chan *conn
	queueEnd  chan struct{} // closed when nothing more comes by it
	queueOnce sync.Once
	failure   error    // why; set before queueEnd is closed
	first     net.Conn // that goes through cmux, until cmux has it
	forecast  forecast
	looking   atomic.Int32 // looks that are under way

	// unsettled counts the connections that were accepted and neither
	// dispatched nor closed yet. Accept alone adds to it.
	unsettled sync.WaitGroup
	// ending is set when nothing more is accepted.
	ending     atomic.Bool
	departures sync.Mutex // guards flagLeaving of all connections, and the deadline that belongs to it
	// done is closed when nothing more comes out of this root.
	done chan struct{}
}

// sniffs is how connections are recognised. The refused ones are those that a limit keeps out: nothing is written
// to one that does not say at once what it wants, so that to its client the attempt to connect has failed.
type sniffs struct{ normal, refused protocols.SniffConfig }

// refusalPatience is how long a client that is kept out has to show its first request, so that it can be answered.
const refusalPatience = 200 * time.Millisecond

// newRoot returns a root that takes l over, which is one of e's sockets.
func newRoot(s *Server, b *backend, e *endpoint, l net.Listener) *root {
	r := &root{
		server:      s,
		backend:     b,
		endpoint:    e,
		listener:    listeners.New(l, s.logger),
		tlsConfig:   s.tlsConfigOf(e),
		tlsOptional: e.optional,
		allow:       e.allow,
		done:        make(chan struct{}),
	}
	r.configure(s.live.Load())
	return r
}

// configure puts the limits of c in force for the connections that come.
func (r *root) configure(c *Config) {
	normal := protocols.SniffConfig{
		Timeout:            c.Sniff.Timeout,
		MaxBytes:           c.Sniff.MaxBytes,
		UndecidedTimeout:   r.backend.config.HTTP2.IdleTimeout,
		Settings:           r.backend.settings,
		Transport:          r.allow.transport(r.backend.config.GRPC.Transport),
		MaxResetsPerMinute: c.HTTP2.MaxResetsPerMinute,
		OnFlood:            r.server.flooded,
	}
	refused := normal
	refused.Settings = nil
	refused.Patience = refusalPatience
	r.sniffs.Store(&sniffs{normal, refused})
}

// Accept implements [net.Listener] for cmux.
func (r *root) Accept() (net.Conn, error) {
	if c := r.first; c != nil {
		r.first = nil
		return c, nil
	}
	return r.next()
}

// next returns the next connection that goes through cmux.
func (r *root) next() (net.Conn, error) {
	if r.queue == nil {
		c, err := r.accept()
		if err != nil {
			return nil, err
		}
		return &c.conn, nil
	}
	select {
	case c := <-r.queue:
		return c, nil
	case <-r.queueEnd:
		return nil, r.failure
	}
}

// accept returns the next connection. Its error, which ends cmux, is held
// back until every connection that came before it is settled: cmux would drop them.
func (r *root) accept() (*expressConn, error) {
	for {
		raw, err := r.listener.Accept()
		if err != nil {
			r.ending.Store(true)
			r.server.endWaits(r)
			r.unsettled.Wait()
			return nil, err
		}
		if c := r.admit(raw); c != nil {
			return c, nil
		}
	}
}

// admit accounts for a connection. It returns nil for one that it had to close at once.
func (r *root) admit(raw net.Conn) *expressConn {
	s := r.server
	express := &expressConn{conn{root: r}}
	c := &express.conn
	c.refused = refusalOf(s.add(c, raw))
	r.unsettled.Add(1)
	c.Init(&c.account)
	switch socket := raw.(type) {
	case *net.TCPConn, *net.UnixConn:
		_ = c.identify() // There is no header.
	case *tls.Conn:
		// The caller of Serve brought a TLS listener of its own.
		c.rare().tls = socket
	}
	if s.cutting.Load() || c.refused != notRefused && s.tooManyRefusals() {
		c.decide(protocols.Verdict{Failure: c.refused.String(), Reason: "too many connections"})
		if s.cutting.Load() {
			c.set(flagCut)
		}
		_ = c.Close()
		return nil
	}
	return express
}

// add accounts for a connection. Where the server is told to wait at the limit, it waits for room first, and so does
// what comes behind c in the kernel's queue. When the server stops, what is queued is taken in all the same.
func (s *Server) add(c *conn, raw net.Conn) (refuse string) {
	if s.live.Load().Limits.OnLimit == pool.Wait {
		s.admission.Lock()
		defer s.admission.Unlock()
		_ = s.conns.WaitRoom(s.accepting)
	}
	return s.conns.Add(&c.account, raw, c)
}

// Close implements [net.Listener]. It is cmux's to call, and cmux does not own the root.
func (r *root) Close() error { return nil }

// Addr implements [net.Listener].
func (r *root) Addr() net.Addr { return r.listener.Addr() }

// serve divides the root's connections until the root ends. It returns when all
// of them are with the servers or closed.
func (r *root) serve() error {
	defer close(r.done)
	s := r.server
	var wg sync.WaitGroup
	if r.hasExpress() {
		r.queue, r.queueEnd = make(chan *conn), make(chan struct{})
		wg.Go(func() { r.endQueue(r.backend.http1.Serve(&expressListener{r})) })
	}
	// A cmux has channels of 16 KB for each server, and most listeners never need one: they have nothing but HTTP/1.1, or
	// nothing at all. So it is made when the first connection has come that goes through it.
	var err error
	if r.first, err = r.next(); err == nil {
		err = r.divide(&wg)
	}
	wg.Wait()
	err = fmt.Errorf("mux: %s: %w", r.Addr(), err)
	if !s.isClosing() && !r.endpoint.isReplaced() {
		s.logger.Error("listener failed", keyLocalAddr, r.Addr().String(), keyErr, err)
	}
	return err
}

// divide has cmux divide the connections among the servers, which it runs in wg. It returns why there are no more.
func (r *root) divide(wg *sync.WaitGroup) error {
	m := cmux.New(r)
	attach := func(tag protocols.Protocol, serve func(net.Listener) error) {
		l := &subListener{root: r, tag: pool.Tag(tag), inner: m.MatchWithWriters(isProtocol(tag))}
		wg.Go(func() {
			err := serve(l)
			r.server.logger.Debug("server left its listener", keyProtocol, string(tag), keyLocalAddr, r.Addr().String(), keyErr, err)
			l.refuse()
		})
	}
	attachCustoms := func(after bool) {
		for _, custom := range r.server.customs(after) {
			l := &subListener{root: r, tag: pool.Tag(custom.name), inner: m.MatchWithWriters(custom.match)}
			wg.Go(func() { custom.pump(l) })
		}
	}
	attachCustoms(false)
	attach(protocols.HTTP1, r.backend.http1.Serve)
	attach(protocols.WebSocket, r.backend.webSockets.Serve)
	attach(protocols.GRPC, r.backend.grpc.Native.Serve)
	attach(protocols.HTTP2, func(l net.Listener) error { return protocols.ServeHTTP2(r.backend.http2, l) })
	attachCustoms(true)
	return m.Serve()
}

// isProtocol is the cmux matcher of one of the built-in protocols. As its writer cmux hands it
// the very connection that the root has accepted, so the first matcher asked
// recognises it, and the others compare.
func isProtocol(p protocols.Protocol) cmux.MatchWriter {
	return func(w io.Writer, _ io.Reader) bool {
		c, ok := w.(*conn)
		return ok && c.classify() == p
	}
}

// subListener gives a server the connections of one tag. It is detached: closing
// it closes neither the root nor its siblings, and it ends with the root.
type subListener struct {
	root  *root
	tag   pool.Tag
	inner net.Listener // cmux's
}

// Accept implements [net.Listener]. It takes our connection out of cmux's
// wrapper, which has read nothing and would only hide sendfile.
func (l *subListener) Accept() (net.Conn, error) {
	for {
		wrapped, err := l.inner.Accept()
		if err != nil {
			return nil, fmt.Errorf("mux: %s: %w", l.tag, net.ErrClosed)
		}
		mc, ok := wrapped.(*cmux.MuxConn)
		if !ok {
			return nil, fmt.Errorf("mux: cmux delivered a %T", wrapped)
		}
		c, ok := mc.Conn.(*conn)
		if !ok {
			return nil, fmt.Errorf("mux: cmux wrapped a %T", mc.Conn)
		}
		if l.root.server.dispatch(c, l.tag) {
			return c, nil
		}
	}
}

// refuse closes what still comes. A server that was shut down before it was given its listener takes nothing from it.
func (l *subListener) refuse() {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// Close implements [net.Listener] and does nothing.
func (l *subListener) Close() error { return nil }

// Addr implements [net.Listener].
func (l *subListener) Addr() net.Addr { return l.root.Addr() }
