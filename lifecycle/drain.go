package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// errForced is the cause with which [Machine.Force] ends the waiting.
var errForced = errors.New(reasonForced)

// A cutError is the cause of a context that ended because the waiting was cut short, and
// not by its deadline. It is compared by its address, because a caller's cause may not be
// comparable.
type cutError struct{ cause error }

func (e *cutError) Error() string { return e.cause.Error() }
func (e *cutError) Unwrap() error { return e.cause }

// isCut reports whether the cause of a context's end is a cutError.
func isCut(cause error) bool {
	_, ok := errors.AsType[*cutError](cause)
	return ok
}

// A drain is one run through the steps. Its one goroutine owns it.
type drain struct {
	*Machine

	report   *Report
	base     context.Context // never ends; carries the first caller's values
	wait     context.Context // ends when the waiting is cut short
	deadline time.Time       // when the waiting is over in any case
	lastTime time.Duration   // what force-close and cleanup have, each
}

// A knownEnd is a context that is cut at its end, and says beforehand when that will be. A
// context with a timer of its own would end at that moment, too, but for another cause.
type knownEnd struct {
	context.Context

	end time.Time
}

func (k knownEnd) Deadline() (time.Time, bool) { return k.end, true }

// run runs the drain in the goroutine of its first caller, whose context ctx
// is, and publishes the report.
func (m *Machine) run(ctx context.Context) {
	started := time.Now()
	base := context.WithoutCancel(ctx)
	// An ended ctx must cut before the first step, and AfterFunc is asynchronous.
	if ctx.Err() != nil {
		m.cut(context.Cause(ctx))
	}
	stop := context.AfterFunc(ctx, func() { m.cut(context.Cause(ctx)) })
	defer stop()
	wait, cancel := m.waiting(base)
	defer cancel(nil)

	d := &drain{
		Machine:  m,
		report:   &Report{TraceID: m.traceID, Started: started},
		base:     base,
		wait:     wait,
		deadline: started.Add(m.cfg.Timeout),
		lastTime: m.cfg.stepTimeout(),
	}
	if end, ok := ctx.Deadline(); ok && end.Before(d.deadline) {
		d.wait = knownEnd{wait, end}
		m.shorten(end.Sub(started))
	}
	for _, name := range m.cfg.Order() {
		d.note(name)
		result := d.step(name)
		if result.Status == StatusCut && d.report.Reason == "" {
			d.report.Reason = context.Cause(wait).Error()
		}
		d.report.Steps = append(d.report.Steps, result)
		d.logStep(result)
	}
	d.report.Duration = time.Since(started)
	d.note("")
	m.report = d.report
	d.logEnd()
	m.advance(PhaseStopped)
	close(m.done)
}

// step runs one step, or finds a reason not to, and returns its account.
func (d *drain) step(name string) StepResult {
	result := StepResult{Name: name}
	begun := time.Now()
	patient := name != StepForceClose && name != StepCleanup
	switch {
	case d.cfg.Skips(name):
		result.Status = StatusSkipped
	case patient && d.wait.Err() != nil:
		result.Status = StatusCut
	case patient && !begun.Before(d.deadline):
		result.Status = StatusTimedOut
		result.Err = fmt.Errorf("lifecycle: %s: not begun: %w", name, context.DeadlineExceeded)
	default:
		result.Status, result.Err = d.perform(name, begun)
		result.Duration = time.Since(begun)
	}
	remaining, err := d.remaining()
	result.Remaining = remaining
	if name == StepCleanup {
		err = errors.Join(err, d.countForced())
	}
	if err != nil {
		result.Err = errors.Join(result.Err, err)
		if result.Status == StatusDone {
			result.Status = StatusFailed
		}
	}
	return result
}

// perform runs a step that began at begun, under its bound.
func (d *drain) perform(name string, begun time.Time) (Status, error) {
	ctx, cancel := d.bounded(name, begun)
	defer cancel()

	late, err := runParts(ctx, d.parts(name, begun))
	switch {
	case late && isCut(context.Cause(ctx)):
		return StatusCut, err
	case late:
		return StatusTimedOut, err
	case err != nil:
		return StatusFailed, err
	default:
		return StatusDone, nil
	}
}

// bounded returns the context of a step that began at begun.
func (d *drain) bounded(name string, begun time.Time) (context.Context, context.CancelFunc) {
	parent, limit := d.wait, d.deadline.Sub(begun)
	switch name {
	case StepAnnounce:
		limit = min(limit, d.cfg.stepTimeout())
	case StepDrainDelay:
		limit = min(limit, d.cfg.Delay)
	case StepStopAccepting:
		limit = min(limit, d.cfg.stepTimeout()+d.cfg.Spread)
	case StepForceClose, StepCleanup:
		parent, limit = d.base, d.lastTime
	}
	return context.WithDeadline(parent, begun.Add(limit))
}

// parts returns what the step that began at begun does: its action, if there
// is one and reason for it, and its hooks.
func (d *drain) parts(name string, begun time.Time) []part {
	var action func(context.Context) error
	switch name {
	case StepAnnounce:
		action = d.actions.Announce
	case StepDrainDelay:
		// Without a delay there is no action: its goroutine could be scheduled too late and
		// count as abandoned.
		if d.cfg.Delay > 0 {
			action = func(ctx context.Context) error { return delay(ctx, begun, d.cfg.Delay) }
		}
	case StepStopAccepting:
		action = d.actions.StopAccepting
	case StepWaitConnections:
		action = d.actions.WaitConnections
	case StepForceClose:
		if d.mustForce() {
			action = d.actions.ForceClose
		}
	case StepCleanup:
		action = d.actions.Cleanup
	}
	var parts []part
	if action != nil {
		parts = append(parts, part{label: name, fn: action})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return append(parts, d.hooks[name]...)
}

// delay waits for the end of ctx, which is well if that came no earlier than
// the full delay.
func delay(ctx context.Context, begun time.Time, full time.Duration) error {
	<-ctx.Done()
	if time.Since(begun) >= full {
		return nil
	}
	return context.Cause(ctx)
}

// mustForce reports whether there may be anything to cut: a connection is left, the doors
// may be open, or there is no count.
func (d *drain) mustForce() bool {
	status := make(map[string]Status)
	for _, s := range d.report.Steps {
		status[s.Name] = s.Status
	}
	if status[StepStopAccepting] != StatusDone {
		return true
	}
	if d.actions.Remaining == nil {
		return status[StepWaitConnections] != StatusDone
	}
	remaining, err := d.remaining()
	return err != nil || total(remaining) > 0
}

// remaining asks how many connections are left.
func (d *drain) remaining() (map[string]int, error) {
	return counts("remaining connections", d.actions.Remaining)
}

// countForced puts into the report how many connections were cut. Without a count, all
// that were left before force-close were.
func (d *drain) countForced() error {
	if d.actions.Forced != nil {
		forced, err := counts("forced connections", d.actions.Forced)
		d.report.Forced = forced
		return err
	}
	steps := d.report.Steps
	at := slices.IndexFunc(steps, func(s StepResult) bool { return s.Name == StepForceClose })
	if steps[at].Status != StatusSkipped {
		d.report.Forced = maps.Clone(steps[at-1].Remaining)
	}
	return nil
}

// counts returns a copy of what fn says, or the error that its panic amounts
// to.
func counts(what string, fn func() map[string]int) (result map[string]int, err error) {
	if fn == nil {
		return nil, nil
	}
	err = protect(func() error {
		result = maps.Clone(fn())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lifecycle: %s: %w", what, err)
	}
	return result, nil
}
