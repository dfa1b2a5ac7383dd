package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// config returns the default configuration with the given change.
func config(change func(*Config)) Config {
	c := DefaultConfig()
	if change != nil {
		change(&c)
	}
	return c
}

func TestDrainSequence(t *testing.T) {
	tests := map[string]struct {
		cfg        Config
		takes      map[string]time.Duration
		left       map[string]int
		wantEvents []string
		wantSteps  []string
		wantErr    error
	}{
		"nothing to wait for": {
			cfg:        config(nil),
			wantEvents: []string{"announce at 0s", "stop-accepting at 5s", "wait-connections at 5s", "cleanup at 5s"},
			wantSteps: []string{
				"announce done 0s", "drain-delay done 5s", "stop-accepting done 0s",
				"wait-connections done 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"every step takes its time": {
			cfg: config(nil),
			takes: map[string]time.Duration{
				StepAnnounce: time.Second, StepStopAccepting: 4 * time.Second,
				StepWaitConnections: 7 * time.Second, StepCleanup: 2 * time.Second,
			},
			wantEvents: []string{"announce at 0s", "stop-accepting at 6s", "wait-connections at 10s", "cleanup at 17s"},
			wantSteps: []string{
				"announce done 1s", "drain-delay done 5s", "stop-accepting done 4s",
				"wait-connections done 7s", "force-close done 0s", "cleanup done 2s",
			},
		},
		"connections overstay": {
			cfg:        config(nil),
			takes:      map[string]time.Duration{StepWaitConnections: time.Hour, StepForceClose: 3 * time.Second},
			left:       map[string]int{"http1": 2},
			wantEvents: []string{"announce at 0s", "stop-accepting at 5s", "wait-connections at 5s", "force-close at 30s", "cleanup at 33s"},
			wantSteps: []string{
				"announce done 0s", "drain-delay done 5s", "stop-accepting done 0s",
				"wait-connections timed_out 25s", "force-close done 3s", "cleanup done 0s",
			},
			wantErr: context.DeadlineExceeded,
		},
		"stop, then delay": {
			cfg:        config(func(c *Config) { c.AcceptDuringDelay = false }),
			wantEvents: []string{"announce at 0s", "stop-accepting at 0s", "wait-connections at 5s", "cleanup at 5s"},
			wantSteps: []string{
				"announce done 0s", "stop-accepting done 0s", "drain-delay done 5s",
				"wait-connections done 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"no delay": {
			cfg:        config(func(c *Config) { c.Delay = 0 }),
			wantEvents: []string{"announce at 0s", "stop-accepting at 0s", "wait-connections at 0s", "cleanup at 0s"},
			wantSteps: []string{
				"announce done 0s", "drain-delay done 0s", "stop-accepting done 0s",
				"wait-connections done 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"steps skipped": {
			cfg: config(func(c *Config) {
				c.SkipSteps = []string{StepAnnounce, StepDrainDelay, StepWaitConnections}
			}),
			left:       map[string]int{"grpc": 1},
			wantEvents: []string{"stop-accepting at 0s", "force-close at 0s", "cleanup at 0s"},
			wantSteps: []string{
				"announce skipped 0s", "drain-delay skipped 0s", "stop-accepting done 0s",
				"wait-connections skipped 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"all steps skipped, and cleanup runs": {
			cfg:        config(func(c *Config) { c.SkipSteps = Steps() }),
			wantEvents: []string{"cleanup at 0s"},
			wantSteps: []string{
				"announce skipped 0s", "drain-delay skipped 0s", "stop-accepting skipped 0s",
				"wait-connections skipped 0s", "force-close skipped 0s", "cleanup done 0s",
			},
		},
		"doors never closed, so forced": {
			cfg:        config(func(c *Config) { c.SkipSteps = []string{StepStopAccepting} }),
			wantEvents: []string{"announce at 0s", "wait-connections at 5s", "force-close at 5s", "cleanup at 5s"},
			wantSteps: []string{
				"announce done 0s", "drain-delay done 5s", "stop-accepting skipped 0s",
				"wait-connections done 0s", "force-close done 0s", "cleanup done 0s",
			},
		},
		"zero configuration": {
			wantEvents: []string{"force-close at 0s", "cleanup at 0s"},
			wantSteps: []string{
				"announce timed_out 0s", "stop-accepting timed_out 0s", "drain-delay timed_out 0s",
				"wait-connections timed_out 0s", "force-close done 0s", "cleanup done 0s",
			},
			wantErr: context.DeadlineExceeded,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				p.takes, p.left = tt.takes, tt.left
				report, err := New(tt.cfg, p.actions(), nil).Drain(t.Context())
				if diff := cmp.Diff(tt.wantEvents, p.seen()); diff != "" {
					t.Errorf("actions (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.wantSteps, summary(report)); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
				if !errors.Is(err, tt.wantErr) {
					t.Errorf("error is %v, want %v", err, tt.wantErr)
				}
				if want := time.Since(p.began); report.Duration != want {
					t.Errorf("duration is %v, want %v", report.Duration, want)
				}
			})
		})
	}
}

// TestDeadlineArithmetic has every step hang in turn, and checks when it is
// given up and that the next one begins then.
func TestDeadlineArithmetic(t *testing.T) {
	short := Config{
		Delay: 5 * time.Second, Timeout: 8 * time.Second, StepTimeout: 6 * time.Second,
		Spread: 5 * time.Second, AcceptDuringDelay: true,
	}
	tests := map[string]struct {
		cfg   Config
		hangs string
		takes map[string]time.Duration
		want  string        // the step's account
		next  string        // the event that follows
		total time.Duration // of the whole drain
	}{
		"announce has its step timeout": {
			cfg: config(nil), hangs: StepAnnounce,
			want: "announce timed_out 6.05s", next: "stop-accepting at 11.05s", total: 11*time.Second + abandonGrace,
		},
		"stop-accepting has the spread on top": {
			cfg: config(nil), hangs: StepStopAccepting,
			want: "stop-accepting timed_out 16.05s", next: "wait-connections at 21.05s", total: 21*time.Second + abandonGrace,
		},
		"stop-accepting has no more than the deadline": {
			cfg: short, hangs: StepStopAccepting,
			want: "stop-accepting timed_out 3.05s", next: "force-close at 8.05s", total: 8*time.Second + abandonGrace,
		},
		"wait-connections has what is left": {
			cfg: config(nil), hangs: StepWaitConnections, takes: map[string]time.Duration{StepAnnounce: 2 * time.Second},
			want: "wait-connections timed_out 23.05s", next: "cleanup at 30.05s", total: 30*time.Second + abandonGrace,
		},
		"force-close has its own time after the deadline": {
			cfg: config(func(c *Config) { c.SkipSteps = []string{StepStopAccepting} }), hangs: StepForceClose,
			takes: map[string]time.Duration{StepWaitConnections: time.Hour},
			want:  "force-close timed_out 6.05s", next: "cleanup at 36.05s", total: 36*time.Second + abandonGrace,
		},
		"cleanup has its own time": {
			cfg: config(nil), hangs: StepCleanup,
			want: "cleanup timed_out 6.05s", total: 11*time.Second + abandonGrace,
		},
		"the deadline ends the delay": {
			cfg:  config(func(c *Config) { c.Delay = time.Minute }),
			want: "drain-delay timed_out 30s", next: "force-close at 30s", total: 30 * time.Second,
		},
		"a delay as long as the timeout is whole": {
			cfg:  config(func(c *Config) { c.Delay = c.Timeout }),
			want: "drain-delay done 30s", next: "force-close at 30s", total: 30 * time.Second,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				p.hangs, p.takes = tt.hangs, tt.takes
				report, err := New(tt.cfg, p.actions(), nil).Drain(t.Context())
				if !slices.Contains(summary(report), tt.want) {
					t.Errorf("steps are %q, want %q among them", summary(report), tt.want)
				}
				if tt.next != "" && !slices.Contains(p.seen(), tt.next) {
					t.Errorf("events are %q, want %q among them", p.seen(), tt.next)
				}
				if report.Duration != tt.total {
					t.Errorf("the drain took %v, want %v", report.Duration, tt.total)
				}
				if longest := tt.cfg.Longest(); report.Duration > longest {
					t.Errorf("the drain took %v, more than Longest, %v", report.Duration, longest)
				}
				if tt.hangs != "" && !errors.Is(err, ErrAbandoned) {
					t.Errorf("error is %v, want %v", err, ErrAbandoned)
				}
			})
		})
	}
}

func TestLongestIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.left = map[string]int{"http1": 1}
		hang := func(context.Context) error { <-p.over; return nil }
		cfg := DefaultConfig()
		m := New(cfg, Actions{WaitConnections: hang, ForceClose: hang, Cleanup: hang, Remaining: func() map[string]int { return p.left }}, nil)
		report, err := m.Drain(t.Context())
		if want := cfg.Longest() - 3*abandonGrace; report.Duration != want {
			t.Errorf("the drain took %v, want %v", report.Duration, want)
		}
		if !errors.Is(err, ErrForced) {
			t.Errorf("error is %v, want %v", err, ErrForced)
		}
	})
}

// TestBadStep has an action of every step go wrong in every way, and checks
// that the rest goes on as if nothing had been.
func TestBadStep(t *testing.T) {
	errBoom := errors.New("boom")
	ways := map[string]struct {
		do      func(context.Context) error
		want    Status
		wantErr string
	}{
		"error": {
			do:   func(context.Context) error { return errBoom },
			want: StatusFailed, wantErr: "boom",
		},
		"panic": {
			do:   func(context.Context) error { panic(errBoom) },
			want: StatusFailed, wantErr: "panic: boom",
		},
		"late error": {
			do:   func(ctx context.Context) error { <-ctx.Done(); return errBoom },
			want: StatusTimedOut, wantErr: "boom",
		},
	}
	for _, step := range []string{StepAnnounce, StepStopAccepting, StepWaitConnections, StepForceClose, StepCleanup} {
		for way, tt := range ways {
			t.Run(step+" "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPlay(t)
					p.left = map[string]int{"http1": 1}
					p.does[step] = tt.do
					report, err := New(DefaultConfig(), p.actions(), nil).Drain(t.Context())
					if got := len(p.seen()); got != 5 {
						t.Errorf("%d actions ran, want 5: %q", got, p.seen())
					}
					for _, s := range report.Steps {
						want, wantErr := StatusDone, ""
						if s.Name == step {
							want, wantErr = tt.want, "lifecycle: "+step+": "+tt.wantErr
						}
						if diff := cmp.Diff(want, s.Status); diff != "" {
							t.Errorf("%s: status (-want +got):\n%s", s.Name, diff)
						}
						if diff := cmp.Diff(wantErr, text(s.Err)); diff != "" {
							t.Errorf("%s: error (-want +got):\n%s", s.Name, diff)
						}
					}
					if !errors.Is(err, errBoom) {
						t.Errorf("error is %v, want %v", err, errBoom)
					}
				})
			})
		}
	}
}

