//go:build unix && !(linux && (amd64 || arm64) && !race && !msan && !asan)

package pool

import "syscall"

// recv reads from a socket and does not block. It uses the package syscall, as net does,
// so that the race detector sees the reads.
func recv(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
