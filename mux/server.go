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
	"github.com/muxserve/muxserve/pool/requests"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// ErrServerClosed is returned by Serve and ListenAndServe after a shutdown.
// errors.Is finds [http.ErrServerClosed] in it.
var ErrServerClosed = fmt.Errorf("mux: %w", http.ErrServerClosed)

// Server serves several protocols on each of its listeners. Get one from [New].
// All methods may be called concurrently. A Server is used once: after Shutdown
// or Close it does not serve again.
type Server struct {
	// Set by New and its options, and not changed after that.
	initial          Config // what it was configured with at first
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
	sniffTimes requests.Durations               // from the first wait for bytes to the verdict
	tlsTimes   requests.Durations               // of handshakes that succeeded
	report     atomic.Pointer[lifecycle.Report] // of the drain, when it is over
	webSockets *websocket.Server
	livez      http.Handler
	readyz     http.Handler
	departures departures

	startOnce sync.Once
	startErr  error
	startedAt time.Time

	// live has the configuration in force and changes it. backend is the servers that new
	// connections go to; a reload replaces it.
	live    *reloader
	backend atomic.Pointer[backend]

	// accepting ends when nothing more is to be accepted, serving with the drain.
	accepting, serving        context.Context
	stopAccepted, stopServing context.CancelFunc
	// handing ends when custom listeners have had their time to take connections.
	handing     context.Context
	stopHanding context.CancelFunc
	// stopping is set at the same time, and cutting when every connection is to be closed.
	stopping, cutting atomic.Bool
	background        background
	// admission is held by whoever waits for room for a connection, so that one place is taken once.
	admission sync.Mutex

	// mu guards what follows.
	mu            sync.Mutex
	started       bool
	listens       bool // ListenAndServe was called
	closing       bool
	custom        []*custom
	endpoints     []*endpoint   // the configured ones, in the configuration's order
	roots         []*root       // of all endpoints, those that are being replaced included
	backends      []*backend    // all that are not closed, the last one being in use
	serversClosed bool          // and those that come are closed at once
	changed       chan struct{} // closed when an endpoint has ended or was replaced
	forced        map[string]int
}

// New returns a server. With no option it serves: HTTP requests are answered 404, calls
// UNIMPLEMENTED, and WebSocket handshakes are refused. An invalid configuration is
// reported by Listen, Serve and ListenAndServe.
func New(options ...Option) *Server {
	s := &Server{
		initial:     DefaultConfig(),
		handler:     http.NotFoundHandler(),
		healthPaths: true,
		listen:      listeners.Listen,
		changed:     make(chan struct{}),
	}
	for _, o := range options {
		o(s)
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	c := s.initial.clone()
	s.live = newReloader(c, s.isServing, s.prepareReload)
	s.configErr = c.Validate()
	s.conns.SetTimeouts(timeoutReasons...)
	s.conns.SetLimits(c.limits())
	s.requests = s.newRequestStats()
	s.accepting, s.stopAccepted = context.WithCancel(context.Background())
	s.serving, s.stopServing = context.WithCancel(context.Background())
	s.handing, s.stopHanding = context.WithCancel(context.Background())
	s.conns.Observe(s.logEvent)
	s.webSockets = websocket.New(c.WebSocket, s.logger)
	s.departures.conns, s.departures.webSockets = &s.conns, s.webSockets
	s.departures.background, s.departures.serving = &s.background, s.serving
	s.departures.fresh.Store(int64(freshTime))
	s.machine = lifecycle.New(c.Drain, lifecycle.Actions{
		Announce:        s.announce,
		StopAccepting:   s.stopAccepting,
		WaitConnections: s.waitConnections,
		ForceClose:      s.forceClose,
		Cleanup:         s.cleanup,
		Remaining:       s.activeConns,
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
		c := s.live.Load()
		b, err := s.newBackend(c)
		if s.startErr = err; err != nil {
			return
		}
		s.startedAt = time.Now()
		s.use(b)
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
	var opened []*endpoint
	undo := func(err error) error {
		_ = closeEndpoints(opened)
		return err
	}
	for _, c := range s.live.Load().Listeners {
		e, err := s.open(c)
		if err != nil {
			return undo(err)
		}
		opened = append(opened, e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return undo(ErrServerClosed)
	}
	if s.endpoints != nil {
		return undo(errors.New("mux: Listen called twice"))
	}
	s.endpoints = opened
	return nil
}

// Addrs returns the addresses of the configured listeners that are open, in the configuration's order.
func (s *Server) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, e := range s.configured() {
		addrs = append(addrs, e.Addr())
	}
	return addrs
}

// configured returns the endpoints of the configuration.
func (s *Server) configured() []*endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endpoints)
}

// ListenAndServe opens the configured listeners, if Listen has not done so, and
// serves them, and those that [Server.Reload] puts in their place. See [Server.Serve] for when it returns.
func (s *Server) ListenAndServe() error {
	s.mu.Lock()
	opened, twice := s.endpoints != nil, s.listens
	s.listens = true
	s.mu.Unlock()
	if twice {
		return errors.New("mux: ListenAndServe called twice")
	}
	if !opened {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	if err := s.start(); err != nil {
		_ = closeEndpoints(s.configured())
		return err
	}
	if !s.serveEndpoints(s.configured()...) {
		<-s.machine.Done()
		return ErrServerClosed
	}
	return s.waitServed(s.configured)
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
	e := &endpoint{sockets: []net.Listener{l}, allow: allowAll, brought: true}
	if !s.serveEndpoints(e) {
		<-s.machine.Done()
		return ErrServerClosed
	}
	return s.waitServed(func() []*endpoint { return []*endpoint{e} })
}

// waitServed waits until none of the endpoints is served any more, and returns why.
func (s *Server) waitServed(which func() []*endpoint) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		var err error
		open := false
		for _, e := range which() {
			ended, eerr := e.end()
			open = open || !ended
			err = errors.Join(err, eerr)
		}
		switch {
		case open:
			<-changed
		case s.isClosing():
			<-s.machine.Done()
			return ErrServerClosed
		default:
			return err
		}
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Certificates returns the certificates in use, by the address of their listener.
func (s *Server) Certificates() map[string]*x509.Certificate {
	certificates := make(map[string]*x509.Certificate)
	for _, e := range s.configured() {
		if e.tls != nil {
			certificates[e.Addr().String()] = e.tls.Certificate()
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
	if tag == webSocketTag && !c.root.allow.webSocket {
		tag = pool.Tag(protocols.HTTP1) // Its handshake will be refused.
	}
	if c.refused == notRefused {
		moved, full := s.conns.MoveWithin(&c.account, tag)
		if !full {
			if !moved {
				_ = c.Close() // The account was closed by the drain; the layers above it go too.
				return false
			}
			// Its first request is on the way.
			c.account.SetState(pool.StateActive)
			if tag == pool.Tag(protocols.GRPC) && c.seldom().state != nil {
				c.showByAddr()
			}
			c.setDue(protocols.AgeLimit(c.account.Opened(), s.maxAge(tag)))
			return c.advance(stageServing)
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
		return s.live.Load().HTTP1.MaxAge
	case protocols.HTTP2:
		return s.live.Load().HTTP2.MaxAge
	default:
		return 0
	}
}
