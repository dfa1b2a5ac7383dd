package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestConfigure: the drain runs by the configuration that was in force when it began.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late error
		m := New(DefaultConfig(), Actions{}, nil)
		if err := m.OnStep(StepAnnounce, "late", func(context.Context) error {
			late = m.Configure(DefaultConfig())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		c := DefaultConfig()
		c.Delay = 17 * time.Second
		if err := m.Configure(c); err != nil {
			t.Fatal(err)
		}
		if got := m.Config().Delay; got != c.Delay {
			t.Errorf("delay %v", got)
		}
		report, err := m.Drain(t.Context())
		if err != nil || report.Duration != c.Delay {
			t.Errorf("took %v: %v", report.Duration, err)
		}
		if !errors.Is(late, ErrDrainBegun) {
			t.Errorf("during the drain: %v", late)
		}
	})
}
