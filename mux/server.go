package mux

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// ErrServerClosed is returned by Serve and ListenAndServe after a shutdown.
// errors.Is finds [http.ErrServerClosed] in it.
var ErrServerClosed = fmt.Errorf("mux: %w", http.ErrServerClosed)

// Server serves several protocols on each of its listeners. Get one from [New].
// All methods may be called concurrently. A Server is used once: after Shutdown
// or Close it does not serve again.
type Server struct {
	// Set by New and its options, and not changed after that.
	config           Config
	logger           *slog.Logger
	accessLog        *slog.Logger // nil: none
	handler          http.Handler
	webSocketHandler http.Handler
	registerGRPC     func(GRPCRegistrar)
	grpcOptions      []grpc.ServerOption
	tlsConfig        *tls.Config
	healthPaths      bool
	listen           func(context.Context, string) (net.Listener, error)
	configErr        error

	machine    *lifecycle.Machine
	conns      pool.Set
	requests   requestStats
	sniffTimes pool.Durations                   // from the first wait for bytes to the verdict
	tlsTimes   pool.Durations                   // of handshakes that succeeded
	report     atomic.Pointer[lifecycle.Report] // of the drain, when it is over
	webSockets *protocols.WebSockets
	livez      http.Handler
	readyz     http.Handler

	// Set by start, before the first connection.
	startOnce sync.Once
	startErr  error
	sniff     protocols.SniffConfig
	http1     *http.Server
	webSocket *http.Server
	http2     *http.Server
	h2c       *protocols.H2CUpgrades // nil: no upgrades to HTTP/2
	grpc      *protocols.GRPCServers
	startedAt time.Time

	// accepting ends when nothing more is to be accepted, serving with the drain.
	accepting, serving        context.Context
	stopAccepted, stopServing context.CancelFunc
	// handing ends when custom listeners have had their time to take connections.
	handing     context.Context
	stopHanding context.CancelFunc
	notices     notices
	closed      closedBook
	// stopping is set at the same time, telling when clients are told to leave,
	// and cutting when every connection is to be closed.
	stopping, telling, cutting atomic.Bool
	background                 background
	// refusals is where HTTP/2 connections go that a limit keeps out.
	refusals *listeners.Sub
	refuser  *http.Server

	// mu guards what follows.
	mu      sync.Mutex
	started bool
	listens bool // ListenAndServe was called
	closing bool
	custom  []*custom
	bound   []boundListener
	roots   []*root
	forced  map[string]int
}

// boundListener is a configured listener that is open.
type boundListener struct {
	net.Listener
	tls      *listeners.TLS // nil: plaintext, or WithTLS
	optional bool
	allow    allow
}

