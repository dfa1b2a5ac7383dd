package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// envReady names the descriptor by which a new process says that it is ready.
const envReady = "MUXSERVE_UPGRADE_READY"

// envWatchdogPID says which process the watchdog watches, by a number that is not
// the new one's. Without it the variables of the watchdog are meant for whoever has them.
const envWatchdogPID = "WATCHDOG_PID"

// endGrace is how long a process that is not wanted any more gets to end by
// itself. It has served nobody, so this is short.
const endGrace = time.Second

// lastLook is how long the pipe of a process that is about to be ended is looked at. What is
// in it comes out at once; the rest is for a host that is out of breath.
const lastLook = 50 * time.Millisecond

// child is a new process.
type child struct {
	process *os.Process
	// ready is closed when the process says that it is ready.
	ready chan struct{}
	// silent is closed when the process has said all that it will: that it is ready and
	// that the service manager knows, or nothing.
	silent chan struct{}
	// pipe is what it says that through.
	pipe *os.File
	// exited is closed when the process has ended; outcome says how and is set before.
	exited  chan struct{}
	outcome string
}

// start starts the program with the sockets and the pipe.
func (p Program) start(sockets Sockets) (*child, error) {
	files, env, err := sockets.Pass(os.Environ())
	if err != nil {
		return nil, errorf("%w", err)
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	pipe, ready, err := os.Pipe()
	if err != nil {
		return nil, errorf("%w", err)
	}
	passed := append([]*os.File{os.Stdin, os.Stdout, os.Stderr}, files...)
	env = slices.DeleteFunc(env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == envReady || name == envWatchdogPID
	})
	process, err := os.StartProcess(p.Path, p.Args, &os.ProcAttr{
		Dir:   p.Dir,
		Env:   append(env, envReady+"="+strconv.Itoa(len(passed))),
		Files: append(passed, ready),
	})
	_ = ready.Close()
	if err != nil {
		_ = pipe.Close()
		return nil, errorf("%w", err)
	}
	c := &child{
		process: process, pipe: pipe,
		ready: make(chan struct{}), silent: make(chan struct{}), exited: make(chan struct{}),
	}
	go c.listen()
	go c.wait()
	return c, nil
}

// listen reads what the process says, to the end: a byte when it is ready, and the
// end of the pipe when the service manager knows as well.
func (c *child) listen() {
	defer close(c.silent)
	defer c.pipe.Close()
	said := make([]byte, 1)
	n, err := c.pipe.Read(said)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// A read whose deadline has passed does not look into the pipe; this one does, before it waits.
		_ = c.pipe.SetReadDeadline(time.Now().Add(lastLook))
		n, _ = c.pipe.Read(said)
	}
	if n == 0 {
		return
	}
	close(c.ready)
	for {
		if _, err := c.pipe.Read(said); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		_ = c.pipe.SetReadDeadline(time.Time{})
	}
}

// isReady reports whether the process has said that it is ready, and lives. It misses nothing that
// was said before the call. If it was nothing, nobody listens any more.
func (c *child) isReady() bool {
	_ = c.pipe.SetReadDeadline(time.Now())
	select {
	case <-c.ready:
	case <-c.silent:
	}
	select {
	case <-c.exited:
		return false
	default:
	}
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// wait collects the process when it ends, also long after it has taken over.
func (c *child) wait() {
	defer close(c.exited)
	state, err := c.process.Wait()
	if err != nil {
		c.outcome = err.Error()
		return
	}
	c.outcome = state.String()
}

func (c *child) pid() int { return c.process.Pid }

// waitReady returns nil as soon as the process is ready.
func (c *child) waitReady(ctx context.Context, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-c.ready:
	case <-c.exited:
	case <-timer.C:
		return errorf("the new process (%d) is not ready after %v", c.pid(), timeout)
	case <-ctx.Done():
		return fmt.Errorf("%w; the new process was %d", context.Cause(ctx), c.pid())
	}
	select {
	case <-c.exited:
		return errorf("the new process (%d) ended: %s", c.pid(), c.outcome)
	default:
		return nil
	}
}

// end ends the process and returns when it is gone.
func (c *child) end() {
	_ = c.pipe.Close() // A process of its own may have the other end still open.
	grace := time.NewTimer(endGrace)
	defer grace.Stop()
	_ = c.process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-grace.C:
		_ = c.process.Kill()
		<-c.exited
	}
}
