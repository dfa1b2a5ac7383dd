package mux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// drainActions has the actions of the steps by which a server ends.
type drainActions struct {
	books      *books
	running    *running
	topology   *topology
	departures *departures
	live       *reloader
	readiness  *readiness
	config     func() lifecycle.Config // in force for this drain

	stopped atomic.Bool                    // stopAccepting has begun
	forced  atomic.Pointer[map[string]int] // the connections that were cut at the end, by tag
	begun   atomic.Int64                   // those that were cut within their first bytes
	// localDue is set when in-process connections are to leave, too.
	localDue atomic.Bool
}

// actions returns what the machine calls in each step.
func (d *drainActions) actions() lifecycle.Actions {
	return lifecycle.Actions{
		Announce:        d.announce,
		StopAccepting:   d.stopAccepting,
		WaitConnections: d.waitConnections,
		ForceClose:      d.forceClose,
		Cleanup:         d.cleanup,
		Remaining:       d.books.activeConns,
		Forced:          d.forcedCounts,
	}
}

// announce turns readiness off, for gRPC's health service too. /readyz and the phase have
// turned with the machine. [Server.KeepReady] puts off both.
func (d *drainActions) announce(context.Context) error {
	d.books.conns.SetUnavailable(true)
	d.readiness.drain()
	return nil
}

// stopAccepting takes in what the kernel has queued, closes the listeners, and tells every
// client to leave. Beside that, connections that are not recognised have their time; they
// are told when they come to their servers.
func (d *drainActions) stopAccepting(ctx context.Context) error {
	roots := d.topology.stop()
	if len(roots) == 0 {
		return nil
	}
	d.stopped.Store(true)
	// An HTTP/2 client may wait undecided with good reason. Its server can tell it better
	// than the sniffer could.
	for _, r := range roots {
		r.endWaits()
	}
	settled := make(chan error, 1)
	go func() { settled <- d.settle(ctx, roots) }()
	waitClosed(ctx, roots)
	d.tell(ctx)
	d.tellLate()
	err := <-settled
	d.waitAnswered(ctx)
	if !d.topology.hasLocal() { // Their servers go on.
		d.shutdown()
	}
	return err
}

// closeTime is more than a listener takes for what the kernel has queued, which is a second
// of its own time at most. It is also more than [listeners.Listener.Stop] gives an Accept that
// does not heed its deadline.
const closeTime = 3 * time.Second

// waitClosed waits until the roots accept nothing any more. A client that was told before
// could come back to one of them, where it is told at once and comes back again, and so on.
func waitClosed(ctx context.Context, roots []*root) {
	ctx, cancel := context.WithTimeout(ctx, closeTime)
	defer cancel()
	for _, r := range roots {
		select {
		case <-r.ending:
		case <-ctx.Done():
			return
		}
	}
}

// settle waits until every connection has been recognised, and cuts those that take too
// long.
func (d *drainActions) settle(ctx context.Context, roots []*root) error {
	patience, cancel := context.WithTimeout(ctx, d.sniffTime())
	defer cancel()
	if waitRoots(patience, roots) != nil && ctx.Err() == nil {
		// They have had their time; the others must not wait for them.
		d.cutUnrecognised()
		d.running.stopHanding()
	}
	err := waitRoots(ctx, roots)
	d.topology.finishCustoms()
	return err
}

// sniffTime is how long a connection may take to say what it is, but no more than leaves
// the step some time to tell the others.
func (d *drainActions) sniffTime() time.Duration {
	most := d.config().StepTimeout * 3 / 4
	if config := d.live.Load(); config.Sniff.Timeout > 0 {
		return min(max(config.Sniff.Timeout, config.HTTP1.HeaderTimeout), most)
	}
	return most
}

// cutUnrecognised closes the connections that have not said what they are, and counts
// those that have begun to.
func (d *drainActions) cutUnrecognised() {
	d.countBegun()
	d.closeUnrecognised()
}

