package pool

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
)

// readAheadSize is how much ReadAhead asks the system for at a time. It holds some
// dozens of requests of an HTTP/2 client; a bigger buffer costs more to copy from than
// it saves.
const readAheadSize = 4 << 10

// buffers is [google.golang.org/grpc/mem.BufferPool].
type buffers = interface {
	Get(length int) *[]byte
	Put(buf *[]byte)
}

// A read of minLargeRead to maxLargeRead is done as ReadAhead does it, without the
// scheduler: 5 % of upload-100MB, whose io.Discard reads minLargeRead at a time. A longer
// one would keep the processor from other goroutines for more than some 10 µs.
const (
	minLargeRead = 8 << 10
	maxLargeRead = 64 << 10
)

// A reader is what ReadAhead, ReadReady and large reads need. The goroutine that reads owns
// it.
type reader struct {
	raw syscall.RawConn

	ahead    *[]byte // What was read ahead; nil for nothing.
	off, end int32   // What is unread of it.
	filled   bool    // The last read of ReadAhead has filled its buffer.
	bulk     bool    // It was no shorter than one of readAheadSize: 2 % of h2c-upload.

	// The rest belongs to one read. It stands here, and step is made once, so that a
	// read allocates nothing.
	step func(fd uintptr) bool // tryRead
	pool buffers
	own  callerBuffer
	buf  *[]byte
	size int32
	n    int32
	err  syscall.Errno // 0 for none.
}

// IsBare reports whether c wraps a bare TCP or Unix socket that can be read in other
// ways than by its Read. Elsewhere ReadAhead and ReadReady do no more than Read.
func (c *Conn) IsBare() bool { return hasRecv && c.status.Load()&lazyBit != 0 }

// ReadAhead is Read for callers that read in small pieces, as net/http does with HTTP/2.
// It takes as much as is there into a buffer and serves small reads from that. An idle
// connection holds no buffer. None is taken where the last read has not filled p, because
// then there was no more, and where p was no shorter than the buffer, because then what
// comes is likely to be as long.
//
// What was read ahead is read regardless of deadlines and Close, by Read, ReadReady and
// WriteTo as well.
func (c *Conn) ReadAhead(p []byte) (int, error) {
	r := c.eagerReader()
	switch {
	case r == nil || r.ahead != nil || len(p) == 0:
		return c.Read(p)
	case r.filled && !r.bulk && len(p) < readAheadSize:
		buf, n, err := c.receive(r, readAheadSize, readAheadBuffers)
		if n == 0 {
			return 0, err
		}
		r.ahead, r.off, r.end = buf, 0, int32(n)
		n = r.take(p)
		r.filled = n == len(p)
		return n, nil
	}
	r.own = p
	_, n, err := c.receive(r, len(p), &r.own)
	r.own = nil
	r.filled, r.bulk = n == len(p), len(p) >= readAheadSize
	return n, err
}

