//go:build unix

package mux

import (
	"syscall"

	"github.com/muxserve/muxserve/pool"
)

// hasUnread reports whether the kernel holds bytes of the peer that nobody has read yet.
func hasUnread(a *pool.Conn) bool {
	raw, ok := a.ReadConn()
	if !ok {
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
