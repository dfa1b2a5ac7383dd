package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// DefaultTimeout is how long a new process may take until it is ready. It reads
// files and opens sockets, which takes a fraction of a second; the rest is for a
// host that is out of breath.
const DefaultTimeout = 30 * time.Second

// What an upgrade may be refused for. Nothing has been started then.
var (
	// ErrRunning refuses an upgrade while another one is under way.
	ErrRunning = errors.New("upgrade: another upgrade is under way")
	// ErrUpgraded refuses an upgrade of a process that has handed its sockets over.
	ErrUpgraded = errors.New("upgrade: a new process has taken over already")
	// ErrStopped refuses, or ends, an upgrade of a process that is about to end.
	ErrStopped = errors.New("upgrade: this process is ending")
	// errInit refuses to upgrade what ends with this very process.
	errInit = errors.New("upgrade: this is process 1, whose end is the end of its container; start a new container instead")
)

// Sockets are what is handed over: *listeners.Sockets, or less in a test.
type Sockets interface {
	// Pass returns duplicates of the sockets for the descriptors 3 and up of the new
	// process, and environ with what this has to know about them.
	Pass(environ []string) (files []*os.File, env []string, err error)
	// KeepFiles is called when the new process has taken over.
	KeepFiles()
}

// state is how far an Upgrader has got.
type state int

const (
	idle     state = iota
	running        // a new process has been started
	upgraded       // it has taken over
	stopped        // there is to be none
)

// Upgrader starts the process that takes over. All methods may be called
// concurrently. Get one from [New].
type Upgrader struct {
	program Program
	sockets Sockets
	timeout time.Duration

	// mu guards what follows.
	mu     sync.Mutex
	state  state
	cancel context.CancelCauseFunc // ends the upgrade under way
	ended  chan struct{}           // closed when it is over
	next   *child                  // the process that has taken over; nil if none has
}

// New returns an Upgrader that starts program with the sockets. A timeout of
// zero stands for [DefaultTimeout].
func New(program Program, sockets Sockets, timeout time.Duration) *Upgrader {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Upgrader{program: program, sockets: sockets, timeout: timeout}
}

// Upgrade starts the new process and waits until it is ready. It returns the number
// of that process, which serves from then on; the caller has to stop accepting and drain,
// and to call [Upgrader.WaitTold] before it ends. A process that has said that it is ready
// is never ended: it has taken over, even where Stop or the end of ctx came before this was read.
//
// After an error nothing has changed: the new process has been ended, at the latest
// one second later by force, and there may be another attempt.
func (u *Upgrader) Upgrade(ctx context.Context) (pid int, err error) {
	if os.Getpid() == 1 {
		return 0, errInit
	}
	ctx, ended, err := u.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer close(ended)
	c, err := u.program.start(u.sockets)
	if err == nil {
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

// begin claims the one upgrade that there is at a time. ended is to be closed.
func (u *Upgrader) begin(ctx context.Context) (attempt context.Context, ended chan struct{}, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.state {
	case running:
		return nil, nil, ErrRunning
	case upgraded:
		return nil, nil, ErrUpgraded
	case stopped:
		return nil, nil, ErrStopped
	}
	u.state, u.ended = running, make(chan struct{})
	attempt, u.cancel = context.WithCancelCause(ctx)
	return attempt, u.ended, nil
}

// decide ends the upgrade by c whose outcome is err: the sockets are the new process's
// if that is ready, and remain this one's otherwise.
func (u *Upgrader) decide(c *child, err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cancel(nil)
	switch {
	case err == nil:
	case u.state == stopped && errors.Is(err, ErrStopped):
		return err
	case u.state == stopped:
		return errors.Join(ErrStopped, err)
	default:
		u.state = idle
		return err
	}
	u.state, u.next = upgraded, c
	u.sockets.KeepFiles()
	return nil
}

// Stop ends the upgrade under way, with its process unless that is ready, and refuses others. It
// returns when the process is gone or has taken over, and reports whether one has taken over.
func (u *Upgrader) Stop() (handedOver bool) {
	u.mu.Lock()
	before, ended := u.state, u.ended
	if before != upgraded {
		u.state = stopped
	}
	if before == running {
		u.cancel(ErrStopped)
	}
	u.mu.Unlock()
	if ended != nil {
		<-ended
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state == upgraded
}

// tellTimeout bounds the wait for a new process that is telling the service manager. It takes more than
// twice the time that this may take there.
const tellTimeout = 5 * time.Second

// WaitTold returns when the new process that has taken over, if there is one, has told the service
// manager its number or is gone; at the latest after 5 s. Before, the service manager would take the
// end of this process for the end of the service.
func (u *Upgrader) WaitTold() {
	u.mu.Lock()
	next := u.next
	u.mu.Unlock()
	if next == nil {
		return
	}
	timer := time.NewTimer(tellTimeout)
	defer timer.Stop()
	select {
	case <-next.silent:
	case <-next.exited:
	case <-timer.C:
	}
}

// errorf begins every error of this package alike.
func errorf(format string, args ...any) error { return fmt.Errorf("upgrade: "+format, args...) }
