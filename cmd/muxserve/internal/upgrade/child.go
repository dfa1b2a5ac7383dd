package upgrade

import (
	"context"
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

// child is a new process.
type child struct {
	process *os.Process
	// ready gets a value when the process says that it is ready.
	ready <-chan struct{}
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
	c := &child{process: process, pipe: pipe, exited: make(chan struct{})}
	c.ready = awaitReady(pipe)
	go c.wait()
	return c, nil
}

// awaitReady returns a channel that gets a value when a byte comes out of the pipe,
// and nothing if none ever does.
func awaitReady(pipe *os.File) <-chan struct{} {
	ready := make(chan struct{}, 1)
	go func() {
		defer pipe.Close()
		if n, _ := pipe.Read(make([]byte, 1)); n == 1 {
			ready <- struct{}{}
		}
	}()
	return ready
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
