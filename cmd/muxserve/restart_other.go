//go:build !unix

package main

// restart is nil: the system cannot replace a process, so GODEBUG must be set for
// muxserve.
var restart func(godebug string) error
