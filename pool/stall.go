package pool

import (
	"iter"
	"net"
	"syscall"
	"time"
)

// StallWatch finds connections whose peer takes nothing of what it is sent: a write is
// outstanding and makes no progress. The zero value is ready to use. [Set.Sweep]'s visit
// asks it about every connection of one Set, so Check must not be called concurrently. A
// connection that is not writing costs one atomic load.
//
// On Linux, what the peer's system has acknowledged on a TCP connection is progress, so a
// slow reader counts as moving even while one big write fills the kernel's buffer. A peer
// whose receive buffer was full takes more only when a good part of it has been read: 128
// KiB at a time on the loopback. A reader of 2 KB a second may stand still for a minute.
//
// On other systems, Linux before 4.6, and connections that do not lead to a TCP socket (see
// [Layers]), progress is a write of up to 64 KiB that ends. The kernel has the writer go on
// when a good part of its send buffer is free: 160 KiB on a Unix socket of Linux.
type StallWatch struct {
	now   time.Time            // of the sweep
	marks map[uint64]stallMark // by the numbers of connections, which may end before the next sweep
}

// stallMark is what is remembered of a connection that was writing.
type stallMark struct {
	writes, sent, acked uint64
	since, seen         time.Time // the first and the last sweep that saw it like this
}

// Check returns for how long the outstanding writes of c have made no progress: up to one
// sweep less than the truth. It returns 0 where nothing is outstanding or it moves.
//
// now is the same for all connections of one sweep. A connection that is not asked about
// in one sweep is forgotten in the next.
func (w *StallWatch) Check(now time.Time, c *Conn) time.Duration {
	if !now.Equal(w.now) {
		w.begin(now)
	}
	writes := c.writes.Load()
	if writes%writeEnded == 0 {
		if len(w.marks) > 0 {
			delete(w.marks, c.id)
		}
		return 0
	}
	mark := stallMark{writes: writes, sent: c.sent.Load(), since: now, seen: now}
	queue, known := sendQueueOf(c.raw)
	mark.acked = queue.acked
	waiting := !known || queue.unacked|queue.unsent != 0
	// Where nothing waits, the peer has taken all there is: a copy waits for its source.
	old, marked := w.marks[c.id]
	if marked && waiting && old.sent == mark.sent && old.acked == mark.acked && old.writes/writeEnded == writes/writeEnded {
		mark.since = old.since
	}
	if w.marks == nil {
		w.marks = make(map[uint64]stallMark)
	}
	w.marks[c.id] = mark
	return now.Sub(mark.since)
}

// begin begins a sweep, and forgets connections that the last one did not visit, because
// they are closed.
func (w *StallWatch) begin(now time.Time) {
	if len(w.marks) == 0 {
		w.marks = nil // A map does not give back what it needed at its peak.
	}
	for id, mark := range w.marks {
		if !mark.seen.Equal(w.now) {
			delete(w.marks, id)
		}
	}
	w.now = now
}

// SendQueue returns how many bytes the peer's system has acknowledged, and whether bytes
// that were written still wait to be sent. Nothing waits on a connection that is reset.
// known is false where the system does not say: it does for TCP, on Linux.
func (c *Conn) SendQueue() (acked uint64, unsent, known bool) {
	q, known := sendQueueOf(c.raw)
	return q.acked, q.unsent > 0, known
}

// Unacknowledged reports whether bytes that were written have not reached the peer's system
// yet, and how many have, where the system says so, as it does for TCP, on Linux. A close
// may lose them. Nothing waits on a connection that is reset.
func (c *Conn) Unacknowledged() (acked uint64, waiting bool) {
	q, _ := sendQueueOf(c.raw)
	return q.acked, q.unacked|q.unsent != 0
}

// PeerLeft reports whether the peer has ended its half of the connection, or reset it, where
// the system says so, as it does for TCP, on Linux. Nobody needs to be reading for that.
func (c *Conn) PeerLeft() (ended, reset bool) {
	q, _ := sendQueueOf(c.raw)
	return q.ended, q.reset
}

// sendQueue is what the kernel knows of the bytes that were written to a connection, and of
// its peer.
type sendQueue struct {
	acked   uint64 // bytes that the peer's system has taken
	unacked uint32 // segments that were sent and not acknowledged; 0 behind a reset
	unsent  uint32 // bytes that wait to be sent; 0 behind a reset
	ended   bool   // the peer sends no more
	reset   bool   // the connection is no more
}

// sendQueueOf is known for TCP connections, on some systems.
func sendQueueOf(c net.Conn) (q sendQueue, known bool) {
	raw := socketOf(c)
	if raw == nil {
		return sendQueue{}, false
	}
	return tcpSendQueue(raw)
}

// Layers returns a connection and those that it wraps, from the top down, as far as methods
// NetConn() net.Conn lead.
func Layers(c net.Conn) iter.Seq[net.Conn] {
	return func(yield func(net.Conn) bool) {
		for layer := c; layer != nil && yield(layer); {
			wrapper, ok := layer.(interface{ NetConn() net.Conn })
			if !ok {
				return
			}
			layer = wrapper.NetConn()
		}
	}
}

// socketOf returns the socket below a connection, and nil where none of its layers knows it.
func socketOf(c net.Conn) syscall.RawConn {
	for layer := range Layers(c) {
		if socket, ok := layer.(syscall.Conn); ok {
			if raw, err := socket.SyscallConn(); err == nil {
				return raw
			}
		}
	}
	return nil
}
