//go:build !unix

package main

// restart is nil: the system cannot replace a process. Whoever wants another
// GODEBUG has to start muxserve with it.
var restart func(godebug string) error
