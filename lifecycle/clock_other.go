//go:build !linux

package lifecycle

import (
	"errors"
	"time"
)

// monotonicClock fails: service managers that ask for it run on Linux only.
func monotonicClock() (time.Duration, error) { return 0, errors.ErrUnsupported }
