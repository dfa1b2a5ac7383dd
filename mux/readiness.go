package mux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/protocols"
)

const (
	// checkTime bounds one call of a readiness check.
	checkTime = 5 * time.Second
	// checkInterval is how long a check rests between two calls.
	checkInterval = time.Second
)

// AddReadiness adds a condition of readiness. While check returns an error, /readyz answers
// 503 with the name, and gRPC's health service NOT_SERVING for the server and for every
// service. Everything is still served. check is called once a second from the start of the
// server on, each time with a context of five seconds, and counts as failed until it has
// returned nil for the first time.
//
// A drain turns readiness off by itself. A health service that is no part of the server
// follows it by [Server.OnDrain], as Connect's does:
//
//	s.OnDrain(mux.StepAnnounce, "health", func(context.Context) error {
//		checker.SetStatus("", grpchealth.StatusNotServing)
//		return nil
//	})
func (s *Server) AddReadiness(name string, check func(context.Context) error) {
	s.readiness.add(name, check)
}

// SetServing sets whether a gRPC service wants traffic. While it does not, gRPC's health
// service says NOT_SERVING for it. An empty name stands for the server: all services, and
// /readyz.
func (s *Server) SetServing(service string, serving bool) {
	s.readiness.set(service, serving)
}

// KeepReady has a drain leave readiness as it is until all clients are told to leave: /readyz
// and gRPC's health service go on saying what they did. It is for a program whose sockets
// another process serves already, as behind a binary upgrade. The address is fit then, and a
// health check on a connection from before must not say otherwise. A health service that
// follows by [Server.OnDrain] does, unless its function asks [Server.Ready] first. Call it
// before the drain:
//
//	s.KeepReady()
//	err := s.Shutdown(ctx)
func (s *Server) KeepReady() { s.readiness.keep() }

// Ready returns nil while the server wants traffic, as /readyz says it, and otherwise why it
// does not.
func (s *Server) Ready() error {
	if phase := s.readiness.phase(s.Phase()); phase != PhaseServing {
		return fmt.Errorf("the server is %s", phase)
	}
	return s.readiness.err()
}

// ReadyHandler answers readiness probes as /readyz on the served port does. It is for a
// listener of the program's own, such as one for operators.
func (s *Server) ReadyHandler() http.Handler {
	return lifecycle.ReadyHandler(func() Phase { return s.readiness.phase(s.Phase()) }, s.readiness.err)
}

// readiness is whether a server wants traffic. All methods may be called concurrently.
type readiness struct {
	logger  *slog.Logger
	running *running

	mu       sync.Mutex // guards what follows
	checks   []*readinessCheck
	started  bool
	draining bool
	kept     bool                    // a drain leaves readiness as it is
	off      map[string]bool         // by SetServing; "" is the server
	grpc     *protocols.GRPCServices // nil before it is made
}

// readinessCheck is one condition.
type readinessCheck struct {
	name  string
	check func(context.Context) error
	err   error // of the last call; guarded by readiness.mu
}

// errUnchecked is the state of a condition before its check has returned.
var errUnchecked = errors.New("not checked yet")

func newReadiness(logger *slog.Logger, running *running) *readiness {
	return &readiness{logger: logger, running: running, off: make(map[string]bool)}
}

// change changes what readiness depends on, and tells gRPC's health service.
func (r *readiness) change(edit func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	edit()
	if r.grpc != nil {
		r.grpc.SetReady(!r.draining && r.failing() == "")
	}
}

// failing names the conditions that do not hold. The caller holds mu.
func (r *readiness) failing() string {
	var names []string
	if r.off[""] {
		names = append(names, "switched off")
	}
	for _, c := range r.checks {
		if c.err != nil {
			names = append(names, c.name)
		}
	}
	return strings.Join(names, ", ")
}

// err names the conditions that do not hold, for /readyz.
func (r *readiness) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if names := r.failing(); names != "" {
		return errors.New(names)
	}
	return nil
}

// announceTo has g follow.
func (r *readiness) announceTo(g *protocols.GRPCServices) {
	r.change(func() {
		r.grpc = g
		for service, off := range r.off {
			if service != "" {
				g.SetServing(service, !off)
			}
		}
	})
}

// set is SetServing.
func (r *readiness) set(service string, serving bool) {
	r.change(func() {
		r.off[service] = !serving
		if r.grpc != nil && service != "" {
			r.grpc.SetServing(service, serving)
		}
	})
}

// drain turns readiness off for good, as a drain begins. Where it is kept, told does.
func (r *readiness) drain() { r.change(func() { r.draining = r.draining || !r.kept }) }

// told turns readiness off for good, once all clients are told to leave.
func (r *readiness) told() { r.change(func() { r.draining = true }) }

// keep is KeepReady.
func (r *readiness) keep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = true
}

// phase returns the phase as probes are told it.
func (r *readiness) phase(p Phase) Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p == PhaseDraining && r.kept && !r.draining {
		return PhaseServing
	}
	return p
}

// add adds a condition.
func (r *readiness) add(name string, check func(context.Context) error) {
	c := &readinessCheck{name: name, check: check, err: errUnchecked}
	r.change(func() {
		r.checks = append(r.checks, c)
		if r.started {
			r.follow(c)
		}
	})
}

// start begins to call the checks.
func (r *readiness) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = true
	for _, c := range r.checks {
		r.follow(c)
	}
}

// follow calls a check until the server ends.
func (r *readiness) follow(c *readinessCheck) {
	serving := r.running.serving
	r.running.background.run(func() {
		tick := time.NewTicker(checkInterval)
		defer tick.Stop()
		for serving.Err() == nil {
			r.ask(serving, c)
			select {
			case <-tick.C:
			case <-serving.Done():
			}
		}
	})
}

// ask calls a check once. One that does not obey its context is waited for, so that no two
// calls run at a time, but not longer than the server serves.
func (r *readiness) ask(serving context.Context, c *readinessCheck) {
	ctx, cancel := context.WithTimeout(serving, checkTime)
	defer cancel()
	result, returned := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(returned)
		result <- c.call(ctx)
	}()
	select {
	case err := <-result:
		r.note(serving, c, err)
	case <-ctx.Done():
		r.note(serving, c, ctx.Err())
		select {
		case <-returned:
		case <-serving.Done():
		}
	}
}

// call calls the check. A panic is an error.
func (c *readinessCheck) call(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return c.check(ctx)
}

// note takes note of a check's result.
func (r *readiness) note(serving context.Context, c *readinessCheck, err error) {
	if serving.Err() != nil {
		return // The end of the server has ended the call.
	}
	r.change(func() {
		switch before := c.err; {
		case err != nil && (before == nil || errors.Is(before, errUnchecked)):
			r.logger.Warn("not ready", keyCheck, c.name, keyErr, err)
		case err == nil && before != nil && !errors.Is(before, errUnchecked):
			r.logger.Info("ready again", keyCheck, c.name)
		}
		c.err = err
	})
}