// ReadReady waits until there is something to read, and reads up to size bytes into a
// buffer that it then takes from pool. So an idle connection holds none. The caller
// gives the buffer back; it is nil where n is 0. On a connection that is not bare the
// buffer is taken first.
func (c *Conn) ReadReady(size int, pool buffers) (buf *[]byte, n int, err error) {
	if r := c.eagerReader(); r != nil && r.ahead == nil && size > 0 {
		return c.receive(r, size, pool)
	}
	buf = pool.Get(size)
	if n, err = c.Read(*buf); n == 0 {
		pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, err
}

// bareReader returns c's reader, or nil where the connection is not bare.
func (c *Conn) bareReader() *reader {
	if r := c.reader.Load(); r != nil {
		return r
	}
	socket, ok := c.NetConn().(syscall.Conn)
	if !ok || !c.IsBare() {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	r := &reader{raw: raw}
	r.step = r.tryRead
	c.reader.Store(r)
	return r
}

// eagerReader is bareReader for reads past [Conn.Read].
func (c *Conn) eagerReader() *reader {
	r := c.bareReader()
	if r != nil {
		c.beEager()
	}
	return r
}

// receive is ReadReady on a bare socket. It books what it has read, and how it failed.
func (c *Conn) receive(r *reader, size int, pool buffers) (*[]byte, int, error) {
	buf, n, err := c.readSocket(r, size, pool)
	if n > 0 {
		c.countReceived(uint64(n))
	} else {
		c.noteReadError(err)
	}
	return buf, n, err
}

// readSocket is receive without the books.
func (c *Conn) readSocket(r *reader, size int, pool buffers) (*[]byte, int, error) {
	r.size, r.pool, r.n, r.err = int32(min(size, math.MaxInt32)), pool, 0, 0
	err := r.raw.Read(r.step)
	buf, n := r.buf, int(r.n)
	r.pool, r.buf = nil, nil
	if n > 0 {
		return buf, n, nil
	}
	return nil, 0, c.readError(err, r.err)
}

// readLarge reads from a bare socket for the only goroutine that reads.
func (c *Conn) readLarge(p []byte) (int, error) {
	r := c.bareReader()
	if r == nil {
		return c.raw.Read(p)
	}
	r.own = p
	_, n, err := c.readSocket(r, len(p), &r.own)
	r.own = nil
	return n, err
}

// tryRead reports false where the socket has nothing to read yet.
func (r *reader) tryRead(fd uintptr) bool {
	r.buf = r.pool.Get(int(r.size))
	n, err := recv(int(fd), *r.buf)
	if n > 0 {
		r.n, r.err = int32(n), 0
		return true
	}
	r.n = 0
	r.err, _ = err.(syscall.Errno) //nolint:errorlint // It is never anything else, and never wrapped.
	r.pool.Put(r.buf)
	r.buf = nil
	return r.err != syscall.EAGAIN
}

// readError returns why a reader got nothing, in the form that Read gives it: by waiting,
// by the read itself or, where neither failed, at the end of the stream.
func (c *Conn) readError(waiting error, reading syscall.Errno) error {
	switch failed, ok := errors.AsType[*net.OpError](waiting); {
	case ok:
		failed.Op = "read" // A raw socket's has another name. Nothing else holds this error.
		return failed
	case waiting != nil:
		return waiting
	case reading == 0:
		return io.EOF
	}
	addr := c.RemoteAddr()
	failed := &net.OpError{Op: "read", Source: c.LocalAddr(), Addr: addr, Err: os.NewSyscallError("read", reading)}
	if addr != nil {
		failed.Net = addr.Network()
	}
	return failed
}

// writeBuffered writes what was read ahead to w.
func (c *Conn) writeBuffered(w io.Writer) (int64, error) {
	r := c.reader.Load()
	if r == nil || r.ahead == nil {
		return 0, nil
	}
	n, err := w.Write((*r.ahead)[r.off:r.end])
	r.drop(n)
	return int64(n), err
}

// take copies from what was read ahead.
func (r *reader) take(p []byte) int {
	n := copy(p, (*r.ahead)[r.off:r.end])
	r.drop(n)
	return n
}

// drop consumes n bytes, and gives the buffer back when it is drained.
func (r *reader) drop(n int) {
	if r.off += int32(n); r.off == r.end {
		readAheadBuffers.Put(r.ahead)
		r.ahead = nil
	}
}

// readAheadBuffers is where ReadAhead takes its buffer.
var readAheadBuffers = &bufferPool{sync.Pool{New: func() any {
	b := make([]byte, readAheadSize)
	return &b
}}}

type (
	bufferPool   struct{ pool sync.Pool }
	callerBuffer []byte // the one buffer of the caller of ReadAhead
)

func (p *bufferPool) Get(int) *[]byte   { return p.pool.Get().(*[]byte) }
func (p *bufferPool) Put(b *[]byte)     { p.pool.Put(b) }
func (b *callerBuffer) Get(int) *[]byte { return (*[]byte)(b) }
func (*callerBuffer) Put(*[]byte)       {}
