//go:build !unix

package pool

import "errors"

// hasRecv is false where only net reads from sockets. recv is never called then.
const hasRecv = false

func recv(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

// HasUnread reports whether the system holds bytes of the peer that were not read yet.
// On this platform it cannot be asked.
func (*Conn) HasUnread() bool { return false }

// fileLimit returns a number that is no limit, because the system has none of this kind.
func fileLimit() uint64 { return 2 * maxDefaultConnections }
