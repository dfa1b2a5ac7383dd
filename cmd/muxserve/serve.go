package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
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
	if godebug, stays := fitGODEBUG(env.getenv("GODEBUG"), s.Mux.HTTP2.WebSocket); !stays && env.restart != nil {
		return failure(env, env.restart(godebug))
	}
	// Whoever reads the log may have gone: SIGPIPE is ignored before the first line.
	defer lifecycle.HandleSignals(ctx, lifecycle.SignalHandlers{})()
	logs := newLogs(env, s.Log)
	defer logs.flush()
	logger := logs.logger
	for _, w := range append(s.Warnings(), env.warnings()...) {
		logger.Warn("questionable configuration", keyWarning, w)
	}
	h, err := inherit(env.getenv, logger)
	if err != nil {
		return logs.fail(env, err)
	}
	p := newProcess(env, s, logs, h)
	if err := p.open(ctx); err != nil {
		return logs.fail(env, err)
	}
	// From here on a signal drains. Before, it ended the process at once: there was
	// nothing to drain.
	stop := lifecycle.HandleSignals(ctx, p.signalHandlers(ctx))
	defer stop()
	return p.run(env)
}

// process is one running muxserve.
type process struct {
	getenv func(string) string
	logs   *logs
	logger *slog.Logger
	// terminal says that a person started the process at a terminal and sees its log.
	terminal bool

	server   *mux.Server
	routes   *routes
	admin    adminPages
	handover *handover
	reloads  *reloads

	running context.Context // ends with run
	stop    context.CancelFunc
	serving chan struct{} // closed when the server has begun to serve

	// forcedBy is the number of the signal that has cut the drain short; 0 for none.
	forcedBy atomic.Int64
	// drainContext ends when the drain is cut short; see signalHandlers.
	drainContext context.Context //nolint:containedctx // It is that of one drain.
	draining     atomic.Bool     // a signal or a request has begun the drain
}

// newProcess returns a process that has not opened anything yet.
func newProcess(env environment, s *settings.Settings, l *logs, h *handover) *process {
	p := &process{
		getenv: env.getenv, logs: l, logger: l.logger, terminal: humanlog.IsTerminal(env.stderr), handover: h, routes: new(routes),
		serving: make(chan struct{}),
	}
	p.running, p.stop = context.WithCancel(context.Background())
	p.server = mux.New(
		mux.Configure(func(c *mux.Config) { *c = configOf(s) }),
		mux.WithHandler(p.routes),
		mux.WithGRPC(demo.RegisterGRPC),
		mux.WithLogger(p.logger),
		mux.WithAccessLog(p.logs.access),
		mux.WithListen(h.sockets.Listen),
	)
	p.reloads = &reloads{process: p, looked: digestsRead(s).with(digestsOf(filesOf(s)))}
	p.reloads.token.Store(&s.Admin.Token)
	p.server.OnReload(p.reloads.prepare)
	if h.passed.NotReady {
		p.logger.Warn("not ready, as the process before: muxserve ctl ready on takes it back into its balancer")
		p.server.SetServing("", false)
	}
	h.state = p.passedState
	return p
}

// passedState returns what the next process of an upgrade is told. While the process serves,
// only an operator makes it not ready: it has no checks of its own.
func (p *process) passedState() passedState {
	return passedState{Blank: p.settings().IsBlank(), NotReady: p.server.Ready() != nil}
}

// settings returns the settings in force.
func (p *process) settings() *settings.Settings { return settingsOf(p.server.Config()) }

// open opens everything whose opening can fail. After an error nothing is open. The
// server comes last, because closing a listening server is a drain.
func (p *process) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	s := p.settings()
	if err := p.routes.open(s); err != nil {
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
			p.handover.leave(p.admin.site.Load())
		}
	})
	return p.server.OnDrain(lifecycle.StepAnnounce, "tell the service manager", func(context.Context) error {
		return p.handover.stopping()
	})
}

// close closes everything that open has opened, except the server.
func (p *process) close() {
	p.stop()
	p.admin.close()
	p.routes.close()
}

// showStart logs the start, and prints the addresses on w, once the server serves. People at
// a terminal get commands to try them as well.
func (p *process) showStart(w io.Writer) {
	select {
	case <-p.serving:
	case <-p.running.Done():
		return
	}
	p.logStart()
	hints := humanlog.IsTerminal(w)
	for addr, c := range p.server.Listeners() {
		printAddress(w, addr, c, hints)
	}
	if site := p.admin.site.Load(); site != nil {
		fmt.Fprintf(w, "muxserve: admin pages on %s\n", shownAddress(site.sockets[0].Addr(), listeners.ModeOff))
	}
}