// New returns a server. With no option it serves: HTTP requests are answered 404, calls
// UNIMPLEMENTED, and WebSocket handshakes are refused. An invalid configuration is
// reported by Listen, Serve and ListenAndServe.
func New(options ...Option) *Server {
	s := &Server{
		config:      DefaultConfig(),
		handler:     http.NotFoundHandler(),
		healthPaths: true,
		listen:      listeners.Listen,
	}
	for _, o := range options {
		o(s)
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	s.configErr = s.config.Validate()
	s.conns.SetLimits(s.config.limits())
	s.conns.SetHealthConfig(s.config.Health)
	s.requests = s.newRequestStats()
	s.accepting, s.stopAccepted = context.WithCancel(context.Background())
	s.serving, s.stopServing = context.WithCancel(context.Background())
	s.handing, s.stopHanding = context.WithCancel(context.Background())
	s.conns.Observe(s.closed.observe)
	s.conns.Observe(s.logEvent)
	s.webSockets = protocols.NewWebSockets(s.config.WebSocket, s.logger, protocols.WebSocketHooks{
		Reserve: reserveWebSocket,
		Release: releaseWebSocket,
		Opened:  webSocketOpened,
		Counter: countMessages,
		Ended:   webSocketEnded,
	})
	s.machine = lifecycle.New(s.config.Drain, lifecycle.Actions{
		Announce:        s.announce,
		StopAccepting:   s.stopAccepting,
		WaitConnections: s.waitConnections,
		ForceClose:      s.forceClose,
		Cleanup:         s.cleanup,
		Remaining:       s.conns.Counts,
		Forced:          s.forcedCounts,
	}, s.logger)
	s.livez, s.readyz = lifecycle.LiveHandler(), lifecycle.ReadyHandler(s.machine.Phase)
	return s
}

// start builds the protocols' servers, once.
func (s *Server) start() error {
	s.startOnce.Do(func() {
		if s.startErr = s.configErr; s.startErr != nil {
			return
		}
		c := &s.config
		s.sniff = protocols.SniffConfig{
			Timeout:          c.Sniff.Timeout,
			MaxBytes:         c.Sniff.MaxBytes,
			UndecidedTimeout: c.HTTP2.IdleTimeout,
			Transport:        c.GRPC.Transport,

			MaxResetsPerMinute: c.HTTP2.MaxResetsPerMinute,
			OnFlood:            s.flooded,
		}
		s.sniff.Settings, s.startErr = protocols.ServerSettings(c.HTTP2)
		if s.startErr != nil {
			return
		}
		hooks := protocols.HTTPHooks{
			Handler:     http.HandlerFunc(s.serveHTTP),
			ConnContext: connContext,
			ConnState:   trackState,
			Logger:      s.logger,
		}
		s.http2 = protocols.NewHTTP2Server(c.HTTP2, hooks)
		s.refuser = protocols.NewRefusingHTTP2Server(c.HTTP2, hooks, connAge)
		s.refusals = listeners.NewSub(listenAddr("refusals"), maxRefusals)
		hooks1 := hooks
		hooks1.ConnState = trackHTTP1
		s.http1 = protocols.NewHTTP1Server(c.HTTP1, hooks1)
		s.webSocket = protocols.NewHTTP1Server(c.HTTP1, hooks1)
		if c.HTTP2.UpgradeH2C {
			if s.h2c, s.startErr = protocols.NewH2CUpgrades(c.HTTP2, hooks, h2cUpgraded); s.startErr != nil {
				return
			}
		}
		s.grpc = protocols.NewGRPCServers(c.GRPC, c.HTTP2, s.registerGRPC, slices.Concat(s.boundCalls(), s.interceptors(), s.grpcOptions)...)
		if s.startErr = s.grpc.CheckSettings(s.sniff.Settings); s.startErr != nil {
			s.grpc.Stop()
			return
		}
		s.startedAt = time.Now()
		s.background.run(func() { _ = s.refuser.Serve(s.refusals) })
		s.background.run(func() { s.sweepConns(s.serving) })
	})
	if s.startErr != nil {
		return s.startErr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
	return nil
}

// Listen opens every configured listener, or none: at the first failure those
// that were opened are closed again. It is called by ListenAndServe; to call it
// before separates "could not bind" from what happens later.
func (s *Server) Listen() error {
	if s.configErr != nil {
		return s.configErr
	}
	var bound []boundListener
	undo := func(err error) error {
		for _, l := range bound {
			_ = l.Close()
		}
		return err
	}
	for _, c := range s.config.Listeners {
		var material *listeners.TLS
		if c.TLS.Enabled() {
			var err error
			if material, err = listeners.NewTLS(c.TLS); err != nil {
				return undo(fmt.Errorf("mux: listener %s: %w", c.Address, err))
			}
		}
		l, err := s.listen(context.Background(), c.Address)
		if err != nil {
			return undo(fmt.Errorf("mux: %w", err))
		}
		proxied, err := listeners.NewProxyListener(l, c.ProxyProtocol)
		if err != nil {
			_ = l.Close()
			return undo(fmt.Errorf("mux: listener %s: %w", c.Address, err))
		}
		bound = append(bound, boundListener{proxied, material, c.TLS.Optional, allowOf(c.Protocols)})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return undo(ErrServerClosed)
	}
	if s.bound != nil {
		return undo(errors.New("mux: Listen called twice"))
	}
	s.bound = bound
	return nil
}

// Addrs returns the addresses that Listen has opened, in the configuration's order.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var addrs []net.Addr
	for _, l := range s.bound {
		addrs = append(addrs, l.Addr())
	}
	return addrs
}

// ListenAndServe opens the configured listeners, if Listen has not done so, and
// serves them. See [Server.Serve] for when it returns.
func (s *Server) ListenAndServe() error {
	s.mu.Lock()
	bound, twice := s.bound, s.listens
	s.listens = true
	s.mu.Unlock()
	if twice {
		return errors.New("mux: ListenAndServe called twice")
	}
	if bound == nil {
		if err := s.Listen(); err != nil {
			return err
		}
		s.mu.Lock()
		bound = s.bound
		s.mu.Unlock()
	}
	if err := s.start(); err != nil {
		_ = closeBound(bound)
		return err
	}
	roots := make([]*root, len(bound))
	for i, l := range bound {
		roots[i] = newRoot(s, l)
	}
	return s.serveRoots(roots...)
}

// Serve accepts connections from l and serves them until the server ends. It
// takes l over. Several listeners may be served, each by a call of its own.
//
// Serve returns an error that is not nil: what made l fail, or [ErrServerClosed].
// Unlike net/http's, it returns the latter only when the drain is over, so that
// a main function which returns then loses nothing. When several listeners are
// served and one fails, that is logged at once, and the others go on.
func (s *Server) Serve(l net.Listener) error {
	if err := s.start(); err != nil {
		_ = l.Close()
		return err
	}
	return s.serveRoots(newRoot(s, boundListener{Listener: l, allow: allowAll}))
}

func (s *Server) serveRoots(roots ...*root) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		for _, r := range roots {
			_ = r.listener.Close()
		}
		<-s.machine.Done()
		return ErrServerClosed
	}
	s.roots = append(s.roots, roots...)
	s.mu.Unlock()

	failed := make(chan error, len(roots))
	for _, r := range roots {
		go func() { failed <- r.serve() }()
	}
	s.machine.SetServing()
	var err error
	for range roots {
		err = errors.Join(err, <-failed)
	}
	if s.isClosing() {
		<-s.machine.Done()
		return ErrServerClosed
	}
	return err
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// ReloadCertificates reads the configured certificates again. Connections that
// are open keep theirs. A pair that is no good leaves the old one in use, and is what the error is about.
func (s *Server) ReloadCertificates() (changed bool, err error) {
	s.mu.Lock()
	bound := s.bound
	s.mu.Unlock()
	for _, l := range bound {
		if l.tls == nil {
			continue
		}
		did, lerr := l.tls.Reload()
		changed = changed || did
		if lerr != nil {
			err = errors.Join(err, fmt.Errorf("mux: listener %s: %w", l.Addr(), lerr))
		}
	}
	return changed, err
}

