package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
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
	p := newProcess(env, s, logs, h)
	if err := p.open(ctx); err != nil {
		return failure(env, err)
	}
	// From here on a signal drains; before, it ended the process at once, and
	// rightly: there was nothing to drain.
	stop := lifecycle.HandleSignals(ctx, p.signalHandlers(ctx))
	defer stop()
	return p.run(env)
}

// process is one running muxserve.
type process struct {
	getenv func(string) string
	logs   *logs
	logger *slog.Logger

	server   *mux.Server
	routes   *routes
	admin    adminPages
	handover *handover
	reloads  *reloads

	// running ends with run.
	running context.Context
	stop    context.CancelFunc
	// serving is closed when the server has begun to serve.
	serving chan struct{}

	// report is the account of the drain; it is set before ended is closed.
	report *lifecycle.Report
	ended  chan struct{}
	// drainOnce guards both: an upgrade drains, and so does a signal.
	drainOnce sync.Once
	// forcedBy is the number of the signal that cut the drain short; 0 if none did.
	forcedBy atomic.Int64
}

// newProcess returns a process with these settings that has opened nothing yet.
func newProcess(env environment, s *settings.Settings, l *logs, h *handover) *process {
	p := &process{
		getenv: env.getenv, logs: l, logger: l.logger, handover: h, routes: new(routes),
		serving: make(chan struct{}), ended: make(chan struct{}),
	}
	p.running, p.stop = context.WithCancel(context.Background())
	p.server = mux.New(
		mux.Configure(func(c *mux.Config) { *c = configOf(s) }),
		mux.WithHandler(p.routes),
		mux.WithGRPC(demo.RegisterGRPC),
		mux.WithLogger(p.logger),
		mux.WithAccessLog(p.logs.accessLogger()),
		mux.WithListen(h.sockets.Listen),
	)
	p.reloads = &reloads{process: p, looked: digestsOf(filesOf(s))}
	p.server.OnReload(p.prepareReload)
	return p
}

// settings returns the settings in force.
func (p *process) settings() *settings.Settings { return settingsOf(p.server.Config()) }

// open opens all that can fail to be opened. When it fails it leaves nothing
// open: the server comes last, because closing one that listens is a drain.
func (p *process) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	s := p.settings()
	if err := p.routes.open(s.Static); err != nil {
		return err
	}
	site, err := p.admin.open(ctx, p, s.Admin.Address)
	if err != nil {
		return err
	}
	p.admin.site.Store(site)
	if err := p.server.Listen(); err != nil {
		return err
	}
	if err := p.handover.adopted(); err != nil {
		return errors.Join(err, p.server.Close())
	}
	p.admin.newPages(p)
	p.server.OnPhase(func(phase lifecycle.Phase) {
		if phase == lifecycle.PhaseDraining {
			p.handover.leave(p.admin.server())
		}
	})
	return p.server.OnDrain(lifecycle.StepAnnounce, "tell the service manager", func(context.Context) error {
		return p.handover.stopping()
	})
}

// close gives back what open took, all but the server.
func (p *process) close() {
	p.stop()
	p.admin.close()
	p.routes.close()
}

// announce says on w where everything is, once the server serves.
func (p *process) announce(w io.Writer) {
	select {
	case <-p.serving:
	case <-p.running.Done():
		return
	}
	for i, addr := range p.server.Addrs() {
		announce(w, addr, p.settings().Mux.Listeners[i])
	}
	if site := p.admin.site.Load(); site != nil {
		announceAdmin(w, site.listener.Addr())
	}
}

// run serves until the server has ended, and returns the exit code. The admin
// pages stay up all the time, so that a drain can be watched to its end.
func (p *process) run(env environment) int {
	defer p.close()
	p.admin.serve(p, p.admin.site.Load())
	p.server.OnPhase(func(phase lifecycle.Phase) {
		if phase == lifecycle.PhaseServing {
			close(p.serving)
		}
	})
	p.reloads.setWatch(p.settings().Watch)
	go p.handover.announce(p.running, p.serving)
	go p.announce(env.stdout)
	if err := p.server.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
		_ = p.server.Close()
		return failure(env, err)
	}
	<-p.ended
	p.handover.upgrader.WaitTold()
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
			p.handover.abandon()
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
		Reload: func() { p.reloads.onSignal() },
		// It returns at once, so that a second signal meets the upgrade under way and
		// is refused, instead of making another one after it.
		Upgrade: func() { go p.handover.upgrade(ctx, func() { p.drainAtOnce(ctx) }) },
	}
}

// extendedConnect is the word in GODEBUG that makes net/http offer extended CONNECT (RFC 8441),
// which WebSockets over HTTP/2 need. net/http reads it once, when the process starts, so a
// change needs a new process.
const extendedConnect = "http2xconnect=1"

// fitGODEBUG reports whether a value of GODEBUG offers extended CONNECT if and only if it is
// wanted. Otherwise it returns a value that does, and keeps the other settings.
func fitGODEBUG(current string, wanted bool) (godebug string, fits bool) {
	if strings.Contains(current, extendedConnect) == wanted {
		return current, true
	}
	words := slices.DeleteFunc(strings.Split(current, ","), func(s string) bool {
		return s == "" || s == extendedConnect
	})
	if wanted {
		words = append(words, extendedConnect)
	}
	godebug = strings.Join(words, ",")
	// Where no value will do, a restart must not be tried for ever.
	return godebug, strings.Contains(godebug, extendedConnect) != wanted
}

// drainAtOnce is drain without the delay: the new process answers the balancer's checks already.
func (p *process) drainAtOnce(ctx context.Context) {
	p.reloads.drainAtOnce()
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
