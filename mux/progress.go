package mux

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// Only what has stopped moving is ended, and it is ended so that the client can tell it
// from what is complete. This file says what moving means; the sweep asks it, and counts
// the time.
//
//	a request body of declared length    MinBodyRate from BodyGrace on, counted from its
//	or what net/http reads by itself     first byte; a byte within ProgressTimeout
//	any other request body, full duplex  a byte within ProgressTimeout, as long as the
//	                                     handler waits for it and has not answered; there is
//	                                     no bound once the response has begun
//	either in HTTP/2                     the same and the time that the client may need for
//	                                     what it may not have read of its connection: room
//	                                     for more of the body stands behind that
//	a call of gRPC or Connect of         its handler's: no bound, as grpc-go has none for
//	undeclared length                    its own services
//	a response                           a byte that the client's system takes, or a frame
//	                                     that goes into the stream's window, within
//	                                     ProgressTimeout and, in HTTP/2, the time that the
//	                                     client may need for what it has got of those that
//	                                     wait ([moments.ReadTime]): it may give its windows
//	                                     back in steps of megabytes
//	several of the same HTTP/2           the same of all together, but 16 times the time at
//	connection                           most, while the connection moves a KiB a second: a
//	                                     slow link serves them in turn
//	a hijacked connection                its owner's: no bound
//
// A handler that sets a deadline by [http.ResponseController], or lifts it by the zero
// time, has taken over that direction of its request: no bound of ours is left.

// exchange is what the sweep sees of one HTTP/2 request: whether its handler waits for the
// client at the moment, and whether the client moves.
type exchange struct {
	watch   bodyWatch
	writing atomic.Bool   // the handler waits for room in the stream's window
	written atomic.Uint64 // bytes of the response that have gone through, and one for each call
	owned   atomic.Bool   // the handler has set a write deadline

	length int64 // of the body; 0 or less: it is not known, or there is none
	// unasked is set while the client waits to be told to send the body
	// (Expect: 100-continue).
	unasked atomic.Bool
	body    body2       // what the handler reads
	closed  atomic.Bool // the handler has closed the body

	// The list of a connection, and what the sweep remembers. Guarded by exchanges.mu.
	prev, next *exchange
	writer     http.ResponseWriter
	upload     upload
	stalled    stall
}

// exchanges are the requests of one HTTP/2 connection whose handlers are running.
// The zero value is empty.
type exchanges struct {
	mu                sync.Mutex // guards all below, and the links
	first             *exchange
	bodies, responses turns
}

