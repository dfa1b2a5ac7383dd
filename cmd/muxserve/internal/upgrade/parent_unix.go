//go:build unix

package upgrade

import "syscall"

// closeOnExec keeps child processes from inheriting a descriptor.
func closeOnExec(fd int) { syscall.CloseOnExec(fd) }
