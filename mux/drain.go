package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/pool"
)

// Drain ends the server in the sequence that [Config].Drain sets, and returns the
// account of it: balancers are told first, then the listeners close, then every
// client is told, and only what overstays its time is cut. Concurrent callers
// share one drain.
//
// When ctx ends before the drain does, what is left is cut at once.
func (s *Server) Drain(ctx context.Context) (*lifecycle.Report, error) {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	report, err := s.machine.Drain(ctx)
	if report != nil {
		s.report.Store(report)
	}
	return report, err
}

// Shutdown is [Server.Drain] without the account. Its error tells whether connections
// were cut ([lifecycle.ErrForced]) or a step failed. Unlike
// [http.Server.Shutdown] it covers WebSockets and connections that have not said what they are.
func (s *Server) Shutdown(ctx context.Context) error {
	_, err := s.Drain(ctx)
	return err
}

// Force ends all waiting of a drain, the one under way or the next: connections
// are cut and counted. It does not begin a drain.
func (s *Server) Force() { s.machine.Force() }

// Close ends the server at once: listeners and connections are closed without a
// word. For a polite end see [Server.Shutdown].
func (s *Server) Close() error {
	s.Force()
	report, err := s.Drain(context.Background())
	if report == nil {
		return err
	}
	// That connections were cut, and waited for in vain before, is what was asked
	// for. That something could not be closed is not.
	err = nil
	for _, step := range report.Steps {
		if step.Name == lifecycle.StepForceClose || step.Name == lifecycle.StepCleanup {
			err = errors.Join(err, step.Err)
		}
	}
	return err
}

// OnDrain registers fn to run in the step of that name; see [lifecycle.Machine.OnStep].
func (s *Server) OnDrain(step, name string, fn func(context.Context) error) error {
	return s.machine.OnStep(step, name, fn)
}

// OnPhase has fn called at each change of the phase; see [lifecycle.Machine.OnPhase].
func (s *Server) OnPhase(fn func(lifecycle.Phase)) { s.machine.OnPhase(fn) }

// announce turns readiness off, for gRPC's health service too. /readyz and the
// phase have turned with the machine.
func (s *Server) announce(context.Context) error {
	s.conns.SetUnavailable(true)
	for _, b := range s.allBackends() {
		if b.grpc.Health != nil {
			b.grpc.Health.Shutdown()
		}
	}
	return nil
}

// stop ends accepting: the listeners take in what the kernel has queued, and
// close. It returns the roots that were serving.
func (s *Server) stop() []*root {
	s.stopping.Store(true)
	s.stopAccepted()
	s.mu.Lock()
	roots, endpoints := slices.Clone(s.roots), s.endpoints
	s.mu.Unlock()
	if len(roots) == 0 {
		_ = closeEndpoints(endpoints)
	}
	for _, r := range roots {
		r.listener.Stop()
	}
	return roots
}

// stopAccepting takes in what the kernel has queued, closes the listeners, waits
// until every connection has been recognised, and then tells all of them to leave.
func (s *Server) stopAccepting(ctx context.Context) error {
	roots := s.stop()
	if len(roots) == 0 {
		return nil
	}
	// Those that wait undecided for their first HTTP/2 stream have good reason to;
	// a server tells them better than we could.
	s.endWaits(nil)
	patience, cancel := context.WithTimeout(ctx, s.sniffTime())
	defer cancel()
	if waitRoots(patience, roots) != nil {
		// They have had their time; the others are not to wait for them.
		s.cutUnrecognised()
		s.stopHanding()
	}
	err := waitRoots(ctx, roots)
	s.finishCustoms()
	s.tell(ctx)
	return err
}

// sniffTime is how long a connection may take to say what it is, but no more than
// leaves the step some time to tell the others.
func (s *Server) sniffTime() time.Duration {
	most := s.machine.Config().StepTimeout * 3 / 4
	if t := s.live.Load().Sniff.Timeout; t > 0 {
		return min(t, most)
	}
	return most
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

// cutUnrecognised closes the connections that have not said what they are.
func (s *Server) cutUnrecognised() {
	for _, a := range s.conns.Conns(pool.Sniffing) {
		a.SetCloseReason(reasonDrain)
		_ = a.Close()
	}
}

// endWaits ends the wait of connections that are undecided, those of one root or of all.
// For those that come to it later, recognise does.
func (s *Server) endWaits(r *root) {
	for _, a := range s.conns.Conns(pool.Sniffing) {
		if c, ok := a.Owner().(*conn); ok && (r == nil || c.root == r) && c.stage() == stageOpen {
			c.EndWait()
		}
	}
}

// tell tells every client to leave, each at a random moment of the configured spread. It
// returns when all have been told; that they leave is what the next step waits for.
func (s *Server) tell(ctx context.Context) {
	over := s.machine.Config().Spread
	if end, ok := ctx.Deadline(); ok {
		// A client that is not told within the time of the step would be cut without a word.
		left := time.Until(end)
		over = max(0, min(over, left-min(left/2, lastWords)))
	}
	d := &s.departures
	d.draining.Store(true)
	d.fresh.Store(int64(min(over/4, freshTime)))
	started := time.Now()
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_ = s.conns.WaitEmpty(gone) // Nobody is left to be told.
		cancel()
	}()
	spread(gone, d.all((*conn).isServing), over, func(c *conn) { d.leave(c, reasonDrain, 0) })
	s.waitGone(ctx, over-time.Since(started))
	s.waitAnswered(ctx)
	// Their clients know by now. What net/http and grpc-go say goes to all of their connections at once.
	for _, b := range s.allBackends() {
		s.background.run(func() { _ = b.http2.Shutdown(s.serving) })
		if b.h2c != nil {
			b.h2c.Shutdown()
		}
		s.background.run(func() { _ = b.grpc.GracefulStop(s.serving) })
	}
}

