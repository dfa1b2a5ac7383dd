package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// EnvReady has the descriptor of the pipe to the old process.
const EnvReady = "MUXSERVE_UPGRADE_READY"

// envWatchdogPID has the id of the process that the watchdog watches, which is the old
// one's. Without it, the variables of the watchdog apply to any process that has them.
const envWatchdogPID = "WATCHDOG_PID"

// endGrace is the time between SIGTERM and SIGKILL for a process that is given up. It has
// no connections, so the time is short.
const endGrace = time.Second

// lastLook bounds the last read from the pipe of a process that is given up. Data in the
// pipe is there at once; the rest is for an overloaded host.
const lastLook = 50 * time.Millisecond

// Program describes how to start this program again.
type Program struct {
	Path string
	Args []string // Args[0] is the name of the program
	Dir  string   // empty where the directory of the start could not be named

	// unfit is why no process can take over from this one; nil if one can.
	unfit error
}

// Current returns how this process was started. Call it at the start: the system reports
// the current name of the file, which may change.
//
// The path is the name that the program was called by, if that leads to the running file.
// It may be a symbolic link that a deployment points to the next version. The system's
// answer has all links resolved. Where the system has no answer, as in a root without
// /proc, upgrades are refused.
func Current() Program {
	path, err := os.Executable()
	if err != nil {
		return Program{unfit: fmt.Errorf("%w: the system does not tell which file it runs: %w", ErrUnfit, err)}
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // It has been removed.
	}
	if called, ok := calledBy(os.Args[0], path); ok {
		path = called
	}
	starter := os.Getppid()
	return Program{
		Path: path, Args: os.Args, Dir: dir,
		unfit: unfit(os.Getpid(), starter, nameOf(starter), os.Getenv("NOTIFY_SOCKET") != ""),
	}
}

// calledBy resolves a program's name to a path, if that leads to the same file as path.
func calledBy(name, path string) (called string, ok bool) {
	called, err := exec.LookPath(name)
	called, absErr := filepath.Abs(called)
	if err != nil || absErr != nil {
		return "", false
	}
	a, aerr := os.Stat(called)
	b, berr := os.Stat(path)
	return called, aerr == nil && berr == nil && os.SameFile(a, b)
}

// child is a new process.
type child struct {
	process *os.Process
	pipe    *os.File // from the process
	// ready is closed when the process has said that it is ready.
	ready chan struct{}
	// silent is closed at the end of the pipe: after ready the service manager knows, and
	// without ready the process will not be ready.
	silent chan struct{}
	// exited is closed when the process has ended. outcome describes how, and is set before.
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
		return name == EnvReady || name == envWatchdogPID
	})
	dir := p.Dir
	if _, err := os.Stat(dir); err != nil {
		dir = "" // The new process inherits the directory, which has no name any more.
	}
	process, err := os.StartProcess(p.Path, p.Args, &os.ProcAttr{
		Dir:   dir,
		Env:   append(env, EnvReady+"="+strconv.Itoa(len(passed))),
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

// listen reads the pipe to its end. The process writes a byte when it is ready, and
// closes the pipe when the service manager knows too.
func (c *child) listen() {
	defer close(c.silent)
	defer c.pipe.Close()
	said := make([]byte, 1)
	n, err := c.pipe.Read(said)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// A read after its deadline does not read available data, so there is one more read.
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

// isReady reports whether the process lives and has said that it is ready before the
// call. If it has not, the pipe is not read any more.
func (c *child) isReady() bool {
	_ = c.pipe.SetReadDeadline(time.Now())
	select {
	case <-c.ready:
	case <-c.silent:
	}
	return isClosed(c.ready) && !isClosed(c.exited)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// wait waits for the end of the process, also after it has taken over, so that it does
// not stay a zombie.
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

// waitReady waits until the process is ready.
func (c *child) waitReady(ctx context.Context, timeout time.Duration) error {
	select {
	case <-c.ready:
	case <-c.exited:
	case <-time.After(timeout):
		return errorf("the new process (%d) is not ready after %v", c.pid(), timeout)
	case <-ctx.Done():
		return fmt.Errorf("%w; the new process was %d", context.Cause(ctx), c.pid())
	}
	if isClosed(c.exited) {
		return errorf("the new process (%d) ended: %s; its own error, if it had one, is on standard error", c.pid(), c.outcome)
	}
	return nil
}

// end ends the process and waits for its end.
func (c *child) end() {
	_ = c.pipe.Close() // A child of the process may keep the other end open.
	_ = c.process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(endGrace):
		_ = c.process.Kill()
		<-c.exited
	}
}
