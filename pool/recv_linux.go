//go:build linux && (amd64 || arm64) && !race && !msan && !asan

package pool

import (
	"syscall"
	"unsafe"
)

// recv reads from a socket and never blocks. Go's own Read tells the scheduler of each
// call, and read(2) looks up what the descriptor is. Both together are a fifth of the
// time that it takes to learn that there is nothing to read.
func recv(fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
