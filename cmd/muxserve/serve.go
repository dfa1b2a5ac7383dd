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
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/lifecycle"
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
	logs := newLogs(env, s.Log)
	logger := logs.logger
	for _, w := range s.Warnings() {
		logger.Warn(w)
	}
	h, err := inherit(env.getenv, logger)
	if err != nil {
		return failure(env, err)
	}
	p := &process{settings: s, logs: logs, logger: logger, handover: h, ended: make(chan struct{})}
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

// process is one running muxserve.
type process struct {
	settings *settings.Settings
	logs     *logs
	logger   *slog.Logger

	server        *mux.Server
	static        *os.Root     // nil without --static
	adminListener net.Listener // nil without admin pages
	adminPages    *admin.Pages
	adminServer   *http.Server
	handover      *handover

	// report is the account of the drain; it is set before ended is closed.
	report *lifecycle.Report
	ended  chan struct{}
	// drainOnce guards both: an upgrade drains, and so does a signal.
	drainOnce sync.Once
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
		if p.adminListener, err = p.handover.sockets.Listen(ctx, s.Admin.Address); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	p.server = mux.New(
		mux.Configure(func(c *mux.Config) { *c = s.Mux }),
		mux.WithHandler(demo.Routes(p.static)),
		mux.WithGRPC(demo.RegisterGRPC),
		mux.WithLogger(p.logger),
		mux.WithAccessLog(p.logs.accessLogger()),
		mux.WithListen(p.handover.sockets.Listen),
	)
	if err := p.server.Listen(); err != nil {
		return err
	}
	if err := p.handover.adopted(); err != nil {
		return errors.Join(err, p.server.Close())
	}
	p.newAdminServer()
	return p.server.OnDrain(lifecycle.StepAnnounce, "hand over", func(context.Context) error {
		return p.handover.leave(p.adminServer)
	})
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
	running, stop := context.WithCancel(context.Background())
	defer stop()
	p.serveAdmin(running)
	if p.settings.Watch {
		go p.watch(running)
	}
	serving := make(chan struct{})
	p.server.OnPhase(func(phase lifecycle.Phase) {
		if phase == lifecycle.PhaseServing {
			close(serving)
		}
	})
	go p.handover.announce(running, serving)
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
			p.handover.upgrader.Stop()
			p.drain(ctx)
		},
		Force: func(s os.Signal) {
			if number, ok := s.(syscall.Signal); ok {
				p.forcedBy.CompareAndSwap(0, int64(number))
			}
			p.logger.Warn("a second signal: cutting what is left", lifecycle.KeySignal, s.String())
			p.server.Force()
		},
		Reload: p.reload,
		// It returns at once, so that a second signal meets the upgrade under way and
		// is refused, instead of making another one after it.
		Upgrade: func() { go p.handover.upgrade(ctx, func() { p.drainAtOnce(ctx) }) },
	}
}

// drainAtOnce is drain without the delay: the new process answers the balancer's checks already.
func (p *process) drainAtOnce(ctx context.Context) {
	c := p.server.DrainConfig()
	c.Delay = 0
	_ = p.server.SetDrain(c) // It fails where a drain has begun.
	p.drain(ctx)
}

// drain ends the server, once.
func (p *process) drain(ctx context.Context) {
	p.drainOnce.Do(func() {
		// What went wrong stands in the report, and the machine has logged it.
		p.report, _ = p.server.Drain(ctx)
		close(p.ended)
	})
}
