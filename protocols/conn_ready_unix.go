//go:build unix

package protocols

import (
	"io"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc/mem"
)

// A readyReader reads from a raw socket once it is readable. It is not safe
// for concurrent use.
type readyReader struct {
	conn rawReader
	raw  syscall.RawConn // Nil if there is no raw socket.

	// The rest belongs to one read. It stands here, and step is made once, so
	// that a read allocates nothing.
	step    func(fd uintptr) bool
	bufSize int
	pool    mem.BufferPool
	buf     *[]byte
	n       int
	err     syscall.Errno // 0 for none.
}

// notReady stands for connections without a raw socket.
var notReady = new(readyReader)

func newReadyReader(conn net.Conn) *readyReader {
	socket, ok := conn.(rawReader)
	if !ok {
		return notReady
	}
	raw, ok := socket.ReadConn()
	if !ok {
		return notReady
	}
	r := &readyReader{conn: socket, raw: raw}
	r.step = r.tryRead
	return r
}

func (r *readyReader) isRaw() bool { return r.raw != nil }

// tryRead reports false where the socket has nothing to read yet. The package
// syscall is what net reads by; mixing in another would hide the reads from the
// race detector.
func (r *readyReader) tryRead(fd uintptr) bool {
	r.buf = r.pool.Get(r.bufSize)
	for {
		var err error
		r.n, err = syscall.Read(int(fd), *r.buf)
		r.err, _ = err.(syscall.Errno) //nolint:errorlint // It is never anything else, and never wrapped.
		if r.err != syscall.EINTR {
			break
		}
	}
	if r.err != 0 || r.n <= 0 {
		r.pool.Put(r.buf)
		r.buf, r.n = nil, 0
	}
	return r.err != syscall.EAGAIN
}

func (r *readyReader) read(bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	r.bufSize, r.pool, r.n, r.err = bufSize, pool, 0, 0
	waitErr := r.raw.Read(r.step)
	buf, n, err := r.buf, r.n, r.err
	r.pool, r.buf = nil, nil
	switch {
	case n > 0:
		r.conn.CountRead(n)
		return buf, n, nil
	case waitErr != nil:
		return nil, 0, waitErr
	case err != 0:
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
