package mux

import (
	"testing"
	"unsafe"
)

// TestConnSize: one allocation holds a connection, its account and its recogniser. The
// limit leaves room for the context and the pool entry of HTTP/1.1. TestMemory measures
// the sum.
func TestConnSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the figure is for 64 bits")
	}
	const most = 288 // A size class; the next is 320.
	if got := unsafe.Sizeof(conn{}); got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}