// lastWords is what is kept of the step's time for the answers of those who were told last.
const lastWords = answerTime + 500*time.Millisecond

// answerTime bounds the wait for what a GOAWAY must not overtake.
const answerTime = time.Second

// waitAnswered waits until every HTTP/2 client has answered the PING behind its first
// GOAWAY. By then its server has taken on every stream that was on its way, among them a
// first request that came with the first bytes. The server's own GOAWAY, which comes next,
// would refuse them.
func (s *Server) waitAnswered(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(s.departures.all((*conn).owesAnswer)) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *conn) isServing() bool { return c.stage() == stageServing }

// owesAnswer reports whether the client has not shown that it knows of the first GOAWAY.
func (c *conn) owesAnswer() bool {
	_, acked := c.GoneAway()
	return c.isServing() && c.isHTTP2() && !acked
}

// waitGone waits for d, or until no connection is left.
func (s *Server) waitGone(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_ = s.conns.WaitEmpty(ctx)
}

// waitConnections waits until nothing is left. What has not said yet what it is
// has had its time, and so has what is idle.
func (s *Server) waitConnections(ctx context.Context) error {
	s.cutUnrecognised()
	if d := &s.departures; d.draining.Load() {
		d.fresh.Store(0)
		for _, c := range d.all((*conn).isServing) {
			d.leave(c, reasonDrain, 0)
		}
	}
	s.waitTaken(ctx)
	s.closeCustoms()
	return s.conns.WaitEmpty(ctx)
}

// lingerTime is how long a connection that is cut goes on reading what the peer
// had already sent, so that the peer sees an end rather than a reset.
const lingerTime = 100 * time.Millisecond

// forceClose cuts every connection: the end of the stream, a short read, close.
func (s *Server) forceClose(ctx context.Context) error {
	roots := s.stop()
	s.mu.Lock()
	s.forced = s.activeConns()
	s.mu.Unlock()
	for _, a := range s.conns.Conns() {
		if _, isTLS := a.NetConn().(*tls.Conn); !isTLS { // Its CloseWrite would wait for a writer.
			_ = a.CloseWrite()
		}
	}
	// The servers go on reading meanwhile, and most connections end here.
	s.waitGone(ctx, lingerTime)
	// From here on the roots close what they accept.
	s.cutting.Store(true)
	var err error
	for _, r := range roots {
		if lerr := r.listener.Close(); !errors.Is(lerr, net.ErrClosed) {
			err = errors.Join(err, lerr)
		}
	}
	s.stopHanding()
	s.cutUnrecognised()
	for _, a := range s.conns.Conns() {
		a.SetCloseReason(reasonForced)
		_ = a.Close()
	}
	s.webSockets.Cut()
	// grpc-go's Stop waits for its listeners, which end with the roots.
	err = errors.Join(err, waitRoots(ctx, roots))
	s.closeServers()
	// All are closed. Who was closing one at the same moment may not have taken it off the books yet.
	s.waitGone(ctx, bookTime)
	return err
}

// bookTime bounds the wait for that.
const bookTime = time.Second

func (s *Server) forcedCounts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forced
}

// closeServers closes the protocols' servers at once.
func (s *Server) closeServers() {
	s.mu.Lock()
	s.serversClosed = true
	s.mu.Unlock()
	for _, b := range s.allBackends() {
		b.close()
	}
}

// cleanup gives back what the servers hold.
func (s *Server) cleanup(ctx context.Context) error {
	roots := s.stop()
	s.stopHanding()
	s.closeCustoms()
	s.stopServing()
	if err := waitRoots(ctx, roots); err != nil {
		return err
	}
	s.closeServers()
	select {
	case <-s.background.wait():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
