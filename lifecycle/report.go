package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrForced is found by [errors.Is] in the error of a drain that had to cut
// connections.
var ErrForced = errors.New("lifecycle: drain cut connections")

// ErrAbandoned is found by [errors.Is] in the error of a step of which a part did not
// heed its context and was left behind. Its goroutine may still be running.
var ErrAbandoned = errors.New("abandoned, did not heed its context")

// reasonForced is the [Report].Reason of a drain that [Machine.Force] ended.
const reasonForced = "forced"

// A Report is the account of one drain. All callers of [Machine.Drain] share
// it and none may change it.
type Report struct {
	// TraceID is the drain's identity in the log: 16 random bytes in
	// hexadecimal.
	TraceID string
	// Started is when the drain began, and Duration how long it took.
	Started  time.Time
	Duration time.Duration
	// Steps holds one result for each of [Steps], in the order in which they
	// came.
	Steps []StepResult
	// Forced counts, by protocol, the connections that were cut.
	Forced map[string]int
	// Reason is empty unless steps were cut short: then "forced", after [Machine.Force],
	// or the cause for which the first caller's context ended.
	Reason string
}

// ForcedTotal returns how many connections were cut, over all protocols.
func (r *Report) ForcedTotal() int { return total(r.Forced) }

// Err joins the errors of all steps, and [ErrForced] if connections were cut. It is nil
// for a drain in which nothing failed and no connection was cut, also if it was forced.
func (r *Report) Err() error {
	var errs []error
	for _, s := range r.Steps {
		errs = append(errs, s.Err)
	}
	if n := r.ForcedTotal(); n > 0 {
		errs = append(errs, fmt.Errorf("%w: %d", ErrForced, n))
	}
	return errors.Join(errs...)
}

// total sums the counts of all protocols.
func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// The names of the drain's steps, as they stand in [Config].SkipSteps, in the
// [Report] and in the log.
const (
	StepAnnounce        = "announce"
	StepDrainDelay      = "drain-delay"
	StepStopAccepting   = "stop-accepting"
	StepWaitConnections = "wait-connections"
	StepForceClose      = "force-close"
	StepCleanup         = "cleanup"
)

// Steps returns the names of all steps in the order in which they run by
// default. The slice is the caller's own.
func Steps() []string {
	return []string{
		StepAnnounce, StepDrainDelay, StepStopAccepting,
		StepWaitConnections, StepForceClose, StepCleanup,
	}
}

// skippable returns the names that may stand in [Config].SkipSteps.
func skippable() []string {
	return slices.DeleteFunc(Steps(), func(name string) bool { return name == StepCleanup })
}

// A Status says how a step ended.
type Status string

const (
	// StatusDone is a step that did all it had to, which may have been
	// nothing.
	StatusDone Status = "done"
	// StatusSkipped is a step that [Config].SkipSteps names.
	StatusSkipped Status = "skipped"
	// StatusTimedOut is a step that was not ready when its bound was over, or
	// for which the drain's deadline left no time at all.
	StatusTimedOut Status = "timed_out"
	// StatusFailed is a step of which all parts ended in time, at least one
	// of them with an error or a panic.
	StatusFailed Status = "failed"
	// StatusCut is a step that was ended early, or never begun, because
	// [Machine.Force] was called or the context of the drain's first caller
	// ended.
	StatusCut Status = "cut"
)

// A StepResult is the account of one step.
type StepResult struct {
	// Name is one of [Steps].
	Name string
	// Status says how the step ended.
	Status Status
	// Duration is how long the step took; zero for a step that did not run.
	Duration time.Duration
	// Err joins what went wrong, each error naming the step and the hook. It is nil for a
	// step that is done, skipped, or cut and heeded its context.
	Err error
	// Remaining is what [Actions].Remaining said when the step had ended:
	// connections left per protocol.
	Remaining map[string]int
}
