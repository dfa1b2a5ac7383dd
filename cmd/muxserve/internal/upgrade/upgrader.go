package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// defaultTimeout bounds the time until a new process is ready. Reading files and opening
// sockets takes a fraction of a second; the rest is for an overloaded host.
const defaultTimeout = 30 * time.Second

// The errors of refused upgrades. No process has been started.
var (
	// ErrRunning refuses an upgrade while another one is under way.
	ErrRunning = errors.New("upgrade: another upgrade is under way")
	// ErrUpgraded refuses an upgrade after a new process has taken over.
	ErrUpgraded = errors.New("upgrade: a new process has taken over already")
	// errStopped refuses, or ends, an upgrade of a process that is ending.
	errStopped = errors.New("upgrade: this process is ending")
	// ErrUnfit refuses an upgrade that would end with the end of this process.
	ErrUnfit = errors.New("upgrade: no process can take over from this one")
)

// Sockets are the sockets to hand over.
type Sockets interface {
	// Pass returns duplicates of the sockets, which the new process gets as descriptors 3
	// and up, and environ with variables that describe them.
	Pass(environ []string) (files []*os.File, env []string, err error)
	// KeepFiles is called when the new process has taken over, which owns the sockets'
	// files then.
	KeepFiles()
}

// state is the state of an Upgrader.
type state int

const (
	idle     state = iota
	running        // a new process has been started
	upgraded       // it has taken over
	stopped        // there are no more upgrades
)

// refusals are why an upgrade cannot begin in each state.
var refusals = map[state]error{running: ErrRunning, upgraded: ErrUpgraded, stopped: errStopped}

// Upgrader starts the process that takes over. Get one from [New]. All methods may be
// called concurrently.
type Upgrader struct {
	// OnStart is called with the id of a process that was started, before it is ready. It may
	// be nil. Set it before the first upgrade.
	OnStart func(pid int)

	program Program
	sockets Sockets
	timeout time.Duration

	// mu guards what follows.
	mu     sync.Mutex
	state  state
	cancel context.CancelCauseFunc // ends the upgrade under way
	ended  chan struct{}           // closed at the end of that upgrade
	next   *child                  // the process that has taken over; nil for none
}

// New returns an Upgrader that starts program with the sockets. A timeout of zero is
// 30 s.
func New(program Program, sockets Sockets, timeout time.Duration) *Upgrader {
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return &Upgrader{program: program, sockets: sockets, timeout: timeout}
}

// Upgrade starts the new process and waits until it is ready. It returns the id of that
// process, which serves from then on. The caller has to stop accepting and drain, and to
// call [Upgrader.WaitTold] before it ends. A process that has said that it is ready has
// taken over, even where Stop was called or ctx ended before Upgrade had read that.
//
// After an error nothing has changed: the new process has been ended, by force after a
// second, and Upgrade may be called again.
func (u *Upgrader) Upgrade(ctx context.Context) (pid int, err error) {
	if u.program.unfit != nil {
		return 0, u.program.unfit
	}
	ctx, ended, err := u.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer close(ended)
	c, err := u.program.start(u.sockets)
	if err == nil {
		if u.OnStart != nil {
			u.OnStart(c.pid())
		}
		err = c.waitReady(ctx, u.timeout)
	}
	if err != nil && c != nil && c.isReady() {
		err = nil
	}
	if err = u.decide(c, err); err != nil {
		if c != nil {
			c.end()
		}
		return 0, err
	}
	return c.pid(), nil
}

// begin begins the only upgrade at this time. The caller has to close ended.
func (u *Upgrader) begin(ctx context.Context) (attempt context.Context, ended chan struct{}, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := refusals[u.state]; err != nil {
		return nil, nil, err
	}
	u.state, u.ended = running, make(chan struct{})
	attempt, u.cancel = context.WithCancelCause(ctx)
	return attempt, u.ended, nil
}

// decide ends the upgrade by c with the result err. Without an error the new process has
// the sockets.
func (u *Upgrader) decide(c *child, err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cancel(nil)
	switch {
	case err == nil:
		u.state, u.next = upgraded, c
		u.sockets.KeepFiles()
	case u.state != stopped:
		u.state = idle
	case !errors.Is(err, errStopped):
		err = errors.Join(errStopped, err)
	}
	return err
}

// Stop refuses further upgrades, and ends the one under way with its process unless that
// is ready. It returns when the process has ended or taken over, and reports whether a
// process has taken over.
func (u *Upgrader) Stop() (handedOver bool) {
	u.mu.Lock()
	before, ended := u.state, u.ended
	if before != upgraded {
		u.state = stopped
	}
	if before == running {
		u.cancel(errStopped)
	}
	u.mu.Unlock()
	if ended != nil {
		<-ended
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state == upgraded
}

// HandedOver reports whether a process has taken over. It does not wait.
func (u *Upgrader) HandedOver() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state == upgraded
}

// Signal sends a signal to the process that has taken over. It fails with
// [os.ErrProcessDone] where there is none, or none any more.
func (u *Upgrader) Signal(s os.Signal) error {
	u.mu.Lock()
	next := u.next
	u.mu.Unlock()
	if next == nil {
		return os.ErrProcessDone
	}
	return next.process.Signal(s)
}

// tellTimeout bounds WaitTold. It is more than twice the bound of a notification.
const tellTimeout = 5 * time.Second

// WaitTold waits until the process that has taken over, if there is one, has told the
// service manager its id or has ended, at most 5 s. If this process ended earlier, the
// service manager would take that for the end of the service.
func (u *Upgrader) WaitTold() {
	u.mu.Lock()
	next := u.next
	u.mu.Unlock()
	if next == nil {
		return
	}
	select {
	case <-next.silent:
	case <-next.exited:
	case <-time.After(tellTimeout):
	}
}

// errorf adds the package's name to an error.
func errorf(format string, args ...any) error { return fmt.Errorf("upgrade: "+format, args...) }
