package pool

import (
	"math"
	"testing"
)

// TestDefaultConnections is nine tenths of the descriptors that are left, and never 0, which
// would be no bound.
func TestDefaultConnections(t *testing.T) {
	for files, want := range map[uint64]int{
		0: 1, 64: 1, 65: 1, 66: 1, 67: 2, 74: 9, 164: 90, 1024: 864, 55_600: 49_982, 55_700: 50_000,
		1 << 20: 50_000, math.MaxUint64: 50_000,
	} {
		if got := defaultConnections(files); got != want {
			t.Errorf("%d descriptors: %d, want %d", files, got, want)
		}
	}
}
