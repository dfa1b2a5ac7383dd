package lifecycle

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		runSignalChild()
		return
	}
	goleak.VerifyTestMain(m)
}

// A play is a server whose actions take the time they are told to. It writes
// down when each began, counted from the play's own beginning.
type play struct {
	began time.Time
	// takes says how long an action takes; zero is at once.
	takes map[string]time.Duration
	// hangs names the action that takes no notice of its context and ends
	// only with the play.
	hangs string
	// does is called by an action in the place of all that.
	does map[string]func(context.Context) error
	// left and cut are what Remaining and Forced say.
	left, cut map[string]int

	over   chan struct{}
	mu     sync.Mutex
	events []string
}

// newPlay returns a play that ends with the test, which must be in a bubble.
func newPlay(t *testing.T) *play {
	t.Helper()
	p := &play{
		began: time.Now(),
		takes: make(map[string]time.Duration),
		does:  make(map[string]func(context.Context) error),
		over:  make(chan struct{}),
	}
	t.Cleanup(func() { close(p.over) })
	return p
}

func (p *play) actions() Actions {
	return Actions{
		Announce:        p.action(StepAnnounce),
		StopAccepting:   p.action(StepStopAccepting),
		WaitConnections: p.action(StepWaitConnections),
		ForceClose:      p.action(StepForceClose),
		Cleanup:         p.action(StepCleanup),
		Remaining:       func() map[string]int { return p.left },
		Forced:          func() map[string]int { return p.cut },
	}
}

func (p *play) action(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		p.note(name)
		if p.hangs == name {
			<-p.over
			return nil
		}
		if do := p.does[name]; do != nil {
			return do(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(p.takes[name]):
			return nil
		}
	}
}

func (p *play) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, fmt.Sprint(what, " at ", time.Since(p.began)))
}

// seen returns what happened, for comparison.
func (p *play) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.events...)
}

// summary writes a report's steps as "name status duration".
func summary(r *Report) []string {
	var lines []string
	for _, s := range r.Steps {
		lines = append(lines, fmt.Sprint(s.Name, " ", s.Status, " ", s.Duration))
	}
	return lines
}
