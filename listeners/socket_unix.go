//go:build unix

package listeners

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"syscall"
)

// What these systems can do.
const (
	hasFileOwners = true // files have permissions and owners
	hasBacklog    = true
)

// identify returns what tells a file from every other one that exists.
func identify(info fs.FileInfo) fileID {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(st.Dev), st.Ino} //nolint:unconvert // The types differ between systems.
	}
	return fileID{}
}

// ownerOf returns the user and the group that a file belongs to.
func ownerOf(info fs.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}

// adopt returns the listener of a socket that this process was started with. It closes
// the descriptor itself: unlike the listener's, a child process would inherit it. It
// leaves alone what is no listening stream socket, because it may be anything.
func adopt(fd int, name string) (net.Listener, error) {
	if err := checkListening(fd); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return l, nil
}

// checkListening reports why connections cannot be accepted from a descriptor.
func checkListening(fd int) error {
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	switch {
	case errors.Is(err, syscall.ENOTSOCK):
		return errors.New("not a socket")
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	case kind != syscall.SOCK_STREAM:
		return errors.New("not a stream socket")
	}
	listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if listening == 0 {
		return errors.New("a socket that does not listen")
	}
	return nil
}

// duplicate returns a second descriptor of a listener's socket.
//
// A listener's method File will not do: os/exec calls Fd on what it passes, which makes
// that file blocking, and with it the socket, which this process goes on to use. A file
// that os.NewFile made of a descriptor stays as it is.
func duplicate(sc syscall.Conn, name string) (*os.File, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var f *os.File
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		// As in package net: the lock keeps os/exec from starting a process between the
		// two calls.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		var second int
		if second, dupErr = syscall.Dup(int(fd)); dupErr == nil {
			syscall.CloseOnExec(second)
			f = os.NewFile(uintptr(second), name)
		}
	})
	if err == nil && dupErr != nil {
		err = os.NewSyscallError("dup", dupErr)
	}
	return f, err
}

// setBacklog changes the length of the queue of a socket that listens already, by another
// listen(2). The kernel applies its own maximum.
func setBacklog(raw syscall.RawConn, n int) error {
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("listen", syscall.Listen(int(fd), min(n, math.MaxInt32)))
	})
}
