//go:build !unix

package listeners

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// adopt fails: sockets are not inherited by their number here.
func adopt(int, string) (net.Listener, error) { return nil, errors.ErrUnsupported }

// duplicate fails, for the same reason.
func duplicate(syscall.Conn, string) (*os.File, error) { return nil, errors.ErrUnsupported }

func setBacklog(syscall.RawConn, int) error { return errors.ErrUnsupported }
