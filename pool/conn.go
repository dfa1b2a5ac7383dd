package pool

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// State says what a connection is doing at the moment.
type State uint32

// The states of a connection. A server moves a connection between
// StateActive and StateIdle as often as it likes; the others are entered once.
const (
	StateSniffing State = iota // its protocol is not known yet
	StateActive                // a request, stream or call is in flight
	StateIdle                  // it is open and nothing is in flight
	StateUpgraded              // it left HTTP: WebSocket, or another protocol after a hijack
	StateClosing               // it was told to leave, or is being closed
)

var stateNames = [...]string{"sniffing", "active", "idle", "upgraded", "closing"}

// String returns the state's name in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// Conn is a connection with an account: an identity, times, bytes each way, a
// tag and a state. It is made by [Set.Add], and it may be embedded by value in
// a bigger struct; it must not be copied after that.
//
// Reads and writes pass straight through to the wrapped connection: nothing is
// buffered, locked or allocated on the way. ReadFrom, CloseWrite and SyscallConn are passed on as
// well, so that sendfile and splice work through the wrapper.
//
// All methods may be called concurrently. The account is closed by the first
// call to Close; a connection that is never closed stays in its pool.
type Conn struct {
	raw    net.Conn
	set    *Set
	owner  any
	id     uint64
	opened time.Time

	received atomic.Uint64
	sent     atomic.Uint64
	// last is the time of the last byte in either direction, in nanoseconds
	// since opened, so that it needs no wall clock.
	last  atomic.Int64
	state atomic.Uint32
	// inFlight and requests are requests, calls or WebSocket sessions.
	inFlight atomic.Int32
	requests atomic.Uint64
	closed   atomic.Bool
	// closeReason is what SetCloseReason was given first; nil before.
	closeReason atomic.Pointer[string]

	// client is what the limit per address counts it under; set by Identify.
	client netip.Addr

	// Guarded by set.mu: the pool it is in, and what it had already counted when it
	// came there, so that bytes are booked where they were moved.
	tag          Tag
	baseReceived uint64
	baseSent     uint64
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
)

// ID returns the connection's number. Numbers start at 1 and are unique within a Set.
func (c *Conn) ID() uint64 { return c.id }

// Owner returns the value that was given to [Set.Add].
func (c *Conn) Owner() any { return c.owner }

// NetConn returns the wrapped connection. What is read or written there is not counted.
func (c *Conn) NetConn() net.Conn { return c.raw }

// State returns what the connection is doing.
func (c *Conn) State() State { return State(c.state.Load()) }

// SetState records what the connection is doing. StateClosing is final: a later call has no effect.
func (c *Conn) SetState(s State) {
	for {
		old := c.state.Load()
		if State(old) == StateClosing || c.state.CompareAndSwap(old, uint32(s)) {
			return
		}
	}
}

// BeginRequest counts a request, call or WebSocket session that is in flight from
// now on. Each needs an EndRequest.
func (c *Conn) BeginRequest() {
	c.requests.Add(1)
	c.inFlight.Add(1)
}

// EndRequest ends what BeginRequest began.
func (c *Conn) EndRequest() { c.inFlight.Add(-1) }

// Requests returns how many requests the connection has had.
func (c *Conn) Requests() uint64 { return c.requests.Load() }

// InFlight returns how many of its requests are not answered yet.
func (c *Conn) InFlight() int { return int(c.inFlight.Load()) }

// Opened returns the time at which the connection was accepted.
func (c *Conn) Opened() time.Time { return c.opened }

// Received returns the number of bytes read from the peer so far.
func (c *Conn) Received() uint64 { return c.received.Load() }

// Sent returns the number of bytes written to the peer so far.
func (c *Conn) Sent() uint64 { return c.sent.Load() }

// LastActivity returns the time of the last byte in either direction, or the
// time of the accept if there was none.
func (c *Conn) LastActivity() time.Time { return c.opened.Add(time.Duration(c.last.Load())) }

// CountRead books n bytes that were read past the wrapper, through SyscallConn.
func (c *Conn) CountRead(n int) {
	if n > 0 {
		c.received.Add(uint64(n))
		c.touch()
	}
}

func (c *Conn) countSent(n int64) {
	if n > 0 {
		c.sent.Add(uint64(n))
		c.touch()
	}
}

func (c *Conn) touch() { c.last.Store(int64(time.Since(c.opened))) }

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.raw.Read(p)
	c.CountRead(n)
	return n, err
}

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.raw.Write(p)
	c.countSent(int64(n))
	return n, err
}

// writerOnly hides every method but Write, so that io.Copy does not come back
// to the ReadFrom or WriteTo that called it.
type writerOnly struct{ io.Writer }

type readerOnly struct{ io.Reader }

// ReadFrom implements [io.ReaderFrom] by the wrapped connection's own, which is
// what lets a file or a socket be sent without passing through user space. The
// bytes are booked when the copy ends.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	rf, ok := c.raw.(io.ReaderFrom)
	if !ok {
		return io.Copy(writerOnly{c}, r)
	}
	n, err := rf.ReadFrom(r)
	c.countSent(n)
	return n, err
}

// WriteTo implements [io.WriterTo] by the wrapped connection's own. The bytes are
// booked when the copy ends.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	wt, ok := c.raw.(io.WriterTo)
	if !ok {
		return io.Copy(w, readerOnly{c})
	}
	n, err := wt.WriteTo(w)
	if n > 0 {
		c.received.Add(uint64(n))
		c.touch()
	}
	return n, err
}

// CloseWrite sends the end of the stream and leaves the other direction open.
// It returns [errors.ErrUnsupported] where the wrapped connection cannot.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.raw.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn implements [syscall.Conn]. What is read or written there is not
// counted; see [Conn.CountRead].
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.raw.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	return rawConn{raw}, err
}

// ReadConn returns the raw socket where a read from it is a read from this
// connection: for a bare TCP or Unix socket, and not for a type that may hold
// bytes of its own. What is read there is to be told by [Conn.CountRead].
func (c *Conn) ReadConn() (syscall.RawConn, bool) {
	var raw syscall.RawConn
	var err error
	switch socket := c.raw.(type) {
	case *net.TCPConn:
		raw, err = socket.SyscallConn()
	case *net.UnixConn:
		raw, err = socket.SyscallConn()
	default:
		return nil, false
	}
	return raw, err == nil
}

// rawConn hides the method by which (*os.File).WriteTo finds the socket behind
// a connection: it would send past the account, where ReadFrom sends as fast and counts.
type rawConn struct{ syscall.RawConn }

// Close closes the wrapped connection and, the first time, takes the
// connection out of its pool.
func (c *Conn) Close() error {
	err := c.raw.Close()
	if c.closed.CompareAndSwap(false, true) {
		c.SetState(StateClosing)
		c.set.remove(c)
	}
	return err
}

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.raw.SetWriteDeadline(t) }
