package listeners

import (
	"errors"
	"net"
	"slices"
	"syscall"
)

// exhaustion are the errors of accept(2) for which the system lacks something
// that comes back when other connections end.
var exhaustion = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

// peerFaults are the errors that belong to the one connection that was about to
// be accepted. accept(2) asks that they be treated like EAGAIN: Linux passes
// errors already pending on the new socket, and a firewall's refusal, through
// accept.
var peerFaults = []error{
	syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.ENETUNREACH,
	syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
}

// isTemporary reports whether accepting may succeed later.
func isTemporary(err error) bool {
	is := func(target error) bool { return errors.Is(err, target) }
	if slices.ContainsFunc(exhaustion, is) || slices.ContainsFunc(peerFaults, is) {
		return true
	}
	var netErr net.Error
	if !errors.As(err, &netErr) || netErr.Timeout() {
		// A timeout is a deadline that the owner has set: his to handle.
		return false
	}
	return netErr.Temporary() //nolint:staticcheck // Accept's errors are what Temporary is still right for, as in net/http.
}

// isAborted reports whether the peer left before it was accepted, which says
// nothing about the next connection.
func isAborted(err error) bool { return errors.Is(err, syscall.ECONNABORTED) }
