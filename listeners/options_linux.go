package listeners

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What this system can do.
const (
	hasReusePort      = true
	hasUserTimeout    = true
	inheritsKeepalive = true // tcp(7): connections have the options of the socket that accepts them
	bindsPrivate      = true // see makePrivate
)

// Socket options from socket.h and tcp.h of Linux. Package syscall, which is frozen,
// lacks them on some architectures.
const (
	soBindToIfindex = 62 // since Linux 5.1
	soReusePort     = 0xf
	soReusePortMIPS = 0x200
	tcpKeepIdle     = 4
	tcpKeepInterval = 5
	tcpKeepCount    = 6
	tcpUserTimeout  = 0x12
)

// reusePort returns the number of the option.
func reusePort() int {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return soReusePortMIPS
	}
	return soReusePort
}

// setReusePort lets sockets of the same user share an address, if all of them have it
// set. The kernel looks at it when another one is bound.
func setReusePort(raw syscall.RawConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort(), value))
	})
}

// reusesPort reports whether setReusePort is on.
func reusesPort(raw syscall.RawConn) bool {
	value := 0
	err := control(raw, func(fd uintptr) (err error) {
		value, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort())
		return err
	})
	return err == nil && value != 0
}

// makePrivate sets the permissions of a Unix socket before it has a file, which gets them:
// other users cannot connect before [Config.Open] has set the owner.
func makePrivate(raw syscall.RawConn) error {
	const ownUser = 0o600
	return control(raw, func(fd uintptr) error { return os.NewSyscallError("fchmod", syscall.Fchmod(int(fd), ownUser)) })
}

// umask returns the process's umask. The system call that returns it also sets it, and
// other goroutines may be making files.
func umask() (fs.FileMode, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "Umask:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(text), 8, 32)
			return fs.FileMode(mask).Perm(), err
		}
	}
	return 0, errors.New("/proc/self/status has no Umask")
}

// noInterface is the number of a network interface that there is none of.
const noInterface = 1<<31 - 1

// unreach has the kernel find the socket for no new connection. It finds listening sockets
// by the interface, too. Handshakes that have begun go on.
func unreach(raw syscall.RawConn) error {
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soBindToIfindex, noInterface))
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
