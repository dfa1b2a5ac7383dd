//go:build !unix

package mux

import "github.com/muxserve/muxserve/pool"

// hasUnread reports whether the system holds bytes of the peer that nobody has read yet: here it cannot be asked.
func hasUnread(*pool.Conn) bool { return false }
