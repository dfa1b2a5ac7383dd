package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/upgrade"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
)

// keyPID is the log key for the number of another process.
const keyPID = "pid"

// handover is what a process needs to take the listening sockets over from the one
// before, or from the service manager, and to hand them over to the next.
type handover struct {
	sockets  *listeners.Sockets
	parent   *upgrade.Parent // nil in a process that was not started for an upgrade
	upgrader *upgrade.Upgrader
	logger   *slog.Logger

	// speak guards the one word to the parent: that this process is ready, or that it never will be.
	speak sync.Once
	// left guards the one time that this process leaves the sockets to the next.
	left sync.Once
}

// inherit takes over what this process was started with. It comes before anything
// is opened, because what it takes over is known by the numbers of descriptors, and after
// the process has replaced itself for another GODEBUG, which leaves those open.
func inherit(getenv func(string) string, logger *slog.Logger) (*handover, error) {
	program, err := upgrade.Current()
	if err != nil {
		return nil, err
	}
	h := &handover{logger: logger}
	if h.sockets, err = listeners.Inherited(getenv); err != nil {
		return nil, err
	}
	if h.parent, err = upgrade.FromParent(getenv); err != nil {
		return nil, err
	}
	h.upgrader = upgrade.New(program, h.sockets, 0)
	return h, nil
}

// adopted is called when every configured address has its socket. It closes the
// inherited ones that are left.
func (h *handover) adopted() error {
	dropped, err := h.sockets.CloseUnused()
	for _, name := range dropped {
		h.logger.Info("the old process listens on an address that is no longer configured", keyLocalAddr, name)
	}
	return err
}

// keyLocalAddr is mux's log key for an address that this server listens on.
const keyLocalAddr = "local_addr"

// abandon tells the process before, if there is one, that this one ends before it was ready.
func (h *handover) abandon() {
	h.speak.Do(func() { _ = h.parent.Abandon() })
}

// ready tells the process before, if there is one, that this process serves, unless it has been told that
// this one ends. The files of the sockets are this one's from then on. The service manager, which may be busy, comes last.
func (h *handover) ready() {
	var err error
	said := false
	h.speak.Do(func() {
		said = true
		if err = h.parent.Ready(); err == nil && h.parent != nil {
			h.sockets.OwnFiles()
		}
	})
	if !said {
		return
	}
	if err = errors.Join(err, h.parent.Tell()); err != nil {
		h.logger.Warn("not everybody knows that this process is ready", keyErr, err)
	}
}

// announce waits until serving is closed, which is when the server serves, and says so to whom it concerns. The
// process before, if there is one, begins to drain then. It feeds the watchdog until ctx ends.
func (h *handover) announce(ctx context.Context, serving <-chan struct{}) {
	select {
	case <-serving:
	case <-ctx.Done():
		return // A signal came first: the process before goes on serving.
	}
	h.ready()
	h.feedWatchdog(ctx)
}

// feedWatchdog tells the service manager's watchdog, if there is one, that this
// process is well, until ctx ends: twice in the time it has for it.
func (h *handover) feedWatchdog(ctx context.Context) {
	interval, err := lifecycle.WatchdogInterval()
	if err != nil {
		h.logger.Warn("the watchdog hears nothing", keyErr, err)
	}
	const often = 2
	if interval < often {
		return
	}
	tick := time.NewTicker(interval / often)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// One that is lost is made up for by the next.
			_, _ = lifecycle.Alive()
		case <-ctx.Done():
			return
		}
	}
}

// upgrade starts the new binary with the listening sockets, and calls drain when
// that serves. If it does not come to that, this process serves on.
func (h *handover) upgrade(ctx context.Context, drain func()) {
	pid, err := h.upgrader.Upgrade(ctx)
	switch {
	case errors.Is(err, upgrade.ErrRunning) || errors.Is(err, upgrade.ErrUpgraded):
		h.logger.Warn("upgrade refused", keyErr, err)
		return
	case err != nil:
		h.logger.Error("upgrade failed; this process serves on", keyErr, err)
		return
	}
	h.logger.Info("upgraded: a new process serves, and this one drains", keyPID, pid)
	// The service manager follows the new process. It would take for the new one's
	// what this one has to say, such as that it is stopping.
	_ = os.Unsetenv("NOTIFY_SOCKET")
	drain()
}

// leave stops accepting at once, without emptying the kernel's queue, if the
// sockets are another process's by now: that one serves what is queued. It is for the
// beginning of a drain, whichever of its steps are skipped. Health checks meet the new process alone
// from then on; requests that the admin server is busy with go on to the end of the drain.
func (h *handover) leave(admin *http.Server) {
	if !h.upgrader.Stop() {
		return
	}
	h.left.Do(func() {
		if admin != nil {
			over, cancel := context.WithCancel(context.Background())
			cancel()
			_ = admin.Shutdown(over) // Nobody waits for its requests here.
		}
		if err := h.sockets.Close(); err != nil {
			h.logger.Warn("a socket was not left properly", keyErr, err)
		}
	})
}

// stopping tells the service manager that this process is stopping, unless another serves in its place.
func (h *handover) stopping() error {
	if h.upgrader.Stop() {
		return nil
	}
	_, err := lifecycle.Stopping()
	return err
}
