package protocols

import (
	"io"

	"google.golang.org/grpc/mem"
)

// ReadOnReady reads up to bufSize bytes into a buffer that it takes from pool
// when there is something to read, so that an idle connection holds none.
// grpc-go finds this method by its shape. The caller gives the buffer back; it
// is nil where n is 0.
//
// Without a raw socket below, as with TLS, the buffer is taken first, as
// grpc-go does for such connections. A raw read is told to a wrapped connection
// that has a CountRead(int) method, since it passes over its Read; its
// SyscallConn must lead to the very bytes that its Read would return.
func (c *Conn) ReadOnReady(bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	if len(c.peek.unread()) > 0 || c.peek.err != nil || bufSize <= 0 {
		return readInto(c, bufSize, pool)
	}
	if c.ready == nil {
		c.ready = newReadyReader(c.inner)
	}
	if !c.ready.isRaw() {
		return readInto(c.inner, bufSize, pool)
	}
	return c.ready.read(bufSize, pool)
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
