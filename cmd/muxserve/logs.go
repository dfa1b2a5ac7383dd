package main

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// logs are the server's log and its access log, which share their form. What can
// be changed of them while the server runs is changed by apply.
type logs struct {
	logger *slog.Logger
	level  slog.LevelVar
	access atomic.Bool
	output output
	// newHandler returns what writes a format.
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

// accessLogger returns the access log. It is the server's log with a switch of its own, so a level above Info silences both.
func (l *logs) accessLogger() *slog.Logger {
	return slog.New(switched{l.logger.Handler(), &l.access})
}

// switched is a handler that can be switched off.
type switched struct {
	slog.Handler
	on *atomic.Bool
}

// Enabled implements [slog.Handler].
func (h switched) Enabled(ctx context.Context, level slog.Level) bool {
	return h.on.Load() && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (h switched) WithAttrs(attrs []slog.Attr) slog.Handler {
	return switched{h.Handler.WithAttrs(attrs), h.on}
}

// WithGroup implements [slog.Handler].
func (h switched) WithGroup(name string) slog.Handler {
	return switched{h.Handler.WithGroup(name), h.on}
}
