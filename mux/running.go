package mux

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// running says what a server still does. Its end sets, in this order:
//
//	drainBegun                   by Drain: no listener is added any more
//	readiness.draining           in announce, or with KeepReady when all clients are told:
//	                             probes are told
//	accepting                    in stop-accepting: nothing more is accepted
//	departures.telling           in stop-accepting: clients are told to leave, also those that
//	                             come to their server later
//	handing                      in stop-accepting or later: custom listeners have had their time
//	                             to take connections
//	drainActions.localDue        in wait-connections: in-process connections leave, too
//	cutting                      in force-close: every connection is closed, also one that comes
//	serving                      in cleanup: what runs beside the connections ends
//
// The phase is the machine's, in package lifecycle. The three contexts end; the others are set.
type running struct {
	accepting, handing, serving             context.Context //nolint:containedctx // They are the server's.
	stopAccepting, stopHanding, stopServing context.CancelFunc
	drainBegun                              atomic.Bool // set while topology.mu is held
	cutting                                 atomic.Bool
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
