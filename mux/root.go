package mux

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// root is one listening socket and the cmux that divides what it accepts. To cmux it is
// a net.Listener, whose connections are all of type *conn.
type root struct {
	server      *Server
	backend     *backend
	endpoint    *endpoint
	listener    *listeners.Listener
	tlsConfig   *tls.Config // nil: plaintext
	tlsOptional bool
	allow       allow
	sniffs      atomic.Pointer[sniffs]

	// unsettled counts the connections that were accepted and neither
	// dispatched nor closed yet. Accept alone adds to it.
	unsettled sync.WaitGroup
	// ending is set when nothing more is accepted.
	ending atomic.Bool
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
		OnFlood:            r.server.departures.flooded,
	}
	refused := normal
	refused.Settings = nil
	refused.Patience = refusalPatience
	r.sniffs.Store(&sniffs{normal, refused})
}

// accept returns the next connection. It holds back the error that ends the listener until
// every earlier connection is settled, because cmux drops connections after an error.
func (r *root) accept() (*conn, error) {
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
func (r *root) admit(raw net.Conn) *conn {
	s := r.server
	c := &conn{root: r}
	c.refused = refusalOf(s.add(c, raw))
	r.unsettled.Add(1)
	c.Init(&c.account)
	if socket, ok := raw.(*tls.Conn); ok {
		// The caller of Serve brought a TLS listener of its own.
		c.rare().tls = socket
	}
	if cutting := s.cutting.Load(); cutting || c.refused != notRefused && s.tooManyRefusals() {
		c.decide(protocols.Verdict{Failure: c.refused.String(), Reason: "too many connections"})
		if cutting {
			c.account.SetCloseReason(reasonDrain)
		}
		_ = c.Close()
		return nil
	}
	return c
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

// serve divides the root's connections until the root ends. It returns when all of them
// are with their servers or closed.
func (r *root) serve() error {
	defer close(r.done)
	err := fmt.Errorf("mux: %s: %w", r.listener.Addr(), r.divide())
	if !r.server.isClosing() && !r.endpoint.isReplaced() {
		r.server.logger.Error("listener failed", keyLocalAddr, r.listener.Addr().String(), keyErr, err)
	}
	return err
}
