package main

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// logs are the server's log and its access log. Both have the same level and format,
// which apply changes while they are in use.
type logs struct {
	logger *slog.Logger
	level  slog.LevelVar
	access atomic.Bool
	output output
	// newHandler returns a handler that writes a format.
	newHandler func(format string) slog.Handler
}

func newLogs(env environment, c settings.Log) *logs {
	l := new(logs)
	l.newHandler = func(format string) slog.Handler {
		return humanlog.New(env.stderr, humanlog.OptionsFor(env.stderr, format, &l.level, env.getenv)).Handler()
	}
	l.apply(c)
	l.logger = slog.New(newReplaceable(&l.output))
	return l
}

// apply puts the settings in force.
func (l *logs) apply(c settings.Log) {
	l.level.Set(c.Level)
	l.access.Store(c.Access)
	l.output.set(l.newHandler(c.Format))
}

// accessLogger returns the access log. It logs at Info, so a higher level silences it
// too.
func (l *logs) accessLogger() *slog.Logger {
	r := newReplaceable(&l.output)
	r.on = &l.access
	return slog.New(r)
}

// output is the last handler of all loggers. It can be replaced while they are in use.
type output struct {
	handler atomic.Pointer[slog.Handler]
}

func (o *output) set(h slog.Handler) { o.handler.Store(&h) }

// replaceable is a handler that passes records on to the current handler of an output. It
// keeps its own attributes and groups, and adds them to each handler that the output
// gets.
type replaceable struct {
	output *output
	on     *atomic.Bool // false switches the handler off; nil is true
	// derive adds the attributes and groups to a handler of the output, and derived is
	// its last result.
	derive  func(slog.Handler) slog.Handler
	derived *atomic.Pointer[derived]
}

// derived is the result of replaceable.derive for one handler.
type derived struct {
	from    *slog.Handler
	handler slog.Handler
}

var _ slog.Handler = replaceable{}

func newReplaceable(o *output) replaceable {
	return replaceable{output: o, derive: func(h slog.Handler) slog.Handler { return h }, derived: new(atomic.Pointer[derived])}
}

// with returns a handler that also applies more to each handler of the output.
func (r replaceable) with(more func(slog.Handler) slog.Handler) replaceable {
	derive := r.derive
	r.derive = func(h slog.Handler) slog.Handler { return more(derive(h)) }
	r.derived = new(atomic.Pointer[derived])
	return r
}

// Enabled implements [slog.Handler].
func (r replaceable) Enabled(ctx context.Context, level slog.Level) bool {
	return (r.on == nil || r.on.Load()) && (*r.output.handler.Load()).Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (r replaceable) Handle(ctx context.Context, record slog.Record) error {
	from := r.output.handler.Load()
	d := r.derived.Load()
	if d == nil || d.from != from {
		d = &derived{from: from, handler: r.derive(*from)}
		r.derived.Store(d)
	}
	return d.handler.Handle(ctx, record)
}

// WithAttrs implements [slog.Handler].
func (r replaceable) WithAttrs(attrs []slog.Attr) slog.Handler {
	return r.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (r replaceable) WithGroup(name string) slog.Handler {
	return r.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}
