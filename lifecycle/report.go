package lifecycle

import (
	"errors"
	"fmt"
	"time"
)

// ErrForced is found by [errors.Is] in the error of a drain that had to cut
// connections.
var ErrForced = errors.New("lifecycle: drain cut connections")

// ErrAbandoned is found by [errors.Is] in the error of a step of which a part
// took no notice of its context and was left behind. Its goroutine may still
// be running.
var ErrAbandoned = errors.New("abandoned, did not heed its context")

// ReasonForced is the [Report.Reason] of a drain that [Machine.Force] ended.
const ReasonForced = "forced"

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
	// Reason is empty unless steps were cut short: then [ReasonForced], or
	// the words of the cause for which the first caller's context ended.
	Reason string
}

// ForcedTotal returns how many connections were cut, over all protocols.
func (r *Report) ForcedTotal() int { return total(r.Forced) }

// Err joins the errors of all steps, and [ErrForced] if connections were cut.
// It is nil for a drain in which nothing failed and nobody was cut, also if it
// was asked to hurry.
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