// countBegun counts the connections that are about to be cut within their first bytes.
// Where nothing was sent, nothing is lost.
func (d *drainActions) countBegun() {
	d.begun.Add(int64(len(d.books.all(func(c *conn) bool { return d.isDue(c) && c.stage() == stageOpen && c.isFed() }))))
}

func (d *drainActions) closeUnrecognised() {
	for _, a := range d.books.conns.Conns(pool.Sniffing) {
		if c, ok := a.Owner().(*conn); ok && !d.isDue(c) {
			continue
		}
		a.SetCloseReason(reasonDrain)
		_ = a.Close()
	}
}

// tell tells every client to leave, each at a random moment of the configured spread. It
// returns at the end of that, or when nobody is left; the next step waits until they have
// left.
func (d *drainActions) tell(ctx context.Context) {
	over := d.config().Spread
	if end, ok := ctx.Deadline(); ok {
		over = moments.Within(over, time.Until(end))
	}
	started := time.Now()
	d.departures.beginDrain(over)
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_ = d.books.conns.WaitEmpty(gone) // Then there is nobody left to tell.
		cancel()
	}()
	spread(gone, refsOf(d.books.all(d.isLeaving)), over, func(c *conn) { d.departures.leave(c, reasonDrain, 0) })
	d.waitGone(ctx, over-time.Since(started))
}

// shutdown has x/net's server tell its clients, who know by now, all at once, and grpc-go where
// the sweep does not; see sweepsCalls. net/http's server for HTTP/2 and grpc-go would close
// each connection when its last answer is written, whether the client has read that or not.
func (d *drainActions) shutdown() {
	for _, b := range d.topology.allBackends() {
		if b.h2c != nil {
			b.h2c.Shutdown()
		}
		if !b.config.sweepsCalls() {
			d.running.background.run(func() { _ = b.grpc.GracefulStop(d.running.serving) })
		}
	}
}

// tellLate closes the connections that have become idle since they were told, and tells
// WebSockets that have been opened since.
func (d *drainActions) tellLate() {
	d.readiness.told()
	if d.departures.endSpread() {
		for _, c := range d.books.all(d.isLeaving) {
			d.departures.leave(c, reasonDrain, 0)
		}
	}
}

// waitAnswered waits until every HTTP/2 client has answered the PING behind its first
// GOAWAY. By then its server has taken on every stream that was on its way, among them a
// first request that came with the first bytes. The GOAWAY of x/net's server, which comes
// next, would refuse them.
func (d *drainActions) waitAnswered(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, moments.AnswerTime)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	owes := func(c *conn) bool { return d.isDue(c) && c.owesAnswer() }
	for len(d.books.all(owes)) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// waitGone waits for t, or until no connection is left.
func (d *drainActions) waitGone(ctx context.Context, t time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, t)
	defer cancel()
	_ = d.books.conns.WaitEmpty(ctx)
}

// waitConnections waits until nothing is left. Connections that are not recognised, and
// idle ones, have had their time.
func (d *drainActions) waitConnections(ctx context.Context) error {
	d.cutUnrecognised()
	d.tellLate()
	d.topology.waitTaken(ctx)
	d.topology.closeCustoms()
	if err := d.waitRemoteGone(ctx); err != nil {
		return err
	}
	if err := d.leaveLocal(ctx); err != nil {
		return err
	}
	return d.waitCalls(ctx)
}

// waitCalls waits until the handlers of all gRPC calls have returned, as grpc-go's
// GracefulStop does. A handler may go on when its client has left; net/http keeps an
// HTTP/1.1 connection open until then.
func (d *drainActions) waitCalls(ctx context.Context) error {
	tick := time.NewTicker(callsTick)
	defer tick.Stop()
	for {
		calls, _ := d.books.requests.grpc.Figures()
		if calls.InFlight == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("mux: handlers of %d gRPC calls run on though their clients have left: %w", calls.InFlight, ctx.Err())
		}
	}
}

// callsTick is how often waitCalls looks.
const callsTick = 10 * time.Millisecond

