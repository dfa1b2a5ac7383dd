//go:build unix

package pool

import (
	"errors"
	"syscall"
)

// isReset reports whether err says that the peer broke the connection off.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
