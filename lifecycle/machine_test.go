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
				return context.WithTimeout(ctx, 2*time.Second)
			},
			want: []string{"announce at 0s", "force-close at 2s", "cleanup at 2s"}, reason: "context deadline exceeded",
		},
		"ends in the wait": {
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeoutCause(ctx, 8*time.Second, odd)
			},
			want: []string{
				"announce at 0s", "stop-accepting at 5s", "wait-connections at 5s",
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