// lingerTime is how long the servers go on reading from a connection that is cut, so that
// its client sees an end rather than a reset.
const lingerTime = 100 * time.Millisecond

// forceClose cuts every connection: the end of the stream, a short read, close.
func (d *drainActions) forceClose(ctx context.Context) error {
	roots := append(d.topology.stop(), d.topology.stopLocal()...)
	d.localDue.Store(true)
	// The listeners come first: a client that is cut may connect again at once.
	var err error
	for _, r := range roots {
		if lerr := r.listener.Close(); !errors.Is(lerr, net.ErrClosed) {
			err = errors.Join(err, lerr)
		}
	}
	forced := d.books.activeConns()
	if d.stopped.Load() { // A client that had time to speak, and did not, loses nothing.
		delete(forced, string(pool.Sniffing))
		d.countBegun()
	}
	d.forced.Store(&forced)
	for _, a := range d.books.conns.Conns() {
		c, ok := a.Owner().(*conn)
		if told := a.CloseReason(); ok && c.stage() == stageServing && slices.Contains(toldReasons, told) {
			a.ReplaceCloseReason(told, reasonForced)
		}
		if ok && d.books.endsLikeComplete(c) {
			c.abort(reasonForced)
			continue
		}
		if _, isTLS := a.NetConn().(tlsConn); !isTLS { // Its CloseWrite would wait for a writer.
			_ = a.CloseWrite()
		}
	}
	d.waitGone(ctx, lingerTime)
	d.running.cutting.Store(true) // From here on the roots close what they accept.
	d.running.stopHanding()
	d.closeUnrecognised()
	for _, a := range d.books.conns.Conns() {
		a.SetCloseReason(reasonForced)
		_ = a.Close()
		if c, ok := a.Owner().(*conn); ok && c.stage() == stageServing {
			d.books.closed.add(c, true) // Its handler may hang.
		}
	}
	d.departures.webSockets.Cut()
	// grpc-go's Stop waits for its listeners, which end with the roots.
	err = errors.Join(err, waitRoots(ctx, roots))
	d.topology.closeBackends()
	// A goroutine that closes a connection may not have taken it off the books yet.
	d.waitGone(ctx, bookTime)
	return err
}

// endsLikeComplete reports whether the client could take the end of the connection for the
// end of what it is receiving: an HTTP/1.1 response may last until the connection ends, and
// so may a tunnel. In HTTP/2 and WebSocket a frame says what is complete.
func (b *books) endsLikeComplete(c *conn) bool {
	if b.tag(c) != protocols.HTTP1 {
		return false
	}
	state := c.account.State()
	return state == pool.StateActive || state == pool.StateUpgraded
}

// bookTime bounds the wait for the last closes.
const bookTime = time.Second

func (d *drainActions) forcedCounts() map[string]int {
	counts := make(map[string]int)
	if forced := d.forced.Load(); forced != nil {
		maps.Copy(counts, *forced)
	}
	if begun := int(d.begun.Load()); begun > 0 {
		counts[string(pool.Sniffing)] = begun
	}
	return counts
}

// cleanup gives back what the servers hold.
func (d *drainActions) cleanup(ctx context.Context) error {
	defer d.books.end()
	roots := append(d.topology.stop(), d.topology.stopLocal()...)
	d.running.stopHanding()
	d.topology.closeCustoms()
	d.running.stopServing()
	if err := waitRoots(ctx, roots); err != nil {
		return err
	}
	d.topology.closeBackends()
	select {
	case <-d.running.background.wait():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// DrainProgress is a drain under way, or over.
type DrainProgress struct {
	lifecycle.Progress

	// Told counts the connections that the drain has told to leave.
	Told int64
}

// DrainProgress returns how far the drain has come, and false before it begins. The account
// of a drain that is over is in [Stats].Drain.
func (s *Server) DrainProgress() (DrainProgress, bool) {
	p, begun := s.machine.Progress()
	return DrainProgress{p, s.departures.told.Load()}, begun
}
