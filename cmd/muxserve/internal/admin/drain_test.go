package admin

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// TestDrainPlan: the plan has the steps in the order in which a drain takes them, each
// with how long it is meant to last.
func TestDrainPlan(t *testing.T) {
	t.Parallel()
	const delay, spread, timeout, bound = 100 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second, 3 * time.Second
	for _, tt := range []struct {
		name string
		edit func(*lifecycle.Config)
		want []plannedStep
	}{
		{"delay first", func(*lifecycle.Config) {}, []plannedStep{
			{"announce", 0}, {"drain-delay", 0.1}, {"stop-accepting", 0.2}, {"wait-connections", 1.7}, {"force-close", 3}, {"cleanup", 3},
		}},
		{"delay behind", func(c *lifecycle.Config) { c.AcceptDuringDelay = false }, []plannedStep{
			{"announce", 0}, {"stop-accepting", 0.2}, {"drain-delay", 0.1}, {"wait-connections", 1.7}, {"force-close", 3}, {"cleanup", 3},
		}},
		{"no delay", func(c *lifecycle.Config) { c.SkipSteps = []string{lifecycle.StepDrainDelay} }, []plannedStep{
			{"announce", 0}, {"drain-delay", 0}, {"stop-accepting", 0.2}, {"wait-connections", 1.8}, {"force-close", 3}, {"cleanup", 3},
		}},
		{"no waiting, no cutting", func(c *lifecycle.Config) {
			c.SkipSteps = []string{lifecycle.StepWaitConnections, lifecycle.StepForceClose}
		}, []plannedStep{
			{"announce", 0}, {"drain-delay", 0.1}, {"stop-accepting", 0.2}, {"wait-connections", 0}, {"force-close", 0}, {"cleanup", 3},
		}},
		{"cut within the delay", func(c *lifecycle.Config) { c.Timeout, c.AcceptDuringDelay = 250*time.Millisecond, false }, []plannedStep{
			{"announce", 0}, {"stop-accepting", 0.2}, {"drain-delay", 0.05}, {"wait-connections", 0}, {"force-close", 3}, {"cleanup", 3},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := mux.New(
				mux.Configure(func(c *mux.Config) {
					c.Listeners[0].Address = "127.0.0.1:0"
					c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout, c.Drain.StepTimeout = delay, spread, timeout, bound
					tt.edit(&c.Drain)
				}),
				mux.WithLogger(slog.New(slog.DiscardHandler)),
			)
			pages := New(s, Options{})
			if diff := cmp.Diff(tt.want, pages.progress(time.Now()).Plan.Steps); diff != "" {
				t.Errorf("the plan (-want +got):\n%s", diff)
			}
			if err := s.Listen(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- s.ListenAndServe() }()
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			<-ended
			after := pages.progress(time.Now())
			var planned, taken []string
			for _, step := range after.Plan.Steps {
				planned = append(planned, step.Name)
			}
			for _, step := range after.Account.Steps {
				taken = append(taken, step.Name)
			}
			if diff := cmp.Diff(planned, taken); diff != "" {
				t.Errorf("the steps (-planned +taken):\n%s", diff)
			}
		})
	}
}
