package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// abandonGrace is how long a step's parts have to return once their context is over,
// before they are abandoned. It keeps a step that heeds its context from overlapping with
// the next one.
const abandonGrace = 50 * time.Millisecond

// errGoexit is the error of a part that ended its goroutine with
// [runtime.Goexit] (as testing.T.FailNow does) instead of returning.
var errGoexit = errors.New("ended its goroutine without returning")

// A PanicError is the error of a hook or action that panicked.
type PanicError struct {
	// Value is what it panicked with.
	Value any
	// Stack is the stack of the panicking goroutine, as [debug.Stack] formats
	// it.
	Stack []byte
}

// Error returns the panic's value, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// A part is one of the things that a step does: its action, or a hook.
type part struct {
	label string // begins the part's errors
	fn    func(context.Context) error
}

// runParts runs the parts of one step, each in a goroutine of its own, so that none can
// hold up or break another. It returns when all have returned or, abandonGrace after the
// end of ctx, without the others. late reports whether a part failed after the end of ctx
// or was left behind. The errors come joined, in the order of parts.
func runParts(ctx context.Context, parts []part) (late bool, err error) {
	type outcome struct {
		index int
		err   error
		late  bool
	}
	// There is room for all, so that a part that was left behind can end.
	outcomes := make(chan outcome, len(parts))
	for i, p := range parts {
		go func() {
			err := protect(func() error { return p.fn(ctx) })
			outcomes <- outcome{i, err, err != nil && ctx.Err() != nil}
		}()
	}

	errs := make([]error, len(parts))
	for i := range errs {
		errs[i] = ErrAbandoned
	}
	over := ctx.Done()
	var giveUp <-chan time.Time
	for pending := len(parts); pending > 0; {
		select {
		case o := <-outcomes:
			errs[o.index] = o.err
			late = late || o.late
			pending--
		case <-over:
			over = nil
			giveUp = time.After(abandonGrace)
		case <-giveUp:
			late = true
			pending = 0
		}
	}
	return late, labelled(ctx, parts, errs)
}

// labelled joins errs, each with the label of its part, and leaves out errors that only
// say that the step was cut.
func labelled(ctx context.Context, parts []part, errs []error) error {
	cause := context.Cause(ctx)
	wasCut := isCut(cause)
	var out []error
	for i, err := range errs {
		if err == nil || wasCut && (errors.Is(err, context.Canceled) || errors.Is(err, cause)) {
			continue
		}
		out = append(out, fmt.Errorf("lifecycle: %s: %w", parts[i].label, err))
	}
	return errors.Join(out...)
}

// protect calls fn in a goroutine of its own and returns its error, or the
// error that its panic or its exit amounts to.
func protect(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() {
			if v := recover(); v != nil {
				err = &PanicError{Value: v, Stack: debug.Stack()}
			}
			result <- err
		}()
		err = fn()
	}()
	return <-result
}
