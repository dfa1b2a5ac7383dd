package mux

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
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
	return s.machine.Drain(ctx)
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
	err := s.Shutdown(context.Background())
	if errors.Is(err, lifecycle.ErrForced) {
		return nil
	}
	return err
}

// OnDrain registers fn to run in the step of that name; see [lifecycle.Machine.OnStep].
func (s *Server) OnDrain(step, name string, fn func(context.Context) error) error {
	return s.machine.OnStep(step, name, fn)
}

// announce turns readiness off, for gRPC's health service too. /readyz and the
// phase have turned with the machine.
func (s *Server) announce(context.Context) error {
	if g := s.grpcServers(); g != nil && g.Health != nil {
		g.Health.Shutdown()
	}
	return nil
}

// grpcServers returns nil for a server that has not begun to serve.
func (s *Server) grpcServers() *protocols.GRPCServers {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return nil
	}
	return s.grpc
}

// stopAccepting takes in what the kernel has queued, closes the listeners, waits
// until every connection has been recognised, and then tells all of them to leave.
func (s *Server) stopAccepting(ctx context.Context) error {
	s.stopping.Store(true)
	s.mu.Lock()
	roots, bound := s.roots, s.bound
	s.mu.Unlock()
	if len(roots) == 0 {
		return closeBound(bound)
	}
	for _, r := range roots {
		r.listener.Stop()
	}
	// Those that wait undecided for their first HTTP/2 stream have good reason to;
	// a server tells them better than we could.
	s.endWaits()
	var err error
	for _, r := range roots {
		select {
		case <-r.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	s.closeCustoms()
	s.tell(ctx)
	return err
}

func closeBound(bound []boundListener) error {
	var err error
	for _, l := range bound {
		err = errors.Join(err, l.Close())
	}
	return err
}

// endWaits ends the wait of connections that are undecided; of those that come
// to it later, recognise does.
func (s *Server) endWaits() {
	for _, a := range s.conns.Conns(pool.Sniffing) {
		if c, ok := a.Owner().(*conn); ok && c.sniffing.Load() {
			c.EndWait()
		}
	}
}

// tell tells every client to leave, spread over the configured time. It returns
// when all have been told; that they leave is what the next step waits for.
func (s *Server) tell(ctx context.Context) {
	spread := s.config.Drain.Spread
	s.telling.Store(true)
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stopLeaving = cancel
	s.leaving.Go(func() { _ = s.webSockets.Drain(background, spread) })

	s.tellHTTP1(ctx, spread)
	// What net/http and grpc-go say goes to all of their connections at once.
	s.http1.SetKeepAlivesEnabled(false)
	s.webSocket.SetKeepAlivesEnabled(false)
	s.leaving.Go(func() { _ = s.http2.Shutdown(background) })
	if s.h2c != nil {
		s.h2c.Shutdown()
	}
	s.leaving.Go(func() { _ = s.grpc.GracefulStop(background) })
}

// tellHTTP1 closes idle HTTP/1.1 connections at random moments within spread. Those
// that are busy learn it from their next response.
func (s *Server) tellHTTP1(ctx context.Context, spread time.Duration) {
	type departure struct {
		conn *conn
		at   time.Duration
	}
	var departures []departure
	for _, a := range s.conns.Conns(pool.Tag(protocols.HTTP1), pool.Tag(protocols.WebSocket)) {
		if c, ok := a.Owner().(*conn); ok && a.State() != pool.StateUpgraded {
			d := departure{conn: c}
			if spread > 0 {
				d.at = rand.N(spread) //nolint:gosec // A herd is spread, no secret is made.
			}
			departures = append(departures, d)
		}
	}
	slices.SortFunc(departures, func(a, b departure) int { return cmp.Compare(a.at, b.at) })
	started := time.Now()
	for _, d := range departures {
		s.waitGone(ctx, d.at-time.Since(started))
		d.conn.closeIdle()
	}
	s.waitGone(ctx, spread-time.Since(started))
}

// waitGone waits for d, or until no connection is left.
func (s *Server) waitGone(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_ = s.conns.WaitEmpty(ctx)
}

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// closeIdle ends an HTTP/1.1 connection that waits for its next request: its
// server finds that the wait is over and closes it. A request that has been
// read by then is served, because the server sets a new deadline for it.
func (c *conn) closeIdle() {
	if c.account.State() == pool.StateIdle {
		_ = c.SetReadDeadline(aLongTimeAgo)
	}
}

// waitConnections waits until nothing is left. What has not said yet what it is
// has had its time.
func (s *Server) waitConnections(ctx context.Context) error {
	for _, a := range s.conns.Conns(pool.Sniffing) {
		if c, ok := a.Owner().(*conn); ok {
			c.reject(protocols.FailureDraining)
			_ = a.Close()
		}
	}
	return s.conns.WaitEmpty(ctx)
}

// lingerTime is how long a connection that is cut goes on reading what the peer
// had already sent, so that the peer sees an end rather than a reset.
const lingerTime = 100 * time.Millisecond

// forceClose cuts every connection: the end of the stream, a short read, close.
func (s *Server) forceClose(ctx context.Context) error {
	s.mu.Lock()
	roots, bound := s.roots, s.bound
	s.mu.Unlock()
	var err error
	if len(roots) == 0 {
		err = closeBound(bound)
	}
	for _, r := range roots {
		err = errors.Join(err, r.listener.Close())
	}
	s.mu.Lock()
	s.forced = s.conns.Counts()
	s.mu.Unlock()
	for _, a := range s.conns.Conns() {
		_ = a.CloseWrite()
	}
	// The servers go on reading meanwhile, and most connections end here.
	s.waitGone(ctx, lingerTime)
	s.closeServers()
	for _, a := range s.conns.Conns() {
		_ = a.Close()
	}
	return err
}

func (s *Server) forcedCounts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forced
}

// closeServers closes the protocols' servers at once.
func (s *Server) closeServers() {
	if s.grpcServers() == nil {
		return
	}
	for _, srv := range []*http.Server{s.http1, s.webSocket, s.http2} {
		_ = srv.Close()
	}
	s.grpc.Stop()
}

// cleanup gives back what the servers hold.
func (s *Server) cleanup(context.Context) error {
	s.closeCustoms()
	if s.stopLeaving != nil {
		s.stopLeaving()
	}
	s.closeServers()
	s.leaving.Wait()
	s.mu.Lock()
	roots := s.roots
	s.mu.Unlock()
	for _, r := range roots {
		<-r.done
	}
	return nil
}