// begin has the request of r watched until end. Its handler reads the body through r.
func (r *recorder2) begin(l *exchanges, w http.ResponseWriter, req *http.Request) {
	e := &r.exchange
	if req.Body != nil && req.Body != http.NoBody {
		e.watch.watch(req)
		r.watched = &e.watch
		e.length = req.ContentLength
		e.unasked.Store(e.hasRest() && protocols.AwaitsContinue(req.Body))
		e.body = body2{ReadCloser: req.Body, exchange: e}
		req.Body = &e.body
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e.writer = w
	if e.next = l.first; e.next != nil {
		e.next.prev = e
	}
	l.first = e
}

// end takes the request off the list, if it is there. The sweep does not use its writer any
// more.
func (e *exchange) end(l *exchanges) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.writer == nil {
		return
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.writer, e.prev, e.next = nil, nil, nil // A WebSocket may keep e for long.
}

// upload is what the sweep remembers of a request body.
type upload struct {
	waited   time.Duration // how long the handler has waited since the first byte, as seen from tick to tick
	idle     time.Duration // how long it has waited since the last one
	received int64
	// How long hold has had sweeps not count, in all and since the last byte.
	held, heldIdle time.Duration
}

// hold reports whether a sweep is not to count, because the client may need the time behind
// before it reads that it may go on. In all an upload has [moments.LongestQueue].
func (u *upload) hold(elapsed, behind time.Duration, received int64) bool {
	if received != u.received {
		u.heldIdle = 0
		return false
	}
	if u.heldIdle >= behind || u.held >= moments.LongestQueue {
		return false
	}
	u.held += elapsed
	u.heldIdle += elapsed
	return true
}

// tick adds a sweep at which the reader by waits, and reports whether the client is too slow.
// What net/http reads by itself has no late first byte, and the rate bounds it however its
// length is told.
func (u *upload) tick(elapsed time.Duration, received int64, by int32, duplex bool, c *protocols.ProgressConfig) bool {
	if received > 0 || by == readByServer {
		u.waited += elapsed
	}
	u.idle += elapsed
	if received != u.received {
		u.received, u.idle = received, 0
	}
	if c.ProgressTimeout > 0 && u.idle >= c.ProgressTimeout {
		return true
	}
	if duplex && by != readByServer || c.MinBodyRate <= 0 {
		return false
	}
	due := time.Duration(float64(received) / float64(c.MinBodyRate) * float64(time.Second))
	return u.waited > c.BodyGrace+due
}

// stall is what the sweep remembers of a write that may be waiting.
type stall struct {
	waiting time.Duration
	written uint64
}

// tick adds a sweep at which the handler is in a write, and reports whether the client has
// taken nothing for limit and the time that it may need for what it has got of all responses
// that wait. A limit of 0 is no bound.
func (s *stall) tick(elapsed time.Duration, written, got uint64, limit time.Duration) bool {
	s.waiting += elapsed
	if written != s.written {
		s.written, s.waiting = written, 0
	}
	return limit > 0 && s.waiting >= moments.Sum(limit, moments.ReadTime(got))
}

// ended is what a sweep has ended on a connection.
type ended struct{ bodies, responses int }

// movement is what the sweep knows of the connection of exchanges.
type movement struct {
	elapsed  time.Duration // since the last sweep
	received uint64        // from the client, in all
	sent     uint64        // of responses, to it
	unread   uint64        // of those, which the client may not have read
	// shut says that handlers have not read what fills the connection's window. Then no body
	// can move, and the client is not to blame.
	shut bool
	// blocked says that the connection waits for room in its socket. Then no response can
	// move, and checkWrites sees whether the client takes bytes.
	blocked bool
}

// sweep ends the streams whose client has stopped moving. The connection goes on, because
// it may carry others. owned says that a handler has taken over the bound of its response.
func (l *exchanges) sweep(m movement, c *protocols.ProgressConfig) (n ended, owned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		return ended{}, false // Connections without anything rare share one l.
	}
	nBodies, nResponses, got := l.waiting()
	bodies := l.bodies.share(m.elapsed, nBodies, m.received, c)
	responses := l.responses.share(m.elapsed, nResponses, m.sent, c)
	behind := moments.ReadTime(m.unread)
	for e := l.first; e != nil; e = e.next {
		switch received := e.watch.received.Load(); {
		case !e.watch.isBound() || m.shut:
			e.upload.idle = 0
		case e.watch.slow.Load(), e.upload.hold(m.elapsed, behind, received):
		case e.upload.tick(bodies, received, e.watch.reader.Load(), e.watch.duplex.Load(), c):
			e.watch.slow.Store(true)
			_ = http.NewResponseController(e.writer).SetReadDeadline(aLongTimeAgo)
			n.bodies++
		}
		switch {
		case e.owned.Load():
			owned = true
		case !e.writing.Load():
			e.stalled = stall{}
		case m.blocked:
		case e.stalled.tick(responses, e.written.Load(), got, c.ProgressTimeout):
			e.stalled = stall{} // The next sweep may come before the handler's write has failed.
			_ = http.NewResponseController(e.writer).SetWriteDeadline(aLongTimeAgo)
			n.responses++
		}
	}
	return n, owned
}

// waiting returns for how many bodies the server waits, how many responses for the client, and
// how many bytes of those have gone through.
func (l *exchanges) waiting() (bodies, responses int, got uint64) {
	for e := l.first; e != nil; e = e.next {
		if e.watch.isBound() {
			bodies++
		}
		if e.writing.Load() {
			responses++
			got += e.written.Load()
		}
	}
	return bodies, responses, got
}

// turns is what the sweep remembers of one direction of a connection whose streams share it.
type turns struct {
	moved uint64        // bytes, until the last sweep
	still time.Duration // for which the connection has been slower than leastRate
}

const (
	mostTurns = 16      // times that a stream may wait longer while others have their turn
	leastRate = 1 << 10 // bytes a second of a connection that moves
)

// share returns what of elapsed counts for each of n streams that wait: less where the
// connection moves, because then the others may have had their turn.
func (t *turns) share(elapsed time.Duration, n int, moved uint64, c *protocols.ProgressConfig) time.Duration {
	took := time.Duration(min(float64(moved-t.moved)/leastRate, time.Hour.Seconds()) * float64(time.Second))
	t.moved = moved
	t.still = max(0, t.still+elapsed-took)
	if t.still >= c.ProgressTimeout/4 {
		return elapsed
	}
	return elapsed / time.Duration(min(max(n, 1), mostTurns))
}
