//go:build !linux

package listeners

import (
	"errors"
	"syscall"
	"time"
)

// What this system can do. Others have SO_REUSEPORT too, but do not spread
// connections by it: the last socket gets them all.
const (
	hasReusePort      = false
	hasUserTimeout    = false
	inheritsKeepalive = false
)

func setReusePort(syscall.RawConn) error { return errors.ErrUnsupported }

func setUserTimeout(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }

func setKeepalive(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }
