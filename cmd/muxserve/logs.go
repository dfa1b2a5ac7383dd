package main

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle/logqueue"
)

// The log keys.
const (
	// Every line has the id of the process, because two processes write to the same stderr
	// during an upgrade.
	keyPID = "pid"
	// The id of the process that is to take over, or has.
	keyNewPID = "new_pid"
	// As in package mux.
	keyLocalAddr = "local_addr"

	keyErr     = "err"
	keyOrigin  = "origin"
	keySignal  = "signal"
	keyVersion = "version"
	keyChanged = "changed"
	keyFrom    = "from"
	keyTo      = "to"
	keyWarning = "warning" // what works, and is probably not meant

	keyBuild          = "build"           // the module's version, as muxserve version prints it
	keyConfigFile     = "config_file"     // empty without one
	keyListeners      = "listeners"       // addresses with their protocols, TLS mode and PROXY mode
	keyAdmin          = "admin"           // where the admin pages are; off for none
	keyMaxConnections = "max_connections" // limits.max_connections
)

// logs are the server's log and its access log. Both have the same level and format,
// which apply changes while they are in use. Lines go through queues: nothing waits for
// stderr, which may be a pipe that is full.
type logs struct {
	logger *slog.Logger
	access *slog.Logger // logs at Info, so a higher level silences it too

	level    slog.LevelVar
	accessOn atomic.Bool
	inJSON   atomic.Bool
	// options returns the options of a format.
	options func(format string) humanlog.Options
	queues  []*logqueue.Handler
}

func newLogs(env environment, c settings.Log) *logs {
	l := new(logs)
	l.options = func(format string) humanlog.Options {
		return humanlog.OptionsFor(env.stderr, format, &l.level, env.getenv)
	}
	handler := func(format string) slog.Handler {
		return humanlog.New(env.stderr, l.options(format)).WithAttrs([]slog.Attr{slog.Int(keyPID, os.Getpid())})
	}
	output := switchable{text: handler(humanlog.Text), json: handler(humanlog.JSON), inJSON: &l.inJSON}
	l.apply(c)
	server := logqueue.New(output, "server", nil)
	l.logger = slog.New(server)
	output.on = &l.accessOn
	access := logqueue.New(output, "access", l.logger)
	l.access = slog.New(access)
	l.queues = []*logqueue.Handler{access, server} // The first may write into the second.
	return l
}

// apply puts the settings in force.
func (l *logs) apply(c settings.Log) {
	l.level.Set(c.Level)
	l.accessOn.Store(c.Access)
	l.inJSON.Store(l.options(c.Format).InJSON())
}

// writeTime bounds how long the end of the process waits for stderr.
const writeTime = time.Second

// flush waits until the lines have been written, for a bounded time.
func (l *logs) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	for _, q := range l.queues {
		_ = q.Flush(ctx)
	}
}

// fail reports why the server could not start or serve, behind what was logged.
func (l *logs) fail(env environment, err error) int {
	l.flush()
	return failure(env, err)
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
