package mux

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols/moments"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// departures have clients leave: in a drain, because of a connection's age, its number of
// requests or its HPACK table, after a flood, and behind a reload. The first that tells a
// client counts.
type departures struct {
	books      *books
	webSockets *websocket.Server
	background *background

	// fresh is how long an HTTP/1.1 connection without a request counts as one that will
	// soon have another; see [moments.FreshTime].
	fresh atomic.Int64
	// leftTime is how long a body may be read behind its handler, before the answer goes out.
	leftTime atomic.Int64
	// idle guards conn.closingIdle of all connections, and the read deadline that belongs
	// to it.
	idle sync.Mutex
	// telling is set when the drain tells the clients. told counts those it has told.
	telling atomic.Bool
	told    atomic.Int64
}

func newDepartures(b *books, ws *websocket.Server, bg *background) *departures {
	d := &departures{books: b, webSockets: ws, background: bg}
	d.fresh.Store(int64(moments.FreshTime))
	d.leftTime.Store(int64(leftTime))
	return d
}

// beginDrain notes that the drain tells the clients, over so long a spread.
func (d *departures) beginDrain(over time.Duration) {
	d.telling.Store(true)
	d.fresh.Store(int64(moments.Fresh(over)))
}

// greet tells a client whose connection comes to its server while the drain tells the
// others. In-process clients are told last.
func (d *departures) greet(c *conn) {
	if d.telling.Load() && c.isRemote() {
		d.leave(c, reasonDrain, 0)
	}
}

// endSpread has every idle HTTP/1.1 connection closed from now on, however fresh, if the
// drain has told the clients. It reports whether it has.
func (d *departures) endSpread() bool {
	if !d.telling.Load() {
		return false
	}
	d.fresh.Store(0)
	return true
}

// farewell is what is remembered of a connection that was told to leave.
type farewell struct {
	told atomic.Int64 // when, counted from clockStart
	cut  atomic.Int64 // when its patience is over; 0 for never
	// yielded is when others began to wait for its end, because it has made room; 0 for never.
	yielded atomic.Int64
	// aged is set while its age is the only reason.
	aged atomic.Bool
	// received is how much the client had sent by then.
	received atomic.Uint64
	// idle is one more than the requests that the connection had seen when the last sweep
	// found it idle, and 0 if it did not.
	idle    uint64
	flooded atomic.Int64 // when the client was told to leave for its resets; 0 for never
	// opened is how many streams it had opened when floodGrace was over, as the sweep has
	// seen it.
	opened uint64
}

// leave has the client of c told that it is to leave, for a reason that becomes the close
// reason. Requests under way go on, but no longer than patience; 0 is no bound. Only the
// first call tells. A later one closes an HTTP/1.1 connection that has become idle, and
// tells WebSockets that have been opened since.
func (d *departures) leave(c *conn, reason string, patience time.Duration) {
	switch {
	case c.stage() != stageServing:
	case !d.depart(c, reason, patience):
		if reason != reasonAge {
			c.ensureRare().leave.aged.Store(false)
		}
		d.webSockets.Leave(c)
		d.closeIfIdle(c)
	case c.isHTTP2():
		// A client that reads nothing takes a second.
		d.background.run(func() { d.goAway(c) })
	default:
		d.tellOther(c)
	}
}

// leaveIdle is leave for an HTTP/2 connection that is idle, and whose client is told its last
// stream at once, if one can be named. A request that crosses that the client makes again on
// another connection.
func (d *departures) leaveIdle(c *conn, reason string) {
	if !c.namesLast() {
		d.leave(c, reason, 0)
	} else if d.depart(c, reason, 0) {
		d.background.run(c.finalGoAway)
	}
}

// leaveNow is leave for the goroutine of a request before its answer: the client is to
// know when it has the answer.
func (d *departures) leaveNow(c *conn, reason string, patience time.Duration) {
	if d.depart(c, reason, patience) && c.isHTTP2() {
		d.goAway(c)
	}
}

// depart notes that the client is being told, and reports whether it was not before.
func (d *departures) depart(c *conn, reason string, patience time.Duration) bool {
	f, now := &c.ensureRare().leave, sinceStart()
	if reason == reasonRoom { // It may have been told before, for another reason.
		f.yielded.CompareAndSwap(0, int64(now))
	}
	if !c.depart(departTold) {
		return false
	}
	f.told.Store(int64(now))
	f.cut.Store(int64(moments.Cut(now, patience)))
	f.aged.Store(reason == reasonAge)
	f.received.Store(c.account.Received())
	c.account.SetCloseReason(reason)
	if reason == reasonDrain {
		d.told.Add(1)
	}
	c.notify()
	return true
}

