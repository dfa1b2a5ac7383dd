package process

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// A Port is a port of 127.0.0.1 that stays ours while the process that listens on
// it is away: a socket that is bound to it and does not listen keeps the kernel
// from giving it to another socket, and lets one bind that has SO_REUSEADDR, as
// those that listen have.
type Port struct {
	Number int
	fd     int
}

// Reserve takes a free port, until Release.
func Reserve() (_ *Port, err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("process: reserving a port: %w", os.NewSyscallError("socket", err))
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(fd)
			err = fmt.Errorf("process: reserving a port: %w", err)
		}
	}()
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	inet, ok := bound.(*syscall.SockaddrInet4)
	if !ok {
		return nil, fmt.Errorf("%T is no IPv4 address", bound)
	}
	return &Port{Number: inet.Port, fd: fd}, nil
}

// String returns the address, host:port.
func (p *Port) String() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number)) }

// Release gives the port back.
func (p *Port) Release() { _ = syscall.Close(p.fd) }
