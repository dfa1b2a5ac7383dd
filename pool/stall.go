package pool

import (
	"net"
	"time"
)

// StallWatch finds the connections whose peer takes nothing of what it is sent: those with a write
// outstanding that makes no progress. The zero value is ready to use.
//
// It is made to be asked about every connection in each sweep ([Set.Sweep]), by one goroutine:
// its methods must not be called concurrently. A connection that is not writing, as nearly all are, costs one
// atomic load, and only those that are writing are remembered. A write does not know that it is watched.
//
// On Linux, progress of a TCP connection is what the peer's system has acknowledged, so that a slow reader
// counts as moving even while one big write fills the kernel's buffer. A peer's system whose receive buffer was
// full takes the next bytes only when a good part of it has been read: 128 KiB at a time on the loopback, unless the peer has
// chosen another size. So whoever reads 2 KB in a second may stand still for a minute, and a limit has to leave that time.
//
// Elsewhere, which is Unix sockets, pipes, other systems and a Linux before 4.6, progress is the number of bytes sent, which no
// write moves before it ends; there a copy by [Conn.ReadFrom] never counts as stalled, for it may be its source that is slow.
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

// Check returns for how long the writes that c has outstanding have made no progress, and 0 where none
// is outstanding, or it moves, or was not known to stand still before. That is up to one sweep less than the truth.
//
// now is the time of the sweep, the same for all its connections. A connection that is not
// asked about in one sweep is forgotten in the next.
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

// begin begins a sweep, and forgets the connections that the last one did not come by: they are closed.
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

// sendQueue returns how many bytes the peer has acknowledged, and whether some are still waiting
// for that or to be sent. It is not known for what is not a TCP connection, nor on every system.
func sendQueue(c net.Conn) (acked uint64, waiting, known bool) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		// A connection with a PROXY header before it shows the socket behind it like this.
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
