package lifecycle

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestForceAtEveryStep calls Force while each step is under way.
func TestForceAtEveryStep(t *testing.T) {
	tests := map[string]struct {
		hangs     string // this step's action takes for ever but heeds its context
		at        time.Duration
		left      map[string]int
		wantSteps []string
		reason    string
	}{
		"announce": {
			hangs: StepAnnounce, at: time.Second, left: map[string]int{"http1": 1}, reason: reasonForced,
			wantSteps: []string{
				"announce cut 1s", "drain-delay cut 0s", "stop-accepting cut 0s",
				"wait-connections cut 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"drain-delay": {
			at: time.Second, reason: reasonForced,
			wantSteps: []string{
				"announce done 0s", "drain-delay cut 1s", "stop-accepting cut 0s",
				"wait-connections cut 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"stop-accepting": {
			hangs: StepStopAccepting, at: 7 * time.Second, reason: reasonForced,
			wantSteps: []string{
				"announce done 0s", "drain-delay done 5s", "stop-accepting cut 2s",
				"wait-connections cut 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"wait-connections": {
			hangs: StepWaitConnections, at: 7 * time.Second, left: map[string]int{"http1": 1}, reason: reasonForced,
			wantSteps: []string{
				"announce done 0s", "drain-delay done 5s", "stop-accepting done 0s",
				"wait-connections cut 2s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"force-close": {
			hangs: StepForceClose, at: 7 * time.Second, left: map[string]int{"http1": 1},
			wantSteps: []string{
				"announce done 0s", "drain-delay done 5s", "stop-accepting done 0s",
				"wait-connections done 0s", "force-close timed_out 6s", "cleanup done 0s",
			},
		},
		"cleanup": {
			hangs: StepCleanup, at: 7 * time.Second,
			wantSteps: []string{
				"announce done 0s", "drain-delay done 5s", "stop-accepting done 0s",
				"wait-connections done 0s", "force-close done 0s", "cleanup timed_out 6s",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				p.left = tt.left
				p.takes[tt.hangs] = time.Hour
				m := New(DefaultConfig(), p.actions(), nil)
				time.AfterFunc(tt.at, m.Force)
				report, err := m.Drain(t.Context())
				if diff := cmp.Diff(tt.wantSteps, summary(report)); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
				if report.Reason != tt.reason {
					t.Errorf("reason is %q, want %q", report.Reason, tt.reason)
				}
				// A cut is what was asked for; only a step that ran out of
				// time is an error.
				if want := tt.reason == ""; (err != nil) != want {
					t.Errorf("error is %v, want one: %v", err, want)
				}
				m.Force()
			})
		})
	}
}

func TestForceDoesNotWaitForTheDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.hangs = StepAnnounce
		m := New(DefaultConfig(), p.actions(), nil)
		time.AfterFunc(time.Second, m.Force)
		report, err := m.Drain(t.Context())
		if want := time.Second + abandonGrace; report.Duration != want {
			t.Errorf("the drain took %v, want %v", report.Duration, want)
		}
		if !errors.Is(err, ErrAbandoned) || report.Steps[0].Status != StatusCut {
			t.Errorf("status is %q and error %v, want %q and %v", report.Steps[0].Status, err, StatusCut, ErrAbandoned)
		}
	})
}

func TestForceBeforeAndAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		m := New(DefaultConfig(), p.actions(), nil)
		m.Force()
		if got := m.Phase(); got != PhaseNew {
			t.Errorf("Force began a drain: phase is %q", got)
		}
		first, err := m.Drain(t.Context())
		if err != nil {
			t.Error(err)
		}
		want := []string{"force-close at 0s", "cleanup at 0s"}
		if diff := cmp.Diff(want, p.seen()); diff != "" {
			t.Errorf("actions (-want +got):\n%s", diff)
		}
		m.Force()
		again, err := m.Drain(t.Context())
		if again != first || err != nil {
			t.Errorf("a later drain returned %p and %v, want %p and nil", again, err, first)
		}
		if diff := cmp.Diff(want, p.seen()); diff != "" {
			t.Errorf("actions after the end (-want +got):\n%s", diff)
		}
	})
}

