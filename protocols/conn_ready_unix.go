//go:build unix

package protocols

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc/mem"
)

// A readyReader reads from a raw socket once it is readable. It is not safe
// for concurrent use.
type readyReader struct {
	conn  net.Conn
	raw   syscall.RawConn // Nil if there is no raw socket.
	count func(n int)     // Tells conn of a raw read.

	// The rest belongs to one read. It stands here, and step is made once, so
	// that a read allocates nothing.
	step    func(fd uintptr) bool
	bufSize int
	pool    mem.BufferPool
	buf     *[]byte
	n       int
	err     error
}

func newReadyReader(conn net.Conn) *readyReader {
	r := &readyReader{conn: conn}
	socket, ok := conn.(rawReader)
	if !ok {
		return r
	}
	raw, ok := socket.ReadConn()
	if !ok {
		return r
	}
	r.raw = raw
	r.step = r.tryRead
	r.count = socket.CountRead
	return r
}

func (r *readyReader) isRaw() bool { return r.raw != nil }

// tryRead reports false where the socket has nothing to read yet. The package
// syscall is what net reads by; mixing in another would hide the reads from the
// race detector.
func (r *readyReader) tryRead(fd uintptr) bool {
	r.buf = r.pool.Get(r.bufSize)
	for {
		r.n, r.err = syscall.Read(int(fd), *r.buf)
		if !errors.Is(r.err, syscall.EINTR) {
			break
		}
	}
	if r.err != nil || r.n <= 0 {
		r.pool.Put(r.buf)
		r.buf, r.n = nil, 0
	}
	return !errors.Is(r.err, syscall.EAGAIN)
}

func (r *readyReader) read(bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	r.bufSize, r.pool, r.n, r.err = bufSize, pool, 0, nil
	waitErr := r.raw.Read(r.step)
	buf, n, err := r.buf, r.n, r.err
	r.pool, r.buf = nil, nil
	switch {
	case n > 0:
		r.count(n)
		return buf, n, nil
	case waitErr != nil:
		return nil, 0, waitErr
	case err != nil:
		return nil, 0, r.opError(err)
	}
	return nil, 0, io.EOF
}

// opError gives errno the form that a net.Conn's Read gives it.
func (r *readyReader) opError(errno error) error {
	addr := r.conn.RemoteAddr()
	err := &net.OpError{Op: "read", Source: r.conn.LocalAddr(), Addr: addr, Err: os.NewSyscallError("read", errno)}
	if addr != nil {
		err.Net = addr.Network()
	}
	return err
}
