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
	raw, err := conn.(syscall.Conn).SyscallConn()
	r.raw, r.step = raw, r.tryRead
	return err == nil
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

// receive waits until there is something to read from conn, and reads up to size bytes of
// it into a buffer of pool. If there is no byte, buf is nil. An error has the form that
// conn's Read gives it.
func (r *socketReader) receive(conn net.Conn, size int, pool buffers) (buf *[]byte, n int, err error) {
	r.size, r.pool, r.n, r.err = size, pool, 0, 0
	err = r.raw.Read(r.step)
	buf, n = r.buf, int(r.n)
	r.pool, r.buf = nil, nil
	if n > 0 {
		return buf, n, nil
	}
	var failed *net.OpError // which is allocated
	switch {
	case errors.As(err, &failed):
		failed.Op = "read" // A raw socket's has another name. Nothing else holds this error.
		return nil, 0, failed
	case err != nil:
		return nil, 0, err
	case r.err == 0:
		return nil, 0, io.EOF
	}
	failed = &net.OpError{Op: "read", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: os.NewSyscallError("read", r.err)}
	if failed.Addr != nil {
		failed.Net = failed.Addr.Network()
	}
	return nil, 0, failed
}

// HasUnread reports whether the system holds bytes of the peer that were not read yet.
// It is false where the system cannot be asked, as on a connection that is not bare.
func (c *Conn) HasUnread() bool {
	if !c.IsBare() {
		return false
	}
	raw, err := c.raw.(syscall.Conn).SyscallConn()
	if err != nil {
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

// fileLimit returns how many descriptors the process may open. The runtime has raised the
// soft limit to the hard one at the start.
func fileLimit() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return maxDefaultConnections
	}
	return uint64(l.Cur) //nolint:unconvert // It is signed on some systems.
}

// isReset reports whether err says that the peer broke the connection off.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