func TestFirstCallersContext(t *testing.T) {
	// A cause of a type that cannot be compared must not upset anything.
	odd := uncomparableError{"the pod is gone"}
	tests := map[string]struct {
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		want   []string
		reason string
	}{
		"ended before": {
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return ctx, cancel
			},
			want: []string{"force-close at 0s", "cleanup at 0s"}, reason: "context canceled",
		},
		"ends in the delay": {
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(2*time.Second, cancel)
				return ctx, cancel
			},
			want: []string{"announce at 0s", "force-close at 2s", "cleanup at 2s"}, reason: "context canceled",
		},
		"ends in the wait": {
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeoutCause(ctx, 8*time.Second, odd)
			},
			want: []string{
				"announce at 0s", "stop-accepting at 2s", "wait-connections at 2s",
				"force-close at 8s", "cleanup at 8s",
			},
			reason: "the pod is gone",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				p.takes[StepWaitConnections] = time.Hour
				p.left = map[string]int{"websocket": 1}
				p.cut = p.left
				ctx, cancel := tt.ctx(t.Context())
				defer cancel()
				report, err := New(DefaultConfig(), p.actions(), nil).Drain(ctx)
				if diff := cmp.Diff(tt.want, p.seen()); diff != "" {
					t.Errorf("actions (-want +got):\n%s", diff)
				}
				if report.Reason != tt.reason {
					t.Errorf("reason is %q, want %q", report.Reason, tt.reason)
				}
				if diff := cmp.Diff("lifecycle: drain cut connections: 1", text(err)); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestContextsDeadline: the delay, the spread and the bounds of the steps fit into what the
// first caller's context leaves, where that is less than the configured timeout.
func TestContextsDeadline(t *testing.T) {
	type plan struct{ delay, spread, step, left time.Duration } // left is that of stop-accepting
	const second = time.Second
	tests := map[string]struct {
		cfg   Config
		after time.Duration
		want  plan
	}{
		"beyond the timeout":  {config(nil), 31 * second, plan{5 * second, 10 * second, 6 * second, 16 * second}},
		"at the timeout":      {config(nil), 30 * second, plan{5 * second, 10 * second, 6 * second, 16 * second}},
		"just before it":      {config(nil), 28 * second, plan{5 * second, 9 * second, 6 * second, 15 * second}},
		"20s":                 {config(nil), 20 * second, plan{5 * second, 5 * second, 5 * second, 10 * second}},
		"10s":                 {config(nil), 10 * second, plan{2500 * time.Millisecond, 2500 * time.Millisecond, 2500 * time.Millisecond, 5 * second}},
		"1s":                  {config(nil), second, plan{250 * time.Millisecond, 250 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond}},
		"enough for all":      {config(func(c *Config) { c.Timeout = time.Hour }), 31 * second, plan{5 * second, 10 * second, 6 * second, 16 * second}},
		"no delay, no spread": {config(func(c *Config) { c.Delay, c.Spread = 0, 0 }), 4 * second, plan{0, 0, second, second}},
		"no delay":            {config(func(c *Config) { c.Delay = 0 }), 4 * second, plan{0, 2 * second, second, 3 * second}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				m := New(tt.cfg, p.actions(), nil)
				ctx, cancel := context.WithTimeout(t.Context(), tt.after)
				defer cancel()
				var got plan
				p.does[StepStopAccepting] = func(ctx context.Context) error {
					c, end := m.Config(), deadline(ctx, t)
					got = plan{time.Since(p.began), c.Spread, c.StepTimeout, time.Until(end)}
					return nil
				}
				cut := min(tt.after, tt.cfg.Timeout)
				p.does[StepWaitConnections] = func(ctx context.Context) error {
					progress, _ := m.Progress()
					for _, end := range []time.Time{progress.Deadline, deadline(ctx, t)} {
						if got := end.Sub(p.began); got != cut {
							t.Errorf("the end of the wait is planned at %v, want %v", got, cut)
						}
					}
					<-ctx.Done()
					return ctx.Err()
				}
				p.left = map[string]int{"http1": 1}
				p.takes[StepForceClose] = time.Hour
				report, _ := m.Drain(ctx)
				if got != tt.want {
					t.Errorf("delay, spread, step timeout and time left for stop-accepting are %v, want %v", got, tt.want)
				}
				if got := report.Steps[3]; tt.after < tt.cfg.Timeout && got.Status != StatusCut {
					t.Errorf("%s %s: %v, want %s", got.Name, got.Status, got.Err, StatusCut)
				}
				// What comes behind the deadline has its own time.
				if want := cut + tt.cfg.StepTimeout; report.Duration != want {
					t.Errorf("the drain took %v, want %v", report.Duration, want)
				}
			})
		})
	}
}

