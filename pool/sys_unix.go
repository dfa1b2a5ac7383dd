//go:build unix

package pool

import (
	"errors"
	"syscall"
)

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
