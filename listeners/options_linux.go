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
	hasReusePort      = true
	hasUserTimeout    = true
	inheritsKeepalive = true // tcp(7): connections have the options of the socket that accepts them
)

// Socket options from socket.h and tcp.h of Linux. Package syscall, which is frozen,
// lacks them on some architectures.
const (
	soReusePort     = 0xf
	soReusePortMIPS = 0x200
	tcpKeepIdle     = 4
	tcpKeepInterval = 5
	tcpKeepCount    = 6
	tcpUserTimeout  = 0x12
)

// setReusePort lets sockets of the same user share an address, if all of them have it
// set.
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

// setKeepalive sets the time of silence before the first keepalive probe and between
// probes; 0 is never. The kernel counts in whole seconds; package net rounds up, too.
func setKeepalive(raw syscall.RawConn, period time.Duration) error {
	options := [][3]int{{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 0}}
	if period > 0 {
		seconds := int((period + time.Second - 1) / time.Second)
		options = [][3]int{
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			{syscall.IPPROTO_TCP, tcpKeepIdle, seconds},
			{syscall.IPPROTO_TCP, tcpKeepInterval, seconds},
			{syscall.IPPROTO_TCP, tcpKeepCount, keepaliveCount},
		}
	}
	return control(raw, func(fd uintptr) error {
		for _, o := range options {
			if err := syscall.SetsockoptInt(int(fd), o[0], o[1], o[2]); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
		}
		return nil
	})
}
