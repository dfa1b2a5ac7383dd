//go:build unix

package pool

import "syscall"

const hasRecv = true

// HasUnread reports whether the system holds bytes of the peer that were not read yet, or
// a layer above the socket that has this method too. Under TLS these are bytes of records.
// It is false where no layer leads to the socket; see [Layers].
func (c *Conn) HasUnread() bool {
	for layer := range Layers(c.raw) {
		if holder, ok := layer.(interface{ HasUnread() bool }); ok && holder.HasUnread() {
			return true
		}
	}
	raw := socketOf(c.raw)
	if raw == nil {
		return false
	}
	var first [1]byte
	n := 0
	// The callback runs at once; a socket that is closed has nothing.
	_ = raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n > 0
}

// fileLimit returns how many descriptors the process may open. The runtime has raised the
// soft limit to the hard one at the start.
func fileLimit() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return maxDefaultConnections
	}
	return uint64(l.Cur) //nolint:unconvert // It is signed on some systems.
}
