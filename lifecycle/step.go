package lifecycle

import (
	"slices"
	"time"
)

// The names of the drain's steps, as they stand in [Config.SkipSteps], in the
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

// skippable returns the names that may stand in [Config.SkipSteps].
func skippable() []string {
	return slices.DeleteFunc(Steps(), func(name string) bool { return name == StepCleanup })
}

// A Status says how a step ended.
type Status string

const (
	// StatusDone is a step that did all it had to, which may have been
	// nothing.
	StatusDone Status = "done"
	// StatusSkipped is a step that [Config.SkipSteps] names.
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
	// Err joins what went wrong, each error naming the step and the hook. It
	// is nil for a step that is done, and for one that was skipped or cut and
	// left as it was told to.
	Err error
	// Remaining is what [Actions.Remaining] said when the step had ended:
	// connections left per protocol.
	Remaining map[string]int
}
