package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/admin"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/upgrade"
)

// Why nothing is changed in this process: the new process of an upgrade would not know.
var (
	errUpgrading = errors.New("an upgrade is under way; ask again when it is over")
	errUpgraded  = errors.New("a new process has taken over; ask again, and it answers")
)

// errChanging refuses an upgrade. The new process might read half of what is changed.
var errChanging = errors.New("a change of the configuration is under way")

// changeTime is how long an upgrade waits for a change that is under way.
const changeTime = 5 * time.Second

// upgrade does an upgrade, and returns what that returns: the id of the process that has
// taken over, or an error. It waits for the change that is under way. There are no others
// until the upgrade has failed: the new process has read the configuration, and been told
// the rest, when it was started. Log the outcome afterwards, as with ended.
func (r *reloads) upgrade(handOver func() (pid int, err error)) (pid int, err error) {
	for end := time.Now().Add(changeTime); !r.changing.TryLock(); time.Sleep(changeTime / 100) {
		switch {
		case r.upgrading.Load():
			return 0, upgrade.ErrRunning
		case time.Now().After(end):
			return 0, errChanging
		}
	}
	defer r.changing.Unlock()
	r.readying.Lock()
	r.upgrading.Store(true)
	r.readying.Unlock()
	defer r.upgrading.Store(false)
	if pid, err = handOver(); err == nil {
		r.passOn() // This process may end before onSignal comes to it.
		r.skipDelay(originUpgrade)
	}
	return pid, err
}

// setReady has the server want traffic, or not. It waits for no change, since a sick machine may
// hold that up.
func (r *reloads) setReady(ready bool) error {
	r.readying.Lock()
	defer r.readying.Unlock()
	switch {
	case r.upgrading.Load():
		return errUpgrading
	case r.process.handover.upgrader.HandedOver():
		return errUpgraded
	}
	r.process.server.SetServing("", ready)
	return nil
}

// tryLock locks changing unless there is another change or an upgrade. Its errors are
// [admin.ErrBusy].
func (r *reloads) tryLock() error {
	if !r.changing.TryLock() {
		if r.upgrading.Load() {
			return fmt.Errorf("%w: %w", admin.ErrBusy, errUpgrading)
		}
		return admin.ErrBusy
	}
	if err := r.unlockIfUpgraded(); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrBusy, err)
	}
	return nil
}

// unlockIfUpgraded unlocks changing where another process has taken over.
func (r *reloads) unlockIfUpgraded() error {
	if !r.process.handover.upgrader.HandedOver() {
		return nil
	}
	r.changing.Unlock()
	return errUpgraded
}

// passOn passes a SIGHUP, if one has come, on to the process that has taken over: its sender
// means the process that serves.
func (r *reloads) passOn() {
	if !r.signalled.Swap(false) {
		return
	}
	if err := r.process.handover.upgrader.Signal(syscall.SIGHUP); err != nil {
		r.process.logger.Warn("SIGHUP not passed on to the process that has taken over", keyErr, err)
		return
	}
	r.process.logger.Info("SIGHUP passed on to the process that has taken over")
}
