package lifecycle

import (
	"context"
	"testing"
)

// TestProgress: each step of a drain finds itself under way, and the ones before it ended.
func TestProgress(t *testing.T) {
	t.Parallel()
	m := New(Config{StepTimeout: defaultStepTimeout, Timeout: defaultStepTimeout, AcceptDuringDelay: true}, Actions{}, nil)
	if _, begun := m.Progress(); begun {
		t.Error("it has begun before the drain")
	}
	for i, step := range Steps() {
		if err := m.OnStep(step, "look", func(context.Context) error {
			p, begun := m.Progress()
			if !begun || p.Step != step || len(p.Steps) != i || p.StepStarted.Before(p.Started) || !p.Deadline.After(p.Started) {
				t.Errorf("in %s: %+v, %v", step, p, begun)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	report, err := m.Drain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, begun := m.Progress()
	if !begun || p.Step != "" || len(p.Steps) != len(Steps()) || p.TraceID != report.TraceID || !p.Started.Equal(report.Started) {
		t.Errorf("at the end: %+v, %v", p, begun)
	}
}