func TestGoexitIsAnError(t *testing.T) {
	err := protect(func() error {
		runtime.Goexit()
		return nil
	})
	if !errors.Is(err, errGoexit) {
		t.Errorf("error is %v, want %v", err, errGoexit)
	}
}

func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		m := New(DefaultConfig(), p.actions(), nil)
		hook := func(step, name string, fn func(context.Context) error) {
			t.Helper()
			err := m.OnStep(step, name, func(ctx context.Context) error {
				p.note(name)
				return fn(ctx)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		errBoom := errors.New("boom")
		hook(StepDrainDelay, "waits too", func(ctx context.Context) error { time.Sleep(time.Second); return nil })
		hook(StepCleanup, "hangs", func(context.Context) error { <-p.over; return nil })
		hook(StepCleanup, "fails", func(context.Context) error { return errBoom })
		hook(StepCleanup, "panics", func(context.Context) error { panic("what now") })
		hook(StepCleanup, "works", func(context.Context) error { time.Sleep(time.Second); p.note("worked"); return nil })
		hook(StepForceClose, "with nothing to cut", func(context.Context) error { return nil })

		report, err := m.Drain(t.Context())
		for _, want := range []string{"waits too at 0s", "works at 5s", "worked at 6s", "with nothing to cut at 5s", "cleanup at 5s"} {
			if !slices.Contains(p.seen(), want) {
				t.Errorf("events are %q, want %q among them", p.seen(), want)
			}
		}
		last := report.Steps[len(report.Steps)-1]
		want := strings.Join([]string{
			"lifecycle: cleanup: hook hangs: abandoned, did not heed its context",
			"lifecycle: cleanup: hook fails: boom",
			"lifecycle: cleanup: hook panics: panic: what now",
		}, "\n")
		if diff := cmp.Diff(want, text(last.Err)); diff != "" {
			t.Errorf("errors (-want +got):\n%s", diff)
		}
		if last.Status != StatusTimedOut {
			t.Errorf("status is %q, want %q", last.Status, StatusTimedOut)
		}
		panicked, ok := errors.AsType[*PanicError](err)
		if !ok || len(panicked.Stack) == 0 {
			t.Errorf("error is %v, want a PanicError with a stack", err)
		}
		if err := m.OnStep(StepCleanup, "late", nil); !errors.Is(err, ErrDrainBegun) {
			t.Errorf("hook after the drain: error is %v, want %v", err, ErrDrainBegun)
		}
		if err := m.OnStep("tidy", "lost", nil); err == nil {
			t.Error("a hook of a step that does not exist was taken")
		}
	})
}

// text returns an error's words, none for nil.
func text(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprint(err)
}
