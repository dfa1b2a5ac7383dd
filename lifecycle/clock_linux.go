package lifecycle

import (
	"syscall"
	"time"
	"unsafe"
)

// clockMonotonic is CLOCK_MONOTONIC of clock_gettime(2), the clock by which a
// service manager orders a reload and its signal. The one inside time.Time is
// the same but cannot be read.
const clockMonotonic = 1

// monotonicClock returns the time on CLOCK_MONOTONIC.
func monotonicClock() (time.Duration, error) {
	var ts syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return 0, errno
	}
	return time.Duration(ts.Nano()), nil
}
