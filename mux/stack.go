package mux

import "runtime"

// growStack makes room for a T on the stack of the goroutine, which starts with 2 KB. The
// goroutine needs the room in any case. Growing the stack step by step when it is deep
// copies every frame each time. KeepAlive keeps the compiler from removing the array.
//
//go:noinline
func growStack[T any]() {
	var room T
	runtime.KeepAlive(&room)
}
