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
	inJSON atomic.Bool
	// options returns the options of a format.
	options func(format string) humanlog.Options

	switchable
}

func newLogs(env environment, c settings.Log) *logs {
	l := new(logs)
	l.options = func(format string) humanlog.Options {
		return humanlog.OptionsFor(env.stderr, format, &l.level, env.getenv)
	}
	handler := func(format string) slog.Handler { return humanlog.New(env.stderr, l.options(format)).Handler() }
	l.switchable = switchable{text: handler(humanlog.Text), json: handler(humanlog.JSON), inJSON: &l.inJSON}
	l.apply(c)
	l.logger = slog.New(l.switchable)
	return l
}

// apply puts the settings in force.
func (l *logs) apply(c settings.Log) {
	l.level.Set(c.Level)
	l.access.Store(c.Access)
	l.inJSON.Store(l.options(c.Format).InJSON())
}

// accessLogger returns the access log. It logs at Info, so a higher level silences it
// too.
func (l *logs) accessLogger() *slog.Logger {
	h := l.switchable
	h.on = &l.access
	return slog.New(h)
}

// switchable is a handler whose format can be changed while loggers use it.
type switchable struct {
	text, json slog.Handler // with the same attributes and groups
	inJSON     *atomic.Bool
	on         *atomic.Bool // false switches the handler off; nil is true
}

var _ slog.Handler = switchable{}

func (s switchable) current() slog.Handler {
	if s.inJSON.Load() {
		return s.json
	}
	return s.text
}

func (s switchable) Enabled(ctx context.Context, level slog.Level) bool {
	return (s.on == nil || s.on.Load()) && s.current().Enabled(ctx, level)
}

func (s switchable) Handle(ctx context.Context, record slog.Record) error {
	return s.current().Handle(ctx, record)
}

func (s switchable) WithAttrs(attrs []slog.Attr) slog.Handler {
	s.text, s.json = s.text.WithAttrs(attrs), s.json.WithAttrs(attrs)
	return s
}

func (s switchable) WithGroup(name string) slog.Handler {
	s.text, s.json = s.text.WithGroup(name), s.json.WithGroup(name)
	return s
}
