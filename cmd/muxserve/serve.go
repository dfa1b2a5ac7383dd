package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// serve runs the server until a signal ends it.
func serve(ctx context.Context, args []string, env environment) int {
	s, code, done := load("serve", args, env)
	if done {
		return code
	}
	if godebug, fits := fitGODEBUG(env.getenv("GODEBUG"), s.Mux.HTTP2.WebSocket); !fits && env.restart != nil {
		return failure(env, env.restart(godebug))
	}
	logger := newLogger(env.stderr, s.Log)
	for _, w := range s.Warnings() {
		logger.Warn(w)
	}
	p := &process{settings: s, logger: logger, ended: make(chan struct{})}
	if err := p.open(ctx); err != nil {
		return failure(env, err)
	}
	// From here on a signal drains; before, it ended the process at once, and
	// rightly: there was nothing to drain.
	stop := lifecycle.HandleSignals(ctx, p.signalHandlers(ctx))
	defer stop()
	p.announce(env.stdout)
	return p.run(env)
}

func newLogger(w io.Writer, c settings.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == settings.FormatJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// process is one running muxserve.
type process struct {
	settings *settings.Settings
	logger   *slog.Logger

	server        *mux.Server
	static        *os.Root     // nil without --static
	adminListener net.Listener // nil without admin pages
	adminServer   *http.Server

	// report is the account of the drain; it is set before ended is closed.
	report *lifecycle.Report
	ended  chan struct{}
	// forcedBy is the number of the signal that cut the drain short; 0 if none did.
	forcedBy atomic.Int64
}

// open opens all that can fail to be opened. When it fails it leaves nothing
// open: the server comes last, because closing one that listens is a drain.
func (p *process) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	s := p.settings
	if s.Static != "" {
		if p.static, err = os.OpenRoot(s.Static); err != nil {
			return fmt.Errorf("static: %w", err)
		}
	}
	if s.Admin.Address != settings.Off {
		if p.adminListener, err = listeners.Listen(ctx, s.Admin.Address); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	p.server = mux.New(
		mux.Configure(func(c *mux.Config) { *c = s.Mux }),
		mux.WithHandler(demo.Routes(p.static)),
		mux.WithGRPC(demo.RegisterGRPC),
		mux.WithLogger(p.logger),
	)
	return p.server.Listen()
}

// The bounds of the admin server. There is none on a response: a profile takes
// as long as it is asked to.
const (
	adminHeaderTimeout = 10 * time.Second
	adminIdleTimeout   = 2 * time.Minute
)

// serveAdmin serves the admin pages, if there are any, in the background.
func (p *process) serveAdmin() {
	if p.adminListener == nil {
		return
	}
	p.adminServer = &http.Server{
		Handler:           admin.Handler(p.server, p.settings.Admin.Address, p.settings.Write),
		ReadHeaderTimeout: adminHeaderTimeout,
		IdleTimeout:       adminIdleTimeout,
		ErrorLog:          slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := p.adminServer.Serve(p.adminListener); !errors.Is(err, http.ErrServerClosed) {
			p.logger.Error("the admin listener failed", lifecycle.KeyErr, err)
		}
	}()
}

// close gives back what open took, all but the server.
func (p *process) close() {
	if p.adminServer != nil {
		_ = p.adminServer.Close()
	}
	if p.adminListener != nil {
		_ = p.adminListener.Close()
	}
	if p.static != nil {
		_ = p.static.Close()
	}
}

// announce says on w where everything is.
func (p *process) announce(w io.Writer) {
	for i, addr := range p.server.Addrs() {
		announce(w, addr, p.settings.Mux.Listeners[i])
	}
	if p.adminListener != nil {
		announceAdmin(w, p.adminListener.Addr())
	}
}

// run serves until the server has ended, and returns the exit code. The admin
// pages stay up all the time, so that a drain can be watched to its end.
func (p *process) run(env environment) int {
	defer p.close()
	p.serveAdmin()
	if p.settings.Watch {
		watching, stop := context.WithCancel(context.Background())
		defer stop()
		go p.watch(watching)
	}
	if err := p.server.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
		_ = p.server.Close()
		return failure(env, err)
	}
	<-p.ended
	return p.exitCode()
}

// exitCode says how the drain went.
func (p *process) exitCode() int {
	switch {
	case p.forcedBy.Load() != 0:
		return exitSignalled + int(p.forcedBy.Load())
	case p.report.ForcedTotal() > 0:
		return exitCut
	default:
		return exitOK
	}
}

// exitSignalled is what a signal's number is added to, as shells do.
const exitSignalled = 128

func (p *process) signalHandlers(ctx context.Context) lifecycle.SignalHandlers {
	return lifecycle.SignalHandlers{
		Drain: func(s os.Signal) {
			p.logger.Info("draining", lifecycle.KeySignal, s.String())
			// What went wrong stands in the report, and the machine has logged it.
			p.report, _ = p.server.Drain(ctx)
			close(p.ended)
		},
		Force: func(s os.Signal) {
			if number, ok := s.(syscall.Signal); ok {
				p.forcedBy.CompareAndSwap(0, int64(number))
			}
			p.logger.Warn("a second signal: cutting what is left", lifecycle.KeySignal, s.String())
			p.server.Force()
		},
		Reload: p.reload,
	}
}