// toldFor returns how long ago the client was told, and reports whether its patience is
// over.
func (c *conn) toldFor() (ago time.Duration, over bool) {
	f := &c.rare().leave
	now, told, cut := sinceStart(), f.told.Load(), f.cut.Load()
	if told == 0 {
		return 0, false
	}
	return now - time.Duration(told), cut != 0 && now > time.Duration(cut)
}

// yieldedFor returns how long ago the connection has made room for others, after its client
// was told to leave. It reports false where the connection has not.
func (c *conn) yieldedFor() (ago time.Duration, ok bool) {
	yielded := c.rare().leave.yielded.Load()
	return sinceStart() - time.Duration(yielded), yielded != 0
}

// goAway tells the client of an HTTP/2 connection, and those of its WebSockets.
func (d *departures) goAway(c *conn) {
	d.webSockets.Leave(c)
	c.GoAway()
}

// tellOther tells the client of any other connection: a WebSocket by 1001, the owner of a
// hijacked or custom connection by [Conn.Draining], and HTTP/1.1 by the next response
// or by closing the connection if it is idle.
func (d *departures) tellOther(c *conn) {
	if c.account.State() == pool.StateUpgraded {
		d.tellWebSocket(c)
		return
	}
	d.closeIfIdle(c)
}

// tellWebSocket tells the WebSocket on an HTTP/1.1 connection that was told, if there is
// one. It does not for the age of the connection, because a WebSocket has its own.
func (d *departures) tellWebSocket(c *conn) {
	if c.account.CloseReason() != reasonAge || d.telling.Load() {
		d.webSockets.Leave(c)
	}
}

// closeIfIdle closes an HTTP/1.1 connection that is idle, and not fresh. One that has only
// reached its age its next response or the idle timeout closes: a request may be on its way,
// and no drain, reload or newcomer waits for its end.
func (d *departures) closeIfIdle(c *conn) {
	switch f := &c.rare().leave; {
	case c.isHTTP2():
	case !f.aged.Load() || f.yielded.Load() != 0:
		c.closeIdle(time.Duration(d.fresh.Load()))
	case c.account.State() == pool.StateIdle:
		f.cut.Store(0) // Until it has a request; see boundLast.
	}
}

// boundLast has the patience of an HTTP/1.1 connection that has reached its age begin with the
// request that it has now: the sweep has told it within an earlier one.
func (c *conn) boundLast(ageGrace time.Duration) {
	if c.rare().leave.aged.Load() {
		c.ensureRare().leave.cut.Store(int64(moments.Cut(sinceStart(), ageGrace)))
	}
}

// spread calls tell for each connection at its moment of d, until all were told or ctx
// ends; then it calls tell for the rest at once. See [moments.Spread].
func spread(ctx context.Context, conns []connRef, d time.Duration, tell func(*conn)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	started := time.Now()
	for i, at := range moments.Spread(moments.Random, len(conns), d) {
		if wait := at - time.Since(started); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if c := conns[i].Value(); c != nil {
			tell(c)
		}
	}
}

// end closes an HTTP/2 connection behind a GOAWAY, in the background: a client that reads
// nothing takes a second. If finalGoAway is writing that GOAWAY, end waits for it.
func (d *departures) end(c *conn, reason string) {
	c.account.SetCloseReason(reason)
	if !d.background.run(func() {
		if c.namesLast() {
			c.depart(departFinal)
			c.FinalGoAway()
		}
		_ = c.Close()
	}) {
		_ = c.Close()
	}
}

// floodGrace is how long a client that was told to leave for its resets may open streams,
// because it has not read that yet, and no more than eight times those that it may have open.
const floodGrace = time.Second

// flooded has a connection leave whose client has had too many streams broken off, and is
// told so by a GOAWAY that refuses none. The sweep closes the connection like any that was told
// to leave. inner is what the connection was made of, as in all that a sniff.Watch calls.
func (d *departures) flooded(inner net.Conn) {
	if c := connAround(inner); c != nil {
		d.leaveFlood(c)
	}
}

