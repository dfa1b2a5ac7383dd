//go:build unix

package upgrade

import "syscall"

// closeOnExec keeps a descriptor from the programs that this process starts.
func closeOnExec(fd int) { syscall.CloseOnExec(fd) }
