package lifecycle

import (
	"slices"
	"time"
)

// Progress is a drain under way, or over.
type Progress struct {
	// TraceID and Started are those of the [Report].
	TraceID string
	Started time.Time
	// Deadline is when the drain stops waiting and begins to cut: [Config].Timeout after its
	// start, or the deadline of its context, whichever is earlier.
	Deadline time.Time
	// Step is the step under way, empty once the drain is over, and StepStarted when it
	// began.
	Step        string
	StepStarted time.Time
	// Steps has the results of the steps that have ended.
	Steps []StepResult
}

// Progress returns how far the drain has come, and false before it begins.
func (m *Machine) Progress() (Progress, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.progress, !m.progress.Started.IsZero()
}

// note publishes the progress: the step that begins, or an empty one at the end.
func (d *drain) note(step string) {
	deadline := d.deadline
	if end, ok := d.wait.Deadline(); ok {
		deadline = end
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.progress = Progress{
		TraceID: d.traceID, Started: d.report.Started, Deadline: deadline,
		Step: step, StepStarted: time.Now(), Steps: slices.Clone(d.report.Steps),
	}
}
