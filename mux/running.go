package mux

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// running says what a server still does. Each context ends once, in this order at the
// latest: accepting when nothing more is to be accepted, handing when custom listeners
// have had their time to take connections, serving with the drain.
type running struct {
	accepting, handing, serving             context.Context //nolint:containedctx // They are the server's.
	stopAccepting, stopHanding, stopServing context.CancelFunc
	closing                                 atomic.Bool // the drain has begun; set while topology.mu is held
	cutting                                 atomic.Bool // every connection is to be closed
	background                              background
}

func newRunning() *running {
	r := new(running)
	r.accepting, r.stopAccepting = context.WithCancel(context.Background())
	r.handing, r.stopHanding = context.WithCancel(context.Background())
	r.serving, r.stopServing = context.WithCancel(context.Background())
	return r
}

// isStopping reports whether nothing more is to be accepted.
func (r *running) isStopping() bool { return r.accepting.Err() != nil }

// background is a set of goroutines that the server waits for at its end.
type background struct {
	mu    sync.Mutex
	ended bool // guarded by mu
	wg    sync.WaitGroup
}

// run runs f in a goroutine. It reports false, and does not, once wait was called.
func (b *background) run(f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	b.wg.Go(f)
	return true
}

// wait returns a channel that is closed when every goroutine has ended. No goroutine
// begins after the call.
func (b *background) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	done := make(chan struct{})
	go func() {
		b.wg.Wait()
		close(done)
	}()
	return done
}

// growStack makes room for a T on the stack of the goroutine, which starts with 2 KB. The
// goroutine needs the room in any case. Growing the stack step by step when it is deep
// copies every frame each time. Room for T is in the frame of growStack, and nothing ever
// writes to it; KeepAlive keeps the compiler from removing it.
//
//go:noinline
func growStack[T any]() {
	if neverTrue {
		var room T
		runtime.KeepAlive(&room)
	}
}

// neverTrue is a variable so that the compiler does not know it.
var neverTrue bool
