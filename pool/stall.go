package pool

import (
	"net"
	"time"
)

// StallWatch finds connections whose peer takes nothing of what it is sent: a write is
// outstanding and makes no progress. The zero value is ready to use.
//
// [Set.Sweep]'s visit asks it about every connection, so its methods must not be called
// concurrently. A connection that is not writing costs one atomic load; only those that
// are writing are remembered. Writes do not know of the watch.
//
// On Linux, what the peer's system has acknowledged on a TCP connection is progress, so a
// slow reader counts as moving even while one big write fills the kernel's buffer. A peer
// whose receive buffer was full takes more only when a good part of it has been read: 128
// KiB at a time on the loopback. A reader of 2 KB a second may therefore stand still for
// a minute, and a limit has to leave that time.
//
// For Unix sockets, pipes, other systems and Linux before 4.6, progress is the number of
// bytes sent, which moves when a write ends. There a copy by [Conn.ReadFrom] never counts
// as stalled, because its source may be the slow side.
type StallWatch struct {
	now   time.Time // of the sweep
	sweep uint64    // counts the sweeps
	marks map[*Conn]stallMark
}

// stallMark is what is remembered of a connection that was writing.
type stallMark struct {
	writes, sent, acked uint64
	since               time.Time // the first sweep that saw it like this
	sweep               uint64    // the last one that did
}

// Check returns for how long the outstanding writes of c have made no progress, and 0
// where there is none, or it moves, or it is seen to stand still for the first time. That
// is up to one sweep less than the truth.
//
// now is the time of the sweep, the same for all its connections. A connection that is
// not asked about in one sweep is forgotten in the next.
func (w *StallWatch) Check(now time.Time, c *Conn) time.Duration {
	if !now.Equal(w.now) {
		w.begin(now)
	}
	writes := c.writes.Load()
	if writes%writeEnded == 0 {
		if len(w.marks) > 0 {
			delete(w.marks, c)
		}
		return 0
	}
	mark := stallMark{writes: writes, sent: c.sent.Load(), since: now, sweep: w.sweep}
	acked, waiting, known := sendQueue(c.raw)
	mark.acked = acked
	old, marked := w.marks[c]
	still := marked && old.sent == mark.sent && old.acked == acked && old.writes/writeEnded == writes/writeEnded
	switch {
	case known && !waiting: // The peer has taken all there is: a copy waits for its source.
		still = false
	case !known && writes%copyBegun == 0:
		still = false
	}
	if still {
		mark.since = old.since
	}
	if w.marks == nil {
		w.marks = make(map[*Conn]stallMark)
	}
	w.marks[c] = mark
	return now.Sub(mark.since)
}

// begin begins a sweep, and forgets the connections that the last one did not visit: they
// are closed.
func (w *StallWatch) begin(now time.Time) {
	if len(w.marks) == 0 {
		w.marks = nil // A map does not give back what it needed at its peak.
	}
	for c, mark := range w.marks {
		if mark.sweep != w.sweep {
			delete(w.marks, c)
		}
	}
	w.now = now
	w.sweep++
}

// sendQueue returns how many bytes the peer has acknowledged, and whether some still wait
// for that or to be sent. It is known for TCP connections, on some systems.
func sendQueue(c net.Conn) (acked uint64, waiting, known bool) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		// A connection with a PROXY header before it shows the socket behind it like
		// this.
		behind, is := c.(interface{ TCPConn() (*net.TCPConn, bool) })
		if !is {
			return 0, false, false
		}
		if tcp, ok = behind.TCPConn(); !ok {
			return 0, false, false
		}
	}
	return tcpSendQueue(tcp)
}
