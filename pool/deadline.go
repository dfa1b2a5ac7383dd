package pool

import (
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"time"
)

// net/http moves the read deadline of an HTTP/1.1 connection five times for each
// request, mostly to later, and each move costs a timer. So on a bare socket a deadline
// is noted, and the socket gets it only if a Read is waiting or begins and the socket's
// own is later. A Read that the socket's deadline ends too early gives the socket the
// noted one, and goes on.
//
// Reads past [Conn.Read] cannot go on like that. Before the first of them the connection
// becomes eager for good: the socket gets each deadline at once.

// The deadlines that are no time. Others are nanoseconds since the Set began, above 0.
const (
	noDeadline   = 0
	pastDeadline = -1 // It had run out before the Set began. Servers wake reads so.
)

// errReadDeadline is the error of a Read whose deadline had run out before it began. A
// socket's own has network and addresses as well.
var errReadDeadline error = &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}

// armLocks is how many locks the connections of a Set share; see armLock.
const armLocks = 64

// armLock returns the lock that guards the socket's SetReadDeadline and the writing of
// Conn.armed.
func (c *Conn) armLock() *sync.Mutex { return &c.account.Load().set.armLocks[c.id%armLocks] }

// deadline converts a time. One that is centuries ahead is none.
func (c *Conn) deadline(t time.Time) int64 {
	if t.IsZero() {
		return noDeadline
	}
	since := c.account.Load().since(t)
	switch {
	case since <= 0:
		return pastDeadline
	case since == math.MaxInt64:
		return noDeadline
	}
	return int64(since)
}

// since returns the time from the Set's beginning to t: negative for an earlier one, and
// at most [math.MaxInt64].
func (a *account) since(t time.Time) time.Duration {
	switch {
	case t.Unix() <= longAgo: // No clock need be asked.
		return pastDeadline
	case isWall(t):
		if until := time.Until(t); until < math.MaxInt64/2 {
			return time.Duration(a.now()) + until
		}
		return math.MaxInt64
	default:
		return t.Sub(a.began)
	}
}

// longAgo is a Unix time that has passed on every clock. net/http wakes a read by the
// first second.
const longAgo = 1000

// isWall reports whether t has no monotonic reading.
func isWall(t time.Time) bool { return t == t.Round(0) }

// deadlineTime converts it back.
func (c *Conn) deadlineTime(d int64) time.Time {
	if d == noDeadline {
		return time.Time{}
	}
	return c.account.Load().at(d)
}

// setReadDeadline sets the read deadline of a bare socket.
func (c *Conn) setReadDeadline(t time.Time) error {
	want := c.deadline(t)
	aborts := c.hasPassed(want)
	if aborts {
		c.status.Or(readAborted) // Before a read can fail by it.
	}
	c.want.Store(want)
	var err error
	switch {
	case c.status.Load()&(eagerBit|closedBit) != 0:
		err = c.rearm()
	case c.readers.Load() > 0:
		err = c.arm()
	}
	if !aborts && c.status.Load()&readAborted != 0 {
		c.status.And(^uint32(readAborted))
	}
	return err
}

// hasPassed reports whether a deadline has run out. It asks the system's clock only if
// the Set's coarse one does not tell.
func (c *Conn) hasPassed(want int64) bool {
	a := c.account.Load()
	switch {
	case want == noDeadline:
		return false
	case want == pastDeadline:
		return true
	case want > (int64(a.set.clock.Load())+clockLag)*int64(clockStep):
		return false
	}
	return want <= a.now()
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

// arm gives the socket the deadline that is wanted, if its own is later.
func (c *Conn) arm() error {
	if !c.isLate(c.want.Load()) {
		return nil
	}
	return c.rearm()
}

// rearm gives the socket the deadline that is wanted. A concurrent setReadDeadline may
// have found in armed that there is nothing to do, so rearm looks again in the end.
func (c *Conn) rearm() error {
	lock := c.armLock()
	lock.Lock()
	defer lock.Unlock()
	for {
		want := c.want.Load()
		c.armed.Store(want)
		if err := c.raw.SetReadDeadline(c.deadlineTime(want)); err != nil || c.want.Load() == want {
			return err
		}
	}
}

// beEager has the socket get each deadline at once from now on.
func (c *Conn) beEager() {
	if status := c.status.Load(); status&lazyBit == 0 || status&eagerBit != 0 {
		return
	}
	c.status.Or(eagerBit)
	_ = c.rearm() // It fails only on a closed connection.
	c.status.Or(directBit)
}

// read reads from a bare socket.
func (c *Conn) read(p []byte) (n int, err error) {
	c.readers.Add(1)
	for {
		want := c.want.Load()
		if want == pastDeadline && c.status.Load()&closedBit == 0 {
			err = errReadDeadline
			break
		}
		if c.isLate(want) {
			_ = c.rearm() // It fails only on a closed connection, as Read will.
		}
		if n, err = c.raw.Read(p); err == nil || n > 0 || !c.isEarly(err) {
			break
		}
	}
	c.readers.Add(-1)
	return n, err
}

// isEarly reports whether err is the timeout of a deadline that is not the wanted one any
// more. If so, it has given the socket the wanted one.
func (c *Conn) isEarly(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	want := c.want.Load()
	return !c.hasPassed(want) && c.rearm() == nil
}
