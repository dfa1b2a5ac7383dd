package mux

import (
	"testing"
	"unsafe"
)

// TestConnSize: what a connection costs here, in one allocation with its account and
// its recogniser, leaves room for what HTTP/1.1 needs besides: a context and a place in the pool. TestMemory has the sum.
func TestConnSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the figure is for 64 bits")
	}
	const most = 288 // A size class; the next is 320.
	if got := unsafe.Sizeof(conn{}); got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}