// deadline returns the deadline of a context, which must have one.
func deadline(ctx context.Context, t *testing.T) time.Time {
	t.Helper()
	end, ok := ctx.Deadline()
	if !ok {
		t.Error("there is no deadline")
	}
	return end
}

type uncomparableError []string

func (e uncomparableError) Error() string { return strings.Join(e, ", ") }

func TestContextValuesReachTheSteps(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		var got []any
		p.does[StepAnnounce] = func(ctx context.Context) error { got = append(got, ctx.Value(key{})); return nil }
		p.does[StepCleanup] = p.does[StepAnnounce]
		_, _ = New(DefaultConfig(), p.actions(), nil).Drain(context.WithValue(t.Context(), key{}, "span"))
		if diff := cmp.Diff([]any{"span", "span"}, got); diff != "" {
			t.Errorf("values (-want +got):\n%s", diff)
		}
	})
}

func TestCallersShareOneDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.takes[StepWaitConnections] = 10 * time.Second
		m := New(DefaultConfig(), p.actions(), nil)
		type answer struct {
			report *Report
			err    error
		}
		answers := make(chan answer, 2)
		for range cap(answers) {
			go func() {
				r, err := m.Drain(t.Context())
				answers <- answer{r, err}
			}()
		}
		synctest.Wait()
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r, err := m.Drain(hasty); r != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a hasty caller got %v and %v, want nil and %v", r, err, context.DeadlineExceeded)
		}
		select {
		case <-m.Done():
			t.Error("the hasty caller ended the drain")
		default:
		}
		first, second := <-answers, <-answers
		if first != second || first.err != nil {
			t.Errorf("callers got %v and %v, want the same", first, second)
		}
		<-m.Done()
		// With the end at hand, even an ended context gets the report.
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if r, err := m.Drain(ended); r != first.report || err != nil {
			t.Errorf("a late caller got %v and %v, want the report", r, err)
		}
		if got := len(p.seen()); got != 4 {
			t.Errorf("%d actions ran, want 4: %q", got, p.seen())
		}
		id, err := hex.DecodeString(first.report.TraceID)
		if err != nil || len(id) != traceIDBytes {
			t.Errorf("trace id is %q, want %d bytes in hexadecimal", first.report.TraceID, traceIDBytes)
		}
	})
}

func TestPhases(t *testing.T) {
	tests := map[string]struct {
		serve bool
		want  []Phase
	}{
		"served":       {serve: true, want: []Phase{PhaseServing, PhaseDraining, PhaseStopped}},
		"never served": {want: []Phase{PhaseDraining, PhaseStopped}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				m := New(DefaultConfig(), p.actions(), nil)
				if got := m.Phase(); got != PhaseNew {
					t.Errorf("phase is %q, want %q", got, PhaseNew)
				}
				var got []Phase
				m.OnPhase(func(Phase) { panic("watcher") })
				m.OnPhase(func(p Phase) {
					m.SetServing() // Watchers may ask for a transition, and this one has no effect.
					if now := m.Phase(); now != p {
						t.Errorf("phase is %q when %q is told", now, p)
					}
					got = append(got, p)
				})
				if tt.serve {
					m.SetServing()
					m.SetServing()
				}
				_, _ = m.Drain(t.Context())
				m.SetServing()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("phases (-want +got):\n%s", diff)
				}
				if got := m.Phase(); got != PhaseStopped {
					t.Errorf("phase is %q, want %q", got, PhaseStopped)
				}
			})
		})
	}
}

// TestTransitionFromAWatcher has a watcher take the machine further while it
// is being told: nothing deadlocks, and the order stays.
func TestTransitionFromAWatcher(t *testing.T) {
	m := New(DefaultConfig(), Actions{}, nil)
	var got []Phase
	m.OnPhase(func(p Phase) {
		got = append(got, p)
		m.advance(PhaseStopped)
	})
	m.OnPhase(func(p Phase) { got = append(got, p) })
	m.SetServing()
	if diff := cmp.Diff([]Phase{PhaseServing, PhaseServing, PhaseStopped, PhaseStopped}, got); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
}