// Certificates returns the certificates in use, by the address of their listener.
func (s *Server) Certificates() map[string]*x509.Certificate {
	s.mu.Lock()
	bound := s.bound
	s.mu.Unlock()
	certificates := make(map[string]*x509.Certificate)
	for _, l := range bound {
		if l.tls != nil {
			certificates[l.Addr().String()] = l.tls.Certificate()
		}
	}
	return certificates
}

// dispatch books the connection in its pool, as it goes to its server. It
// reports false for one that is refused, or was closed on the way.
func (s *Server) dispatch(c *conn, tag pool.Tag) bool {
	if c.refused == notRefused && c.root.allow.refuses(c.verdict()) {
		c.refused = refusedNoMatch
	}
	if c.refused == notRefused {
		moved, full := s.conns.MoveWithin(&c.account, s.roomFor(c, tag))
		if !full {
			if !moved {
				_ = c.Close() // The account was closed by the drain; the layers above it go too.
				return false
			}
			// Its first request is on the way.
			c.account.SetState(pool.StateActive)
			if tag == pool.Tag(protocols.GRPC) {
				c.showByAddr()
			}
			c.setEnd(protocols.AgeLimit(c.account.Opened(), s.maxAge(tag)))
			c.settle()
			return true
		}
		c.refused = refusedLimit
	}
	s.refuse(c, tag)
	return false
}

// maxAge returns the age limit that the server of a tag leaves to the mux. gRPC and
// WebSockets have theirs from their own servers.
func (s *Server) maxAge(tag pool.Tag) time.Duration {
	switch protocols.Protocol(tag) {
	case protocols.HTTP1, protocols.WebSocket:
		return s.config.HTTP1.MaxAge
	case protocols.HTTP2:
		return s.config.HTTP2.MaxAge
	default:
		return 0
	}
}

// roomFor returns the pool that a connection goes to. A WebSocket for which there
// is no room, or that the listener does not serve, is an HTTP/1.1 connection whose handshake will be refused.
func (s *Server) roomFor(c *conn, tag pool.Tag) pool.Tag {
	if tag == pool.Tag(protocols.WebSocket) && (!c.root.allow.webSocket || s.conns.Full(tag)) {
		return pool.Tag(protocols.HTTP1)
	}
	return tag
}
