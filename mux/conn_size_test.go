package mux

import (
	"testing"
	"unsafe"
)

// TestConnSize: what a connection costs here, in one allocation with its account and
// its recogniser, is at most 300 bytes beyond what its own server needs.
func TestConnSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the figure is for 64 bits")
	}
	const most = 288 // The size class below 300.
	if got := unsafe.Sizeof(conn{}); got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}
