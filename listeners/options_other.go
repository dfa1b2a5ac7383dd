//go:build !linux

package listeners

import (
	"errors"
	"io/fs"
	"syscall"
	"time"
)

// What this system can do. Other systems have SO_REUSEPORT, but do not spread connections
// by it: the last socket gets them all.
const (
	hasReusePort      = false
	hasUserTimeout    = false
	inheritsKeepalive = false
	bindsPrivate      = false
)

func setReusePort(syscall.RawConn, bool) error { return errors.ErrUnsupported }

func unreach(syscall.RawConn) error { return errors.ErrUnsupported }

func reusesPort(syscall.RawConn) bool { return false }

// makePrivate does nothing: a socket has no permissions before its file is made.
func makePrivate(syscall.RawConn) error { return nil }

func umask() (fs.FileMode, error) { return 0, errors.ErrUnsupported }

func setUserTimeout(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }

func setKeepalive(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }
