package mux

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// ErrServerClosed is returned by Serve and ListenAndServe after a shutdown.
// errors.Is finds [http.ErrServerClosed] in it.
var ErrServerClosed = fmt.Errorf("mux: %w", http.ErrServerClosed)

// Server serves several protocols on each of its listeners. Get one from [New].
// All methods may be called concurrently. A Server is used once: after Shutdown
// or Close it does not serve again.
type Server struct {
	options

	logs       *logs
	books      *books
	running    *running
	live       *reloader
	departures *departures
	topology   *topology
	services   services
	readiness  *readiness
	machine    *lifecycle.Machine
	report     atomic.Pointer[lifecycle.Report] // of the drain, when it is over

	configErr   error
	prepareOnce sync.Once
	startOnce   sync.Once
	prepareErr  error
	startedAt   atomic.Pointer[time.Time] // nil before the server serves
}

// New returns a server. With no option it serves: HTTP requests are answered 404, calls
// UNIMPLEMENTED, and WebSocket handshakes are refused. Each [Option] adds to that. An invalid
// configuration, or an option that cannot take effect, is reported by Listen, Serve and
// ListenAndServe.
func New(opts ...Option) *Server {
	s := &Server{options: defaultOptions()}
	for _, o := range opts {
		o(&s.options)
	}
	s.logs = newLogs(&s.options)
	c := s.initial.clone()
	s.configErr = s.check()
	s.books = newBooks(s.logger, s.accessLog, c.limits())
	s.running = newRunning()
	s.topology = new(topology)
	s.live = newReloader(c, s.topology.isServing, s.prepareReload)
	s.departures = newDepartures(s.books, websocket.New(c.WebSocket, c.HTTP1.Progress.ProgressTimeout, s.logger), &s.running.background)
	s.readiness = newReadiness(s.logger, s.running)
	d := &drainActions{
		books: s.books, running: s.running, topology: s.topology,
		departures: s.departures, live: s.live, readiness: s.readiness,
	}
	s.machine = lifecycle.New(c.Drain, d.actions(), s.logger)
	d.config = s.machine.Config
	s.topology.books, s.topology.running = s.books, s.running
	s.topology.admission = &admission{books: s.books, running: s.running, live: s.live, room: newRoom(s.departures, s.live.queues), contexts: &s.contexts, turn: make(chan struct{}, 1)}
	s.topology.admission.probes.enabled, s.topology.admission.probes.patience = s.healthPaths, probeTime
	s.topology.departures, s.topology.live = s.departures, s.live
	s.topology.watch = sniff.NewWatch(func(path string) bool {
		return s.handler == nil || s.topology.backend.Load().grpc.Serves(path)
	}, s.departures.mixed, s.departures.flooded, s.departures.shrunk)
	s.topology.contexts = &s.contexts
	s.topology.openSocket, s.topology.tlsConfig = s.listen, s.tlsConfig
	s.topology.changed = make(chan struct{})
	s.services = services{s.newFront(), s.books, &s.contexts, sync.OnceValue(func() *protocols.GRPCServices {
		g := protocols.NewGRPCServices(s.registerGRPC...)
		s.readiness.announceTo(g)
		return g
	}), s.grpcOptions}
	return s
}

// newFront returns the root handler.
func (s *Server) newFront() *front {
	f := &front{
		books:            s.books,
		departures:       s.departures,
		live:             s.live,
		backend:          s.topology.backend.Load,
		handler:          s.handler,
		takesCalls:       s.handler != nil,
		webSocketHandler: s.webSocketHandler,
	}
	if f.handler == nil {
		f.handler = http.NotFoundHandler()
	}
	if s.healthPaths {
		f.probes = map[string]http.Handler{
			pathLive:  lifecycle.LiveHandler(),
			pathReady: s.ReadyHandler(),
		}
	}
	return f
}

