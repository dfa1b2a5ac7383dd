package main

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// output is the handler at the end of all loggers of the process. Another one may take its place.
type output struct {
	handler atomic.Pointer[slog.Handler]
}

func (o *output) set(h slog.Handler) { o.handler.Store(&h) }

// replaceable is a handler over an output. It has its attributes and groups from loggers that are kept for long, and
// gives them to whatever handler the output has.
type replaceable struct {
	output *output
	// derive adds the attributes and groups to a handler of the output.
	derive func(slog.Handler) slog.Handler
	// derived is the last result of derive.
	derived *atomic.Pointer[derived]
}

// derived is what came of a handler.
type derived struct {
	from    *slog.Handler
	handler slog.Handler
}

var _ slog.Handler = replaceable{}

func newReplaceable(o *output) replaceable {
	return replaceable{output: o, derive: func(h slog.Handler) slog.Handler { return h }, derived: new(atomic.Pointer[derived])}
}

// current returns the output's handler with the attributes and groups.
func (r replaceable) current() slog.Handler {
	from := r.output.handler.Load()
	if d := r.derived.Load(); d != nil && d.from == from {
		return d.handler
	}
	d := &derived{from: from, handler: r.derive(*from)}
	r.derived.Store(d)
	return d.handler
}

// with returns a handler that does one more thing to the output's handler.
func (r replaceable) with(more func(slog.Handler) slog.Handler) replaceable {
	derive := r.derive
	return replaceable{
		output: r.output, derived: new(atomic.Pointer[derived]),
		derive: func(h slog.Handler) slog.Handler { return more(derive(h)) },
	}
}

// Enabled implements [slog.Handler].
func (r replaceable) Enabled(ctx context.Context, level slog.Level) bool {
	return (*r.output.handler.Load()).Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (r replaceable) Handle(ctx context.Context, record slog.Record) error {
	return r.current().Handle(ctx, record)
}

// WithAttrs implements [slog.Handler].
func (r replaceable) WithAttrs(attrs []slog.Attr) slog.Handler {
	return r.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (r replaceable) WithGroup(name string) slog.Handler {
	return r.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}
