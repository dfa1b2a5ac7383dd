package listeners

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// What this system can do.
const (
	hasReusePort   = true
	hasUserTimeout = true
)

// Numbers of socket options that package syscall, which is frozen, lacks on
// some architectures: socket.h and tcp.h of Linux.
const (
	soReusePort     = 0xf
	soReusePortMIPS = 0x200
	tcpUserTimeout  = 0x12
)

// setReusePort lets sockets of the same user be bound to one address, provided that all of them have it set.
func setReusePort(raw syscall.RawConn) error {
	option := soReusePort
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		option = soReusePortMIPS
	}
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, 1))
	})
}

// setUserTimeout bounds how long sent bytes may go unacknowledged.
func setUserTimeout(raw syscall.RawConn, d time.Duration) error {
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds())))
	})
}