// leaveFlood is flooded for a connection that is known.
func (d *departures) leaveFlood(c *conn) {
	c.ensureRare().leave.flooded.Store(int64(sinceStart()))
	d.depart(c, reasonFlood, 0)
}

// floodsOn reports whether a client opens streams although its resets have made it leave. A
// client that keeps to the protocol opens none, so this one attacks. Only the sweep calls it.
func (c *conn) floodsOn() bool {
	f := &c.rare().leave
	flooded := time.Duration(f.flooded.Load())
	if flooded == 0 || sinceStart()-flooded < floodGrace {
		return false
	}
	opened := uint64(c.OpenedStreams())
	if !c.isHTTP2() {
		opened = c.account.Requests() // It was upgraded to h2c.
	}
	if f.opened == 0 {
		f.opened = opened
	}
	return opened > f.opened
}

// mixed has a native gRPC connection leave on which a stream was refused that is not for
// the native server. The client was told, by a GOAWAY that names its last stream, and its
// next connection goes to the shared server. The sweep closes the connection like any that
// was told to leave: not before calls that have just arrived or ended can have their
// answers.
func (d *departures) mixed(inner net.Conn, isCall bool) {
	if c := connAround(inner); c != nil {
		d.depart(c, reasonReclassified, 0)
		d.books.countReclassified(c, isCall)
	}
}

// shrunk has a connection of net/http leave whose client wants a smaller HPACK table than
// the server's encoder uses; see the type encoderTable in protocols/internal/h2. Its next
// connection begins with that table.
func (d *departures) shrunk(inner net.Conn) {
	if c := connAround(inner); c != nil && d.depart(c, reasonTable, 0) {
		d.background.run(func() { d.goAway(c) })
	}
}

// connAround returns the connection whose sniff.Conn wraps inner, and nil for another's.
func connAround(inner net.Conn) *conn {
	for layer := range pool.Layers(inner) {
		if account, ok := layer.(*pool.Conn); ok {
			c, _ := account.Owner().(*conn)
			return c
		}
	}
	return nil
}

// clockStart is what connections count their own times from.
var clockStart = time.Now()

// sinceStart returns the time of the process's own clock; never 0.
func sinceStart() time.Duration { return max(1, time.Since(clockStart)) }

// setDue sets when the connection reaches its age; the zero time is never.
func (c *conn) setDue(t time.Time) {
	var due time.Duration
	if !t.IsZero() {
		due = max(1, t.Sub(clockStart))
	}
	c.due.Store(int64(due))
}

// overAge returns for how long the connection has been too old, negative if it is not.
func (c *conn) overAge() time.Duration {
	due := time.Duration(c.due.Load())
	if due == 0 {
		return -1
	}
	return sinceStart() - due
}

// Disconnect ends the connections that which selects, and returns how many there were.
// Their clients are told to leave, as by a drain. What is under way goes on for at most
// patience, and then they are cut; with 0 they are closed at once. Disconnect does not wait
// for that, and keeps no connection in memory behind its end. which is called for each live
// connection.
func (s *Server) Disconnect(which func(ConnInfo) bool, patience time.Duration) int {
	leaving := s.books.all(func(c *conn) bool { return which(c.info()) })
	for _, c := range leaving {
		if patience <= 0 || c.stage() < stageServing { // It has nothing under way.
			s.departures.cut(c)
		} else {
			s.departures.leave(c, reasonDisconnected, 0)
		}
	}
	if patience > 0 && len(leaving) > 0 {
		refs := refsOf(leaving)
		s.running.background.run(func() {
			select {
			case <-time.After(patience):
				for _, ref := range refs {
					if c := ref.Value(); c != nil {
						s.departures.cut(c)
					}
				}
			case <-s.running.serving.Done(): // The end of the server closes them.
			}
		})
	}
	return len(leaving)
}

// cut closes a connection, whatever is under way on it.
func (d *departures) cut(c *conn) {
	switch {
	case c.account.State() == pool.StateClosing:
	case c.stage() < stageServing: // The layers above belong to the goroutine that recognises it.
		c.account.SetCloseReason(reasonDisconnected)
		_ = c.account.CloseBelow()
	case d.books.endsLikeComplete(c):
		c.abort(reasonDisconnected)
	default:
		c.closeFor(reasonDisconnected)
	}
}
