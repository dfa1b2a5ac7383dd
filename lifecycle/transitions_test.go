package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// busy is how long each step of these drains takes, the delay among them, so
// that every step has a middle in which something can happen.
const busy = 2 * time.Second

// busyConfig returns a configuration under which every step lasts busy, with
// time to spare. With stopFirst the delay comes behind stop-accepting.
func busyConfig(stopFirst bool) Config {
	return config(func(c *Config) { c.Delay, c.AcceptDuringDelay = busy, !stopFirst })
}

// busyPlay returns a play whose actions each take busy, and which leaves a
// connection to cut.
func busyPlay(t *testing.T) *play {
	t.Helper()
	p := newPlay(t)
	p.left = map[string]int{"http1": 1}
	for _, step := range Steps() {
		p.takes[step] = busy
	}
	return p
}

// eachStep runs f for each step of both orders, in a bubble of its own, with
// the moment at which the drain is in the middle of it.
func eachStep(t *testing.T, f func(t *testing.T, cfg Config, at int, middle time.Duration)) {
	t.Helper()
	for _, stopFirst := range []bool{false, true} {
		cfg := busyConfig(stopFirst)
		for i, step := range cfg.Order() {
			t.Run(fmt.Sprintf("%s, stop first %t", step, stopFirst), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { f(t, cfg, i, time.Duration(i)*busy+busy/2) })
			})
		}
	}
}

// cutSteps returns the account of a drain that is cut in the middle of the
// step at index at of its order. Those that cannot be cut last their time.
func cutSteps(cfg Config, at int) []string {
	var steps []string
	for i, step := range cfg.Order() {
		status, took := StatusDone, busy
		switch {
		case step == StepForceClose || step == StepCleanup:
		case i == at:
			status, took = StatusCut, busy/2
		case i > at:
			status, took = StatusCut, 0
		}
		steps = append(steps, fmt.Sprint(step, " ", status, " ", took))
	}
	return steps
}

// isPatient reports whether the step at an index can be cut.
func isPatient(cfg Config, at int) bool {
	step := cfg.Order()[at]
	return step != StepForceClose && step != StepCleanup
}

// TestCutInEachStep ends the waiting in the middle of each step of both orders,
// by Force, by Force twice, and by the end of the first caller's context. The
// steps that cut and clean up are never cut themselves.
func TestCutInEachStep(t *testing.T) {
	ways := map[string]struct {
		cut    func(*Machine, context.CancelCauseFunc)
		reason string
	}{
		"force":       {func(m *Machine, _ context.CancelCauseFunc) { m.Force() }, reasonForced},
		"force twice": {func(m *Machine, _ context.CancelCauseFunc) { m.Force(); m.Force() }, reasonForced},
		"context":     {func(_ *Machine, cancel context.CancelCauseFunc) { cancel(errors.New("evicted")) }, "evicted"},
		"force, then context": {
			func(m *Machine, cancel context.CancelCauseFunc) { m.Force(); cancel(errors.New("evicted")) }, reasonForced,
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			eachStep(t, func(t *testing.T, cfg Config, at int, middle time.Duration) {
				p := busyPlay(t)
				m := New(cfg, p.actions(), nil)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				time.AfterFunc(middle, func() { way.cut(m, cancel) })
				report, _ := m.Drain(ctx)
				if diff := cmp.Diff(cutSteps(cfg, at), summary(report)); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
				reason := ""
				if isPatient(cfg, at) {
					reason = way.reason
				}
				if report.Reason != reason {
					t.Errorf("reason is %q, want %q", report.Reason, reason)
				}
				if got := m.Phase(); got != PhaseStopped {
					t.Errorf("phase is %q", got)
				}
			})
		})
	}
}

// TestCutBetweenSteps ends the waiting at the very moment in which one step
// ends and the next one begins. Which of the two is cut is left to chance; that
// the drain goes straight to its end is not.
func TestCutBetweenSteps(t *testing.T) {
	eachStep(t, func(t *testing.T, cfg Config, at int, middle time.Duration) {
		p := busyPlay(t)
		m := New(cfg, p.actions(), nil)
		end := middle + busy/2
		time.AfterFunc(end, m.Force)
		report, _ := m.Drain(t.Context())
		want := 2 * busy // Force-close and cleanup.
		if isPatient(cfg, at) {
			want += end
		} else {
			want = time.Duration(len(Steps())) * busy
		}
		if report.Duration != want {
			t.Errorf("the drain took %v, want %v: %q", report.Duration, want, summary(report))
		}
	})
}

