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
	conn rawReader
	raw  syscall.RawConn // Nil if there is no raw socket.

	// The rest belongs to one read. It stands here, and step is made once, so
	// that a read allocates nothing.
	step    func(fd uintptr) bool
	bufSize int
	pool    mem.BufferPool
	buf     *[]byte
	n       int32
	err     uint32 // The system's number; 0 for none.
}

// init has r read conn, once. It reports false where conn has no raw socket that can be read.
func (r *readyReader) init(conn net.Conn) bool {
	socket, ok := conn.(rawReader)
	if !ok {
		return false
	}
	raw, ok := socket.ReadConn()
	if !ok {
		return false
	}
	r.conn, r.raw = socket, raw
	r.step = r.tryRead
	return true
}

func (r *readyReader) isRaw() bool { return r.raw != nil }

// tryRead reports false where the socket has nothing to read yet.
func (r *readyReader) tryRead(fd uintptr) bool {
	r.buf = r.pool.Get(r.bufSize)
	n, err := recv(int(fd), *r.buf)
	if n > 0 {
		r.n, r.err = int32(n), 0
		return true
	}
	errno, _ := err.(syscall.Errno) //nolint:errorlint // It is never anything else, and never wrapped.
	r.n, r.err = 0, uint32(errno)
	r.pool.Put(r.buf)
	r.buf = nil
	return errno != syscall.EAGAIN
}

// read waits until there is something to read, and reads up to bufSize bytes of it into a buffer of pool, which is the
// caller's. Without a byte the buffer is nil, and the error is what the connection's Read would return.
func (r *readyReader) read(bufSize int, pool mem.BufferPool) (*[]byte, int, error) {
	r.bufSize, r.pool, r.n, r.err = bufSize, pool, 0, 0
	waitErr := r.raw.Read(r.step)
	buf, n := r.buf, int(r.n)
	r.pool, r.buf = nil, nil
	if n > 0 {
		r.conn.CountRead(n)
		return buf, n, nil
	}
	err := r.failure(waitErr)
	r.conn.NoteError(err)
	return nil, 0, err
}

// failure returns the error of a read that has brought nothing, in the form that a net.Conn's Read gives it.
func (r *readyReader) failure(waitErr error) error {
	var failed *net.OpError
	switch {
	case errors.As(waitErr, &failed):
		failed.Op = "read" // A raw socket's has another name. The error is nobody else's.
		return failed
	case waitErr != nil:
		return waitErr
	case r.err != 0:
		return r.opError(syscall.Errno(r.err))
	}
	return io.EOF
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
