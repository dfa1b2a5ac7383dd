package lifecycle

import (
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// childEnv makes the test binary a process that handles signals, for a test to
// send them to.
const childEnv = "LIFECYCLE_SIGNAL_CHILD"

// runSignalChild writes a line for each handler that is called. Once it is
// forced it goes back to what signals did before, and waits to be killed.
func runSignalChild() {
	forced := make(chan struct{})
	stop := HandleSignals(context.Background(), SignalHandlers{
		// Drain does not return: no signal may have to wait for it.
		Drain: func(s os.Signal) { fmt.Println("drain", s); select {} },
		Force: func(s os.Signal) { fmt.Println("force", s); close(forced) },
		Reload: func() {
			_, err := os.Stderr.WriteString("nobody reads this\n")
			fmt.Println("reload", err != nil)
		},
		Upgrade: func() { fmt.Println("upgrade") },
	})
	fmt.Println("ready")
	<-forced
	stop()
	stop()
	fmt.Println("stopped")
	// The end of its input is the end of a child whose parent has gone.
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(1)
}

// TestRepeatsAreJoined checks that a reload never runs twice at a time and
// that no request for one is lost.
func TestRepeatsAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		signals := make(chan os.Signal)
		proceed := make(chan struct{})
		var runs, running, most int
		go handleRepeats(ctx, signals, func() {
			runs++
			running++
			most = max(most, running)
			<-proceed
			running--
		})
		for range 5 {
			signals <- os.Interrupt
			synctest.Wait()
		}
		proceed <- struct{}{}
		synctest.Wait()
		proceed <- struct{}{}
		synctest.Wait()
		if diff := cmp.Diff([]int{2, 0, 1}, []int{runs, running, most}); diff != "" {
			t.Errorf("runs, still running, most at a time (-want +got):\n%s", diff)
		}
		// A handler that is still running holds up neither the loop's end nor
		// its own.
		signals <- os.Interrupt
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(proceed)
	})
}

func TestStopFromAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		signals := make(chan os.Signal)
		var calls []string
		go handleExits(ctx, signals, SignalHandlers{
			Drain: func(os.Signal) { calls = append(calls, "drain"); cancel() },
		})
		signals <- os.Interrupt
		synctest.Wait()
		select {
		case signals <- os.Interrupt:
			t.Error("a signal was taken after the end")
		default:
		}
		if diff := cmp.Diff([]string{"drain"}, calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

func TestNoHandlersNoSignals(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stop := HandleSignals(ctx, SignalHandlers{})
	cancel()
	stop()
	stop()
}
