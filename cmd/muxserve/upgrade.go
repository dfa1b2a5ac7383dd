package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/upgrade"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
)

// handover takes the listening sockets over from the previous process or the service
// manager, and hands them over to the next process.
type handover struct {
	sockets  *listeners.Sockets
	parent   *upgrade.Parent // nil in a process that was not started for an upgrade
	upgrader *upgrade.Upgrader
	logger   *slog.Logger
	passed   passedState // by the previous process
	// state returns what the next process is told besides the sockets. Set it before upgrade
	// is called.
	state func() passedState

	// speak guards the one message to the parent: this process is ready, or never will be.
	speak sync.Once
}

// inherit takes over the descriptors that this process was started with. Call it before
// anything is opened, because it knows them by number, and after a restart for another
// GODEBUG, which keeps them open.
func inherit(getenv func(string) string, logger *slog.Logger) (*handover, error) {
	program := upgrade.Current()
	h := &handover{logger: logger}
	var err error
	if h.sockets, err = listeners.Inherited(getenv); err != nil {
		return nil, err
	}
	if h.parent, err = upgrade.FromParent(getenv); err != nil {
		return nil, err
	}
	if h.parent != nil {
		h.passed = passedStateOf(getenv)
	}
	h.upgrader = upgrade.New(program, h, 0)
	h.upgrader.OnStart = func(pid int) {
		h.logger.Info("upgrade: a new process starts", keyNewPID, pid)
	}
	return h, nil
}

// envState tells the new process of an upgrade the [passedState] in JSON.
const envState = "MUXSERVE_UPGRADE_STATE"

// passedState is what the new process of an upgrade takes over besides the sockets. Other
// binaries ignore fields that they do not know.
type passedState struct {
	// Blank says that the configuration file of the old process had no content.
	Blank bool `json:"blank,omitempty"`
	// NotReady says that an operator has taken the server out of its balancer. Other binaries
	// know it as off.
	NotReady bool `json:"off,omitempty"`
}

// passedStateOf returns what the environment says; nothing where the process before has
// said nothing.
func passedStateOf(getenv func(string) string) (s passedState) {
	_ = json.Unmarshal([]byte(getenv(envState)), &s)
	return s
}

var _ upgrade.Sockets = (*handover)(nil)

// Pass implements [upgrade.Sockets].
func (h *handover) Pass(environ []string) (files []*os.File, env []string, err error) {
	state, err := json.Marshal(h.state())
	if err != nil {
		return nil, nil, err
	}
	environ = slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, envState+"=") })
	return h.sockets.Pass(append(environ, envState+"="+string(state)))
}

// KeepFiles implements [upgrade.Sockets].
func (h *handover) KeepFiles() { h.sockets.KeepFiles() }

// adopted closes the inherited sockets that are left when every configured address has a
// socket.
func (h *handover) adopted() error {
	dropped, err := h.sockets.CloseUnused()
	for _, name := range dropped {
		h.logger.Info("the old process listens on an address that is no longer configured", keyLocalAddr, name)
	}
	return err
}

// abandon tells the previous process, if there is one, that this process will not be
// ready.
func (h *handover) abandon() {
	h.speak.Do(func() { _ = h.parent.Abandon() })
}

// ready tells the previous process, if there is one, that this process serves, unless
// abandon was called. From then on this process owns the sockets' files. It tells the
// service manager last, which may be busy.
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

// tellReady waits until the server serves, which closes serving, and tells the previous
// process and the service manager. The previous process drains then. After that it feeds
// the watchdog until ctx ends.
func (h *handover) tellReady(ctx context.Context, serving <-chan struct{}) {
	select {
	case <-serving:
	case <-ctx.Done():
		return // A signal came first: the previous process serves on.
	}
	h.ready()
	h.feedWatchdog(ctx)
}

// feedWatchdog tells the service manager's watchdog, if there is one, twice in each of
// its intervals that this process is alive, until ctx ends.
func (h *handover) feedWatchdog(ctx context.Context) {
	interval, err := lifecycle.WatchdogInterval()
	if err != nil {
		h.logger.Warn("the watchdog hears nothing", keyErr, err)
	}
	const often = 2
	if interval < often {
		return
	}
	tick := time.Tick(interval / often)
	for {
		select {
		case <-tick:
			_, _ = lifecycle.Alive() // The next one makes up for a lost one.
		case <-ctx.Done():
			return
		}
	}
}

// report logs how an upgrade has ended, and reports whether the new process serves. Where it
// has failed, this process serves on.
func (h *handover) report(pid int, err error) (handedOver bool) {
	switch {
	case errors.Is(err, upgrade.ErrRunning) || errors.Is(err, upgrade.ErrUpgraded) || errors.Is(err, upgrade.ErrUnfit) || errors.Is(err, errChanging):
		h.logger.Warn("upgrade refused", keyErr, err)
		return false
	case err != nil:
		h.logger.Error("upgrade failed; this process serves on", keyErr, err)
		return false
	}
	h.logger.Info("upgraded: a new process serves, and this one drains", keyNewPID, pid)
	return true
}

// leave closes the sockets at the beginning of a drain if another process has taken over,
// which accepts the connections in the kernel's queue. It does not depend on the steps of
// the drain, which may be skipped. From then on only the new process answers health
// checks. Requests under way at the admin server go on until the end of the drain.
func (h *handover) leave(admin *adminSite) {
	if !h.upgrader.Stop() {
		return
	}
	if admin != nil {
		admin.cede()
		admin.stop()
	}
	if err := h.sockets.Close(); err != nil {
		h.logger.Warn("a socket was not left properly", keyErr, err)
	}
}

// stopping tells the service manager that this process stops, unless another one has
// taken over.
func (h *handover) stopping() error {
	if h.upgrader.HandedOver() { // The beginning of the drain has ended an upgrade under way.
		return nil
	}
	_, err := lifecycle.Stopping()
	return err
}
