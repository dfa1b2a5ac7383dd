//go:build unix && !(linux && (amd64 || arm64) && !race && !msan && !asan)

package protocols

import "syscall"

// recv reads from a socket that does not block. The package syscall is what net reads by; mixing in another would
// hide the reads from the race detector.
func recv(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
