package pool

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// The parts of Conn.writes: the outstanding writes, copies by ReadFrom among them, and how
// many have ended. [StallWatch] reads them.
const (
	writeBegun = 1
	writeEnded = 1 << 32
)

func (c *Conn) countReceived(n uint64) {
	c.received.Add(n)
	c.touch(anyNote << readNoteShift)
}

// touch notes that bytes have passed, in the direction that has the bits note.
func (c *Conn) touch(note uint32) {
	if now := c.account.Load().set.clock.Load(); c.last.Load() != now {
		c.last.Store(now)
	}
	if c.status.Load()&note != 0 {
		c.status.And(^note)
	}
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (n int, err error) {
	if r := c.reader.Load(); r != nil && r.ahead != nil {
		return r.take(p), nil
	}
	if c.status.Load()&(lazyBit|directBit) == lazyBit {
		n, err = c.read(p)
	} else {
		n, err = c.raw.Read(p)
	}
	if n > 0 {
		c.countReceived(uint64(n))
	}
	if err != nil && err != errReadDeadline { //nolint:errorlint // That very error is ours, and says nothing.
		c.noteReadError(err)
	}
	return n, err
}

// Write implements [net.Conn]. It keeps nothing on the stack while the bytes are written:
// net/http's HTTP/2 server writes from goroutines whose stack would have to grow.
func (c *Conn) Write(p []byte) (int, error) {
	if s, ok := c.raw.(*steps); ok {
		return s.write(c, p)
	}
	c.writes.Add(writeBegun)
	return c.endWrite(c.raw.Write(p))
}

// endWrite books what a write has done, and returns it.
//
//go:noinline
func (c *Conn) endWrite(n int, err error) (int, error) {
	c.writes.Add(writeEnded - writeBegun)
	if n > 0 {
		c.sent.Add(uint64(n))
		c.touch(anyNote << writeNoteShift)
	}
	if err != nil {
		c.noteWriteError(err)
	}
	return n, err
}

// steps is a connection of which the system does not say what the peer takes. Each step of
// a write is booked, so that [StallWatch] sees a slow peer move. It has no ReadFrom of its
// own, which would hide the steps.
type steps struct {
	net.Conn

	mu sync.Mutex // Writes of several goroutines do not mix.
}

// NetConn leads to the wrapped connection.
func (s *steps) NetConn() net.Conn { return s.Conn }

// stepSize is how much is written at a time.
const stepSize = 64 << 10

func (s *steps) write(c *Conn, p []byte) (written int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		c.writes.Add(writeBegun)
		n, err := c.endWrite(s.Conn.Write(p[:min(len(p), stepSize)]))
		written += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

// writerOnly and readerOnly hide the methods by which io.Copy would come back to the
// ReadFrom or WriteTo that called it.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

// ReadFrom implements [io.ReaderFrom] by the wrapped connection's own, so that a file or
// a socket is sent without passing through user space, where the system says what the peer
// takes of it. The bytes are booked when the copy ends.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	rf, ok := c.raw.(io.ReaderFrom)
	if !ok {
		return io.Copy(writerOnly{c}, r)
	}
	c.writes.Add(writeBegun)
	n, err := rf.ReadFrom(r)
	c.writes.Add(writeEnded - writeBegun)
	if n > 0 {
		c.sent.Add(uint64(n))
		c.touch(anyNote << writeNoteShift)
	}
	if err != nil && !failedBy(err, "read") {
		c.noteWriteError(err)
	}
	return n, err
}

// WriteTo implements [io.WriterTo] by the wrapped connection's own, as ReadFrom does.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	wt, ok := c.NetConn().(io.WriterTo)
	if !ok {
		return io.Copy(w, readerOnly{c})
	}
	buffered, err := c.writeBuffered(w)
	if err != nil {
		return buffered, err
	}
	c.beEager()
	n, err := wt.WriteTo(w)
	if n > 0 {
		c.countReceived(uint64(n))
	}
	switch {
	case err == nil: // A copy that ends well has come to the end of the stream.
		c.noteReadError(io.EOF)
	case !failedBy(err, "write"):
		c.noteReadError(err)
	}
	return buffered + n, err
}

// failedBy reports whether the error of a copy comes from the operation op. If that is
// the other connection's, it says nothing about this one.
func failedBy(err error, op string) bool {
	var failed *net.OpError // The copy has wrapped another in one of its own.
	return errors.As(err, &failed) && (failed.Op == op || failedBy(failed.Err, op))
}

// CloseWrite sends the end of the stream and leaves the other direction open.
// It returns [errors.ErrUnsupported] where the wrapped connection cannot.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.NetConn().(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn implements [syscall.Conn]. What is read or written there is not counted,
// and a read there passes over what [Conn.ReadAhead] has read ahead.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.syscallConn()
	if raw == nil {
		return nil, err
	}
	return rawConn{raw}, err
}

func (c *Conn) syscallConn() (syscall.RawConn, error) {
	sc, ok := c.NetConn().(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	c.beEager()
	return sc.SyscallConn()
}

// rawConn hides the method by which (*os.File).WriteTo finds the socket behind a
// connection. It would send past the account; ReadFrom is as fast and counts.
type rawConn struct{ syscall.RawConn }

// Close closes the wrapped connection. The first call takes c out of its pool.
func (c *Conn) Close() error {
	c.closeReason.CompareAndSwap(nil, reasonOf(c.status.Load()))
	err := c.raw.Close()
	if c.status.Or(closedBit)&closedBit == 0 {
		c.SetState(StateClosing)
		c.account.Load().set.remove(c)
	}
	return err
}

// Abort is Close for a connection on which something is not complete: the peer of a TCP
// connection gets a reset (RST) instead of an end that looks like any other (FIN), and
// nothing more of what was written. Elsewhere, as on a Unix socket, the peer sees the end
// alone, but the layers above the socket, as TLS that [Set.Add] was given, say no farewell.
func (c *Conn) Abort() error {
	if tcp, ok := c.lowest().(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	return c.CloseBelow()
}

// CloseBelow is Close that waits for nothing. The layers above the socket, as TLS that
// [Set.Add] was given, say no farewell, for which they would wait where the peer reads nothing.
// What was written still goes out.
func (c *Conn) CloseBelow() error {
	err := c.lowest().Close()
	_ = c.Close()
	return err
}

// lowest returns the lowest of the layers.
func (c *Conn) lowest() net.Conn {
	lowest := c.raw
	for layer := range Layers(c.raw) {
		lowest = layer
	}
	return lowest
}

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }
