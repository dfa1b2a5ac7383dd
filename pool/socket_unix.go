//go:build unix

package pool

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

const hasSocketReader = true

// A socketReader reads from a socket once it is readable. It is not safe for
// concurrent use.
type socketReader struct {
	raw syscall.RawConn

	// The rest belongs to one read. It stands here, and step is made once, so that a
	// read allocates nothing.
	step func(fd uintptr) bool
	size int
	pool buffers
	own  callerBuffer
	buf  *[]byte
	n    int32
	err  syscall.Errno // 0 for none.
}

// init has r read from conn. It reports false where that has no raw socket.
func (r *socketReader) init(conn net.Conn) bool {
	raw := rawOf(conn)
	r.raw, r.step = raw, r.tryRead
	return raw != nil
}

// rawOf returns the raw socket of conn, or nil where there is none.
func rawOf(conn net.Conn) syscall.RawConn {
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// tryRead reports false where the socket has nothing to read yet.
func (r *socketReader) tryRead(fd uintptr) bool {
	r.buf = r.pool.Get(r.size)
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

// receive waits until there is something to read, and reads up to size bytes of it
// into a buffer of pool, which is the caller's. If there is no byte, buf is nil.
func (r *socketReader) receive(size int, pool buffers) (buf *[]byte, n int, err error) {
	r.size, r.pool, r.n, r.err = size, pool, 0, 0
	err = r.raw.Read(r.step)
	buf, n = r.buf, int(r.n)
	r.pool, r.buf = nil, nil
	switch {
	case n > 0:
		return buf, n, nil
	case err == nil && r.err != 0:
		err = r.err
	case err == nil:
		err = io.EOF
	}
	return nil, 0, err
}

// readError returns err, of a socketReader, in the form that conn's Read gives it.
func readError(conn net.Conn, err error) error {
	var failed *net.OpError
	if errors.As(err, &failed) {
		failed.Op = "read" // A raw socket's has another name. Nothing else holds this error.
		return failed
	}
	errno, ok := err.(syscall.Errno) //nolint:errorlint // It is not wrapped.
	if !ok {
		return err
	}
	addr := conn.RemoteAddr()
	failed = &net.OpError{Op: "read", Source: conn.LocalAddr(), Addr: addr, Err: os.NewSyscallError("read", errno)}
	if addr != nil {
		failed.Net = addr.Network()
	}
	return failed
}

// HasUnread reports whether the system holds bytes of the peer that were not read yet.
// It is false where the system cannot be asked, as on a connection that is not bare.
func (c *Conn) HasUnread() bool {
	if !c.IsBare() {
		return false
	}
	raw := rawOf(c.raw)
	if raw == nil {
		return false
	}
	var first [1]byte
	n := 0
	// The callback runs at once; a socket that is closed has nothing.
	_ = raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n > 0
}