// prepare makes the protocols' servers, once.
func (s *Server) prepare() error {
	s.prepareOnce.Do(func() {
		if s.prepareErr = s.configErr; s.prepareErr != nil {
			return
		}
		b, err := s.services.newBackend(s.live.Load())
		if s.prepareErr = err; err == nil {
			s.topology.use(b)
		}
	})
	return s.prepareErr
}

// start begins what runs as long as the server serves, once.
func (s *Server) start() error {
	if err := s.prepare(); err != nil {
		return err
	}
	s.startOnce.Do(func() {
		now := time.Now()
		s.startedAt.Store(&now)
		s.topology.start()
		s.running.background.run(func() { s.departures.sweep(s.running.serving, s.live) })
		s.readiness.start()
	})
	return nil
}

// Listen opens every configured listener, or none: after a failure it closes those that it
// has opened. ListenAndServe calls it. A separate call tells "could not bind" from what
// happens later.
func (s *Server) Listen() error {
	first, err := s.open()
	if err == nil && !first {
		err = errors.New("mux: Listen called twice")
	}
	return err
}

// open opens the configured listeners. It reports false, and opens nothing, where they are
// open.
func (s *Server) open() (first bool, err error) {
	if s.configErr != nil {
		return false, s.configErr
	}
	return s.topology.listen()
}

// Addrs returns the addresses of the configured listeners that are open, in the order of
// the configuration.
func (s *Server) Addrs() []net.Addr {
	var addrs []net.Addr
	for addr := range s.Listeners() {
		addrs = append(addrs, addr)
	}
	return addrs
}

// Listeners returns the configured listeners that are open, in the order of the
// configuration: the address of each, and what [listeners.Config.Shown] returns of its
// configuration. All are of the moment of the call, whatever a reload changes meanwhile.
//
//	for addr, c := range s.Listeners() {
//		log.Print("serving ", c.Protocols, " on ", addr)
//	}
func (s *Server) Listeners() iter.Seq2[net.Addr, listeners.Config] {
	endpoints := slices.DeleteFunc(s.topology.configured(), (*endpoint).hasFailed)
	shown := make([]listeners.Config, len(endpoints))
	for i, e := range endpoints {
		shown[i] = e.shown()
	}
	return func(yield func(net.Addr, listeners.Config) bool) {
		for i, e := range endpoints {
			if !yield(e.Addr(), shown[i]) {
				return
			}
		}
	}
}

// ListenAndServe opens the configured listeners, if Listen has not done so, and serves
// them, and those that [Server.Reload] puts in their place. See [Server.Serve] for when it
// returns: where several listeners are configured, when all have failed. Where it could not
// listen, it may be called again.
func (s *Server) ListenAndServe() error {
	if !s.topology.beginListening() {
		return errors.New("mux: ListenAndServe called twice")
	}
	_, err := s.open()
	if err == nil {
		if err = s.start(); err != nil { // Nothing is ever served.
			s.topology.closeUnserved()
		}
	}
	if err != nil {
		s.topology.giveUpListening()
		if errors.Is(err, ErrServerClosed) {
			return s.ended()
		}
		return err
	}
	return s.serve(s.topology.serveConfigured, s.topology.configured)
}

// Serve accepts connections from l and serves them until the server ends. It takes l over.
// Several listeners may be served, each by a call of its own. Where l wraps connections, they
// should have a method NetConn() net.Conn, or SyscallConn, that leads to the socket: a slow
// client is then told from one that has stopped, a response that is cut ends by a reset, and
// no request is lost that comes while its idle connection is closed. TLS of l's own may still
// lose one of which it has read a part of a record.
//
// Serve returns an error that is not nil: what made l fail, or [ErrServerClosed]. Unlike
// net/http's, it returns the latter only when the drain is over, so that a main function
// which returns then loses nothing. A listener that fails is closed, and that is logged, at
// once. Its connections and other listeners go on.
func (s *Server) Serve(l net.Listener) error {
	if err := s.start(); err != nil {
		_ = l.Close()
		return err
	}
	return s.serveBrought(&endpoint{sockets: []net.Listener{l}, allow: allowAll, brought: true})
}

