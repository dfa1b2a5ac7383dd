package lifecycle

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
)

// signalBacklog is how many signals may be queued; more are lost. Each is taken at once.
const signalBacklog = 16

// SignalHandlers are what a process does on signals. A signal whose handler is nil does
// what it did before. The signals that end the process are caught if Drain or Force is
// set.
//
// No handler holds up another: each runs in a goroutine of its own. Reload and
// Upgrade never run twice at a time; signals that come while one runs, however
// many, make it run once more.
type SignalHandlers struct {
	// Drain is called for the first SIGINT, SIGTERM or SIGQUIT.
	Drain func(os.Signal)
	// Force is called for every further one.
	Force func(os.Signal)
	// Reload is called for SIGHUP.
	Reload func()
	// Upgrade is called for SIGUSR2.
	Upgrade func()
}

// HandleSignals installs handlers until ctx ends or stop is called, and has
// SIGPIPE ignored meanwhile. Then every signal does again what it did before.
// stop waits for nothing but that: a handler that runs may go on. It may be
// called more than once, and from a handler.
//
// Where there are no such signals (Windows) only os.Interrupt and SIGTERM are
// handled. HandleSignals is for main functions: signals belong to the process,
// not to a library in it.
func HandleSignals(ctx context.Context, h SignalHandlers) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	exits := subscribe(h.Drain != nil || h.Force != nil, exitSignals)
	reloads := subscribe(h.Reload != nil, reloadSignals)
	upgrades := subscribe(h.Upgrade != nil, upgradeSignals)
	// A signal that is delivered to a channel does nothing else, and this channel is not
	// read. Unlike signal.Ignore, child processes do not inherit this.
	pipes := subscribe(true, pipeSignals)

	var loops sync.WaitGroup
	loops.Go(func() { handleExits(ctx, exits, h) })
	loops.Go(func() { handleRepeats(ctx, reloads, h.Reload) })
	loops.Go(func() { handleRepeats(ctx, upgrades, h.Upgrade) })
	restore := sync.OnceFunc(func() {
		for _, c := range []chan os.Signal{exits, reloads, upgrades, pipes} {
			signal.Stop(c)
		}
	})
	release := context.AfterFunc(ctx, restore)
	return func() {
		release()
		restore()
		cancel()
		loops.Wait()
	}
}

// subscribe returns a channel that receives the signals, or nothing if they are not
// wanted or the platform has none.
func subscribe(wanted bool, signals []os.Signal) chan os.Signal {
	c := make(chan os.Signal, signalBacklog)
	// Without any signals, Notify would relay all there are.
	if wanted && len(signals) > 0 {
		signal.Notify(c, slices.Clone(signals)...)
	}
	return c
}

// handleExits calls Drain for the first signal and Force for all others.
func handleExits(ctx context.Context, c <-chan os.Signal, h SignalHandlers) {
	handler := h.Drain
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-c:
			if handler != nil {
				go handler(s)
			}
			handler = h.Force
		}
	}
}

// handleRepeats calls fn for a signal, and once more for all that came while it ran.
func handleRepeats(ctx context.Context, c <-chan os.Signal, fn func()) {
	var again, running bool
	ended := make(chan struct{}, 1)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c:
			again = true
		case <-ended:
			running = false
		}
		if again && !running {
			again, running = false, true
			go func() {
				defer func() { ended <- struct{}{} }()
				fn()
			}()
		}
	}
}
