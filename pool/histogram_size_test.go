package pool

import (
	"testing"
	"unsafe"
)

// TestStatisticsMemory: what the documentation says about memory.
func TestStatisticsMemory(t *testing.T) {
	idleHistogram, idleRequests := unsafe.Sizeof(Histogram{}), unsafe.Sizeof(Requests{})
	histogram := idleHistogram + stripeCount*unsafe.Sizeof(histogramStripe{})
	requests := idleRequests + stripeCount*(unsafe.Sizeof(histogramStripe{})+unsafe.Sizeof(requestStripe{}))
	for _, tt := range []struct {
		what        string
		size, limit uintptr
	}{
		{"a Histogram without a duration", idleHistogram, 128},
		{"a Histogram", histogram, 48 << 10},
		{"Requests without a request", idleRequests, 256},
		{"Requests", requests, 64 << 10},
	} {
		if tt.size > tt.limit {
			t.Errorf("%s takes %d bytes, want at most %d", tt.what, tt.size, tt.limit)
		}
	}
}