// run serves until the server has ended, and returns the exit code. The admin pages are
// served until then, so that an operator can watch the whole drain.
func (p *process) run(env environment) int {
	defer p.close()
	p.admin.site.Load().serve()
	p.server.OnPhase(func(phase lifecycle.Phase) {
		if phase == lifecycle.PhaseServing {
			close(p.serving)
		}
	})
	p.reloads.setWatch(p.settings().Watch)
	go p.handover.tellReady(p.running, p.serving)
	go p.showStart(env.stdout)
	if err := p.server.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
		_ = p.server.Close()
		return p.logs.fail(env, err)
	}
	report, _ := p.server.Drain(context.Background()) // The drain is over, and this is its account.
	p.handover.upgrader.WaitTold()
	p.admin.pages.Hold()
	return p.exitCode(report)
}

// exitCode returns the exit code for the result of the drain.
func (p *process) exitCode(report *lifecycle.Report) int {
	switch {
	case p.forcedBy.Load() != 0:
		return exitSignalled + int(p.forcedBy.Load())
	case report.ForcedTotal() > 0:
		return exitCut
	default:
		return exitOK
	}
}

// errForced is why a drain is cut short that a second signal ends.
var errForced = errors.New("forced")

func (p *process) signalHandlers(ctx context.Context) lifecycle.SignalHandlers {
	ctx, force := context.WithCancelCause(ctx)
	p.drainContext = ctx
	return lifecycle.SignalHandlers{
		Drain: func(s os.Signal) {
			switch first := p.beginDrain(); {
			case !first:
				p.logger.Info("draining already, by a request; another signal cuts what is left", keySignal, s.String())
			case p.terminal && s == os.Interrupt:
				p.logger.Info("draining; another Ctrl-C cuts what is left", keySignal, s.String())
				p.reloads.drainAtOnce() // There is no balancer that has to notice.
			default:
				p.logger.Info("draining", keySignal, s.String())
			}
			p.drain(ctx)
		},
		Force: func(s os.Signal) {
			if number, ok := s.(syscall.Signal); ok {
				p.forcedBy.CompareAndSwap(0, int64(number))
			}
			p.logger.Warn("a second signal: cutting what is left", keySignal, s.String())
			force(errForced)
		},
		Reload: func() { p.reloads.onSignal() },
		// It returns at once, so that a second signal is refused during the upgrade
		// instead of starting another one after it.
		Upgrade: func() { go p.upgrade(ctx) },
	}
}

// upgrade hands over to a new process, and drains then. A signal that comes early waits until
// the process serves, which has nothing to hand over before.
func (p *process) upgrade(ctx context.Context) {
	select {
	case <-p.serving:
	case <-p.running.Done():
		return
	}
	pid, err := p.reloads.upgrade(func() (int, error) { return p.handover.upgrader.Upgrade(ctx) })
	if !p.handover.report(pid, err) {
		return
	}
	// The service manager follows the new process now. It would take this process's
	// messages, such as STOPPING, for the new one's.
	_ = os.Unsetenv("NOTIFY_SOCKET")
	p.server.KeepReady()
	p.drain(ctx)
}

// extendedConnect is the word in GODEBUG that makes net/http offer extended CONNECT (RFC
// 8441), which WebSockets over HTTP/2 need. net/http reads it once, when the process
// starts, so a change needs a new process.
const extendedConnect = "http2xconnect=1"

// fitGODEBUG reports whether a value of GODEBUG stays: it offers extended CONNECT if and
// only if that is wanted, or no value would. Otherwise it returns a value that does, and
// keeps the other settings.
func fitGODEBUG(current string, wanted bool) (godebug string, stays bool) {
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

// beginDrain gives up what a drain ends besides the server. It reports false where a signal
// or a request has done so before.
func (p *process) beginDrain() bool {
	if !p.draining.CompareAndSwap(false, true) {
		return false
	}
	p.handover.abandon()
	p.handover.upgrader.Stop()
	return true
}

var _ admin.Process = (*process)(nil)

// Drain implements [admin.Process]. A first signal after it has no effect, because service
// managers send one in any case; a second one cuts what is left.
func (p *process) Drain(origin string) bool {
	if p.server.Phase() != lifecycle.PhaseServing || !p.beginDrain() {
		return false
	}
	p.logger.Info("draining", keyOrigin, origin)
	go p.drain(p.drainContext)
	return true
}

// SetReady implements [admin.Process].
func (p *process) SetReady(ready bool) error { return p.reloads.setReady(ready) }

// LogLevel implements [admin.Process].
func (p *process) LogLevel() slog.Level { return p.logs.level.Level() }

// SetLogLevel implements [admin.Process].
func (p *process) SetLogLevel(level slog.Level, origin string) {
	was := p.logs.level.Level()
	p.logs.level.Set(min(was, level)) // So that the line is logged if one of them lets it.
	p.logger.Info("log level changed until the next reload", keyOrigin, origin, keyFrom, was.String(), keyTo, level.String())
	p.logs.level.Set(level)
}

// drain ends the server. Errors are in the report, and the server has logged them.
func (p *process) drain(ctx context.Context) { _, _ = p.server.Drain(ctx) }
