//go:build !unix

package listeners

import (
	"errors"
	"syscall"
)

func setBacklog(syscall.RawConn, int) error { return errors.ErrUnsupported }