func (s *Server) serveBrought(e *endpoint) error {
	return s.serve(func() bool { return s.topology.serve(e) }, func() []*endpoint { return []*endpoint{e} })
}

// serve serves endpoints until they end. begin begins that.
func (s *Server) serve(begin func() bool, which func() []*endpoint) error {
	closing, err := true, error(nil)
	if begin() {
		s.machine.SetServing()
		closing, err = s.topology.waitServed(which)
	}
	if closing {
		return s.ended()
	}
	return err
}

// ended waits until the drain is over.
func (s *Server) ended() error {
	<-s.machine.Done()
	s.logs.flush()
	return ErrServerClosed
}

// Certificates returns the certificates in use, by the address of their listener and in
// the order of its configuration.
func (s *Server) Certificates() map[string][]*x509.Certificate {
	certificates := make(map[string][]*x509.Certificate)
	for _, e := range s.topology.configured() {
		if e.tls != nil && !e.hasFailed() {
			certificates[e.Addr().String()] = e.tls.Certificates()
		}
	}
	return certificates
}

// Drain ends the server in the sequence that [Config].Drain sets, and returns the account
// of it: balancers are told first, then the listeners close, then every client is told,
// and only what overstays its time is cut. Concurrent callers share one drain. A server that
// has not served anything is drained at once.
//
// When ctx ends before the drain does, what is left is cut at once. A deadline of ctx that
// is earlier than Config.Drain.Timeout is planned for: the delay takes a quarter of the time
// at most, and all clients are told in its first half. See [lifecycle.Machine.Drain].
// Meanwhile [Server.DrainProgress] returns the [DrainProgress].
func (s *Server) Drain(ctx context.Context) (*Report, error) {
	if served := s.topology.noteDrain(); !served {
		c := s.machine.Config()
		c.Delay = 0                // No balancer knows this server.
		_ = s.machine.Configure(c) // It fails once the drain has begun.
	}
	report, err := s.machine.Drain(ctx)
	if report != nil {
		s.report.Store(report)
		s.logs.flush()
	}
	return report, err
}

// Shutdown is [Server.Drain] without the account. Its error tells whether connections were
// cut ([ErrForced]) or a step failed. Unlike [http.Server.Shutdown] it covers
// WebSockets and connections that have not said what they are. It plans for the deadline of
// ctx as Drain does.
func (s *Server) Shutdown(ctx context.Context) error {
	_, err := s.Drain(ctx)
	return err
}

// Close ends the server at once: listeners and connections are closed without a word. For
// a polite end see [Server.Shutdown].
func (s *Server) Close() error {
	s.machine.Force()
	report, err := s.Drain(context.Background())
	if report == nil {
		return err
	}
	// The caller has asked for connections to be cut. It has not asked for a listener
	// that cannot be closed.
	err = nil
	for _, step := range report.Steps {
		if step.Name == lifecycle.StepForceClose || step.Name == lifecycle.StepCleanup {
			err = errors.Join(err, step.Err)
		}
	}
	return err
}

// OnDrain registers fn to run in a step of the drain: [StepAnnounce] for what has to turn
// with readiness, [StepDrainDelay], [StepStopAccepting] for servers of your own,
// [StepWaitConnections] for work that outlives its connection, [StepForceClose] or
// [StepCleanup] for what nobody needs any more; see [lifecycle.Machine.OnStep].
func (s *Server) OnDrain(step, name string, fn func(context.Context) error) error {
	return s.machine.OnStep(step, name, fn)
}

// OnPhase has fn called at each change of the phase; see [lifecycle.Machine.OnPhase].
func (s *Server) OnPhase(fn func(Phase)) { s.machine.OnPhase(fn) }
