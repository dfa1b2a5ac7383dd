package protocols

import (
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// ReadOnReady reads up to bufSize bytes into a buffer that it takes from pool
// when there is something to read, so that an idle connection holds none.
// grpc-go finds this method by its shape. The caller gives the buffer back; it
// is nil where n is 0.
//
// That needs a connection that was recognised as HTTP2 or GRPC, and a wrapped one that says, as a
// rawReader, that its socket can be read past it. Elsewhere, as with TLS, the buffer is taken first, as grpc-go
// does for such connections.
func (c *Conn) ReadOnReady(bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	t := c.h2.Load()
	if e := c.early.Load(); e != nil && e.isDue() || t == nil || t.gated() || bufSize <= 0 {
		return readInto(c, bufSize, pool)
	}
	r := t.readAhead()
	if !r.isRaw() || r.buffered() {
		return readInto(c, bufSize, pool)
	}
	buf, n, err := r.read(bufSize, pool)
	if n > 0 {
		t.follow((*buf)[:n])
	}
	return buf, n, err
}

// readAhead returns what the connection is read through. It belongs to the reading side.
func (t *http2Track) readAhead() *readAhead {
	if t.ahead == nil {
		if t.ahead = newReadAhead(t.conn.inner); t.ahead == nil {
			t.ahead = notAhead
		}
	}
	return t.ahead
}

// A rawReader is a connection whose raw socket leads to the very bytes that its Read would return.
type rawReader interface {
	net.Conn
	// ReadConn reports false where that is not so.
	ReadConn() (syscall.RawConn, bool)
	// CountRead is told of each raw read.
	CountRead(n int)
	// NoteError is told how one has failed.
	NoteError(err error)
}

// readInto reads from r into a buffer of pool.
func readInto(r io.Reader, bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	buf := pool.Get(bufSize)
	n, err := r.Read(*buf)
	if n == 0 {
		pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, err
}
