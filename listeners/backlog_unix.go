//go:build unix

package listeners

import (
	"math"
	"os"
	"syscall"
)

// setBacklog changes the length of the queue of a socket that listens already,
// by calling listen(2) again. The kernel takes what it allows of it.
func setBacklog(raw syscall.RawConn, n int) error {
	return control(raw, func(fd uintptr) error {
		return os.NewSyscallError("listen", syscall.Listen(int(fd), min(n, math.MaxInt32)))
	})
}
