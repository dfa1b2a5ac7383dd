package pool

import (
	"errors"
	"math"
	"net"
	"os"
	"time"
)

// net/http moves the read deadline of an HTTP/1.1 connection five times for each
// request, mostly to later, and each move costs a timer. So on a bare socket a deadline
// is noted, and the socket gets it only if a Read is waiting or begins and the socket's
// own is later. A Read that the socket's deadline ends too early gives the socket the
// noted one, and goes on. Reads past [Conn.Read] cannot do that. Before the first of them
// the connection becomes eager for good: the socket gets each deadline at once.

// The deadlines that are no time. Others are nanoseconds since the Set began, above 0.
const (
	noDeadline   = 0
	pastDeadline = -1 // It had run out before the Set began. Servers wake reads so.
)

// errReadDeadline is the error of a Read whose deadline had run out before it began.
var errReadDeadline error = &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() && c.status.Load()&(writeDeadlineBit|closedBit) == 0 {
		return nil
	}
	c.status.Or(writeDeadlineBit)
	return c.setDeadline(t, writeAborted, c.raw.SetWriteDeadline)
}

// setDeadline sets a deadline and remembers whether it had run out already. The bit is
// set before an operation can fail by it, and cleared when none does any more.
func (c *Conn) setDeadline(t time.Time, aborted uint32, set func(time.Time) error) error {
	if !t.IsZero() && time.Until(t) <= 0 {
		c.status.Or(aborted)
		return set(t)
	}
	err := set(t)
	if c.status.Load()&aborted != 0 {
		c.status.And(^aborted)
	}
	return err
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.status.Load()&lazyBit == 0 {
		return c.setDeadline(t, readAborted, c.raw.SetReadDeadline)
	}
	want := c.deadline(t)
	aborts := c.hasPassed(want)
	if aborts {
		c.status.Or(readAborted) // Before a read can fail by it.
	}
	c.want.Store(want)
	var err error
	if c.status.Load()&(eagerBit|closedBit) != 0 || c.readers.Load() > 0 && c.isLate(want) {
		err = c.rearm()
	}
	if !aborts && c.status.Load()&readAborted != 0 {
		c.status.And(^uint32(readAborted))
	}
	return err
}

// deadline converts a time. One that is centuries ahead is none.
func (c *Conn) deadline(t time.Time) int64 {
	a := c.account.Load()
	switch {
	case t.IsZero():
		return noDeadline
	case t.Unix() <= 1000: // Long ago, by any clock: net/http wakes a read by the first second.
		return pastDeadline
	case t == t.Round(0): // It has no monotonic reading.
		t = time.Now().Add(time.Until(t))
	}
	switch since := t.Sub(a.began); {
	case since <= 0:
		return pastDeadline
	case since == math.MaxInt64:
		return noDeadline
	default:
		return int64(since)
	}
}

// hasPassed reports whether a deadline has run out. It asks the system's clock only if
// the Set's coarse one does not tell.
func (c *Conn) hasPassed(want int64) bool {
	if want == noDeadline || want == pastDeadline {
		return want == pastDeadline
	}
	a := c.account.Load()
	return want <= (int64(a.set.clock.Load())+clockLag)*int64(clockStep) && want <= a.now()
}

// isLate reports whether the socket's deadline is later than want, or must not stay.
func (c *Conn) isLate(want int64) bool {
	armed := c.armed.Load()
	switch {
	case armed == pastDeadline || want == pastDeadline:
		return armed != want
	case want == noDeadline:
		return false
	default:
		return armed == noDeadline || want < armed
	}
}

// rearm gives the socket the deadline that is wanted, and writes it to armed. A lock that
// some connections share guards both. It looks again in the end, because a concurrent
// SetReadDeadline may have found in armed that there is nothing to do.
func (c *Conn) rearm() error {
	a := c.account.Load()
	lock := &a.set.armLocks[c.id%uint64(len(a.set.armLocks))]
	lock.Lock()
	defer lock.Unlock()
	for {
		want := c.want.Load()
		c.armed.Store(want)
		var t time.Time
		if want != noDeadline {
			t = a.at(want)
		}
		if err := c.raw.SetReadDeadline(t); err != nil || c.want.Load() == want {
			return err
		}
	}
}

// beEager has the socket get each deadline at once from now on.
func (c *Conn) beEager() {
	if c.status.Load()&(lazyBit|eagerBit) == lazyBit {
		c.status.Or(eagerBit)
		_ = c.rearm() // It fails only on a closed connection.
		c.status.Or(directBit)
	}
}

// read reads from a bare socket.
func (c *Conn) read(p []byte) (n int, err error) {
	isAlone := c.readers.Add(1) == 1
	for {
		want := c.want.Load()
		if want == pastDeadline && c.status.Load()&closedBit == 0 {
			err = errReadDeadline
			break
		}
		if c.isLate(want) {
			_ = c.rearm() // It fails only on a closed connection, as Read will.
		}
		if isAlone && len(p) >= minLargeRead && len(p) <= maxLargeRead {
			n, err = c.readLarge(p)
		} else {
			n, err = c.raw.Read(p)
		}
		if err == nil || n > 0 || !c.isEarly(err) {
			break
		}
	}
	c.readers.Add(-1)
	return n, err
}

// isEarly reports whether err is the timeout of a deadline that is not the wanted one any
// more. If so, it has given the socket the wanted one.
func (c *Conn) isEarly(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && !c.hasPassed(c.want.Load()) && c.rearm() == nil
}
