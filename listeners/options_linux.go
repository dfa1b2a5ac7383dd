package listeners

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What this system can do.
const (
	hasReusePort      = true
	hasUserTimeout    = true
	inheritsKeepalive = true // tcp(7): connections have the options of the socket that accepts them
	bindsPrivate      = true // see makePrivate
)

// setReusePort lets sockets of the same user share an address, if all of them have it
// set. The kernel looks at it when another one is bound.
func setReusePort(raw syscall.RawConn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_REUSEPORT, value))
	})
}

// reusesPort reports whether setReusePort is on.
func reusesPort(raw syscall.RawConn) bool {
	value := 0
	err := control(raw, func(fd uintptr) (err error) {
		value, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_REUSEPORT)
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
// by the interface, too. Handshakes that have begun go on. Linux has the option since 5.1.
func unreach(raw syscall.RawConn) error {
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noInterface))
	})
}

// setUserTimeout bounds how long sent bytes may go unacknowledged.
func setUserTimeout(raw syscall.RawConn, d time.Duration) error {
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds())))
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
			{syscall.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds},
			{syscall.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds},
			{syscall.IPPROTO_TCP, unix.TCP_KEEPCNT, keepaliveCount},
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