// TestForceFromWithin calls Force from the action of each step and from a hook
// of it, as a handler of signals in the same process may.
func TestForceFromWithin(t *testing.T) {
	for _, from := range []string{"action", "hook"} {
		t.Run(from, func(t *testing.T) {
			eachStep(t, func(t *testing.T, cfg Config, at int, _ time.Duration) {
				p := busyPlay(t)
				m := New(cfg, p.actions(), nil)
				force := func(ctx context.Context) error {
					time.Sleep(busy / 2)
					m.Force()
					return ctx.Err()
				}
				step := cfg.Order()[at]
				if from == "hook" || step == StepDrainDelay { // The delay has no action of ours.
					if err := m.OnStep(step, "force", force); err != nil {
						t.Fatal(err)
					}
				} else {
					p.does[step] = force
				}
				report, _ := m.Drain(t.Context())
				if want := report.Reason == reasonForced; want != isPatient(cfg, at) {
					t.Errorf("reason is %q in %s", report.Reason, step)
				}
				if got := report.Steps[len(report.Steps)-1]; got.Name != StepCleanup || got.Status != StatusDone {
					t.Errorf("the last step is %s %s", got.Name, got.Status)
				}
			})
		})
	}
}

// TestForceFromAWatcher calls Force when each phase is told.
func TestForceFromAWatcher(t *testing.T) {
	tests := map[Phase][]string{
		PhaseServing:  {"force-close at 0s", "cleanup at 2s"},
		PhaseDraining: {"force-close at 0s", "cleanup at 2s"},
		PhaseStopped: {
			"announce at 0s", "stop-accepting at 4s", "wait-connections at 6s", "force-close at 8s", "cleanup at 10s",
		},
	}
	for phase, want := range tests {
		t.Run(string(phase), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := busyPlay(t)
				m := New(busyConfig(false), p.actions(), nil)
				m.OnPhase(func(now Phase) {
					if now == phase {
						m.Force()
					}
				})
				m.SetServing()
				_, _ = m.Drain(t.Context())
				if diff := cmp.Diff(want, p.seen()); diff != "" {
					t.Errorf("actions (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestSecondCallerInEachStep has a second caller come in the middle of each step,
// one with patience, one without, and one whose context has ended already. None of them
// changes the drain.
func TestSecondCallerInEachStep(t *testing.T) {
	eachStep(t, func(t *testing.T, cfg Config, _ int, middle time.Duration) {
		p := busyPlay(t)
		m := New(cfg, p.actions(), nil)
		type answer struct {
			report *Report
			err    error
		}
		first := make(chan answer, 1)
		go func() {
			r, err := m.Drain(t.Context())
			first <- answer{r, err}
		}()
		time.Sleep(middle)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if r, err := m.Drain(ended); r != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("a caller whose context had ended got %v and %v", r, err)
		}
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if r, err := m.Drain(hasty); r != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a hasty caller got %v and %v", r, err)
		}
		second, err := m.Drain(t.Context())
		if got := <-first; second != got.report || err != nil || got.err != nil {
			t.Errorf("the second caller got %v and %v, the first one %v and %v", second, err, got.report, got.err)
		}
		for _, s := range second.Steps {
			if s.Status != StatusDone || s.Duration != busy {
				t.Errorf("%s %s %v, want done in %v", s.Name, s.Status, s.Duration, busy)
			}
		}
	})
}

// TestSecondCallerOutlivesTheFirst ends the first caller's context while a second
// one waits: both get the account of the drain that was cut.
func TestSecondCallerOutlivesTheFirst(t *testing.T) {
	eachStep(t, func(t *testing.T, cfg Config, at int, middle time.Duration) {
		p := busyPlay(t)
		m := New(cfg, p.actions(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(middle, cancel)
		first := make(chan *Report, 1)
		go func() {
			r, _ := m.Drain(ctx)
			first <- r
		}()
		synctest.Wait()
		second, _ := m.Drain(t.Context())
		if got := <-first; got != second || got == nil {
			t.Errorf("the callers got %p and %p", got, second)
		}
		if diff := cmp.Diff(cutSteps(cfg, at), summary(second)); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
}

// TestSkipEachStep leaves out each step alone, in both orders: it and its hooks
// do not run, and all others do. Cleanup cannot be left out.
func TestSkipEachStep(t *testing.T) {
	eachStep(t, func(t *testing.T, cfg Config, at int, _ time.Duration) {
		p := busyPlay(t)
		skipped := cfg.Order()[at]
		cfg.SkipSteps = []string{skipped}
		m := New(cfg, p.actions(), nil)
		var ran []string
		for _, step := range Steps() {
			if err := m.OnStep(step, "hook", func(context.Context) error { ran = append(ran, step); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		report, err := m.Drain(t.Context())
		var want, wantRan []string
		for _, step := range cfg.Order() {
			if step == skipped && step != StepCleanup {
				want = append(want, step+" skipped 0s")
				continue
			}
			want = append(want, fmt.Sprint(step, " done ", busy))
			wantRan = append(wantRan, step)
		}
		if diff := cmp.Diff(want, summary(report)); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(wantRan, ran); diff != "" {
			t.Errorf("hooks (-want +got):\n%s", diff)
		}
		if err != nil {
			t.Errorf("error is %v", err)
		}
		if at := slices.Index(p.seen(), skipped); at >= 0 {
			t.Errorf("the action of %s ran", skipped)
		}
	})
}

// TestBadHookInEachStep has a hook of each step go wrong in every way, the
// delay's among them, which has no action of the caller's. The step's own action and all
// other steps go on as if nothing had been.
func TestBadHookInEachStep(t *testing.T) {
	errBoom := errors.New("boom")
	ways := map[string]struct {
		do   func(ctx context.Context, over <-chan struct{}) error
		want error
	}{
		"error": {func(context.Context, <-chan struct{}) error { return errBoom }, errBoom},
		"panic": {func(context.Context, <-chan struct{}) error { panic(errBoom) }, errBoom},
		"exit":  {func(context.Context, <-chan struct{}) error { runtime.Goexit(); return nil }, errGoexit},
		"hang":  {func(_ context.Context, over <-chan struct{}) error { <-over; return nil }, ErrAbandoned},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			eachStep(t, func(t *testing.T, cfg Config, at int, _ time.Duration) {
				p := busyPlay(t)
				m := New(cfg, p.actions(), nil)
				bad := cfg.Order()[at]
				if err := m.OnStep(bad, "bad", func(ctx context.Context) error { return way.do(ctx, p.over) }); err != nil {
					t.Fatal(err)
				}
				report, err := m.Drain(t.Context())
				if !errors.Is(err, way.want) {
					t.Errorf("error is %v, want %v", err, way.want)
				}
				status := StatusFailed
				if name == "hang" {
					status = StatusTimedOut
				}
				for _, s := range report.Steps {
					want := StatusDone
					if s.Name == bad {
						want = status
					}
					if s.Status != want {
						t.Errorf("%s is %s, want %s: %v", s.Name, s.Status, want, s.Err)
					}
				}
				// All actions but the delay's, which the machine has itself.
				if got := len(p.seen()); got != 5 {
					t.Errorf("%d actions ran, want 5: %q", got, p.seen())
				}
			})
		})
	}
}

// TestForceLeavesAHangingHook ends the waiting while a hook of each step hangs
// and takes no notice: it is left behind after a moment.
func TestForceLeavesAHangingHook(t *testing.T) {
	eachStep(t, func(t *testing.T, cfg Config, at int, middle time.Duration) {
		if !isPatient(cfg, at) {
			return // Those have their own time; see TestDeadlineArithmetic.
		}
		p := busyPlay(t)
		m := New(cfg, p.actions(), nil)
		if err := m.OnStep(cfg.Order()[at], "deaf", func(context.Context) error { <-p.over; return nil }); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(middle, m.Force)
		report, err := m.Drain(t.Context())
		if want := middle + abandonGrace + 2*busy; report.Duration != want {
			t.Errorf("the drain took %v, want %v", report.Duration, want)
		}
		if !errors.Is(err, ErrAbandoned) || report.Steps[at].Status != StatusCut {
			t.Errorf("%s is %s: %v", report.Steps[at].Name, report.Steps[at].Status, err)
		}
	})
}

// TestPhaseInEachStep asks for the phase, and for what is too late, in the middle of each
// step.
func TestPhaseInEachStep(t *testing.T) {
	eachStep(t, func(t *testing.T, cfg Config, _ int, middle time.Duration) {
		m := New(cfg, busyPlay(t).actions(), nil)
		m.SetServing()
		time.AfterFunc(middle, func() {
			m.SetServing()
			if got := m.Phase(); got != PhaseDraining {
				t.Errorf("phase is %q, want %q", got, PhaseDraining)
			}
			if err := m.OnStep(StepCleanup, "late", nil); !errors.Is(err, ErrDrainBegun) {
				t.Errorf("OnStep: %v", err)
			}
			if err := m.Configure(Config{}); !errors.Is(err, ErrDrainBegun) {
				t.Errorf("Configure: %v", err)
			}
		})
		_, _ = m.Drain(t.Context())
	})
}
