// Package process builds muxserve and runs it as a process of its own, so that
// it can be measured from outside, starved and killed.
package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience bounds the wait for a start and for an end; a healthy server needs a
// fraction of it.
const patience = 30 * time.Second

const module = "github.com/muxserve/muxserve"

// Build builds muxserve into dir, never with the race detector, and returns the
// path of the binary. It is called from inside a module that requires muxserve.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("process: finding %s: %w", module, err)
	}
	return build(ctx, strings.TrimSpace(string(root)), "./cmd/muxserve", filepath.Join(dir, "muxserve"))
}

// BuildLike builds the program of another package, which must say where it
// listens and drain as muxserve does. The package is a path as the go command
// takes it in the current directory.
func BuildLike(ctx context.Context, dir, pkg string) (string, error) {
	return build(ctx, ".", pkg, filepath.Join(dir, filepath.Base(pkg)))
}

func build(ctx context.Context, from, pkg, binary string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-race=false", "-buildvcs=false", "-o", binary, pkg)
	cmd.Dir = from
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("process: building %s: %w\n%s", pkg, err, out)
	}
	return binary, nil
}

// Options say how to run muxserve. The zero value of each field but Binary is
// of use.
type Options struct {
	// Binary is what Build or BuildLike returned.
	Binary string
	// Bare leaves out the flags --listen, --admin and --drain-delay, which come
	// before Args otherwise.
	Bare bool
	Args []string
	// NoAdmin leaves the admin listener closed.
	NoAdmin bool
	// MaxFiles is the limit of open files, soft and hard; 0 leaves it alone.
	MaxFiles int
}

// command returns the program and its arguments.
func (o Options) command() []string {
	admin := "127.0.0.1:0"
	if o.NoAdmin {
		admin = "off"
	}
	args := []string{o.Binary}
	if !o.Bare {
		args = append(args, "--listen=127.0.0.1:0", "--admin="+admin, "--drain-delay=0s", "--log-format=text")
	}
	args = append(args, o.Args...)
	if o.MaxFiles > 0 {
		// Go raises the soft limit to the hard one at its start, so both are lowered, by a shell that then becomes muxserve.
		args = append([]string{"/bin/sh", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(o.MaxFiles)}, args...)
	}
	return args
}

// A Process is a muxserve that serves on 127.0.0.1. Its methods are safe for
// concurrent use.
type Process struct {
	Addr  string // host:port of the service
	Admin string // host:port of the admin pages; empty with NoAdmin

	cmd    *exec.Cmd
	stderr output
	ended  chan struct{} // closed when the process has ended; err is set before
	err    error
}

// Start runs muxserve on free ports and returns when it serves. The caller must
// call Stop.
func Start(ctx context.Context, o Options) (*Process, error) {
	args := o.command()
	p := &Process{cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(p.ended)
		p.readAddresses(stdout, o.NoAdmin, ready)
		p.err = p.cmd.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-ready:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("process: muxserve ended early: %w\n%s", p.err, p.Log())
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.ended
		return nil, fmt.Errorf("process: muxserve does not start: %w\n%s", ctx.Err(), p.Log())
	}
}

// readAddresses reads what muxserve says at its start, closes ready when that
// is all, and passes over what comes later.
func (p *Process) readAddresses(stdout io.Reader, noAdmin bool, ready chan<- struct{}) {
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		_, address, _ := strings.Cut(lines.Text(), "://")
		switch {
		case strings.HasPrefix(lines.Text(), "muxserve: HTTP/1.1"):
			p.Addr = address
			if noAdmin {
				close(ready)
			}
		case strings.HasPrefix(lines.Text(), "muxserve: admin pages"):
			p.Admin = address
			close(ready)
		}
	}
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns what the process has logged so far.
func (p *Process) Log() string { return p.stderr.String() }

// Alive reports whether the process runs.
func (p *Process) Alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// exitCut is muxserve's exit code when its drain had to cut connections, which
// clients that are never coming back may well make it do.
const exitCut = 3

// Stop makes the process drain, and cut what is left at once. It returns an error
// where the process had ended before, or ends otherwise than by its drain. Call it once.
func (p *Process) Stop() error {
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGTERM} {
		if !p.Alive() {
			return fmt.Errorf("process: muxserve had ended: %w\n%s", p.err, p.Log())
		}
		_ = p.cmd.Process.Signal(s)
		if p.waits(2 * time.Second) {
			break
		}
	}
	if !p.waits(patience) {
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("process: muxserve had to be killed\n%s", p.Log())
	}
	var exit *exec.ExitError
	if !errors.As(p.err, &exit) || exit.ExitCode() == exitCut || exit.ExitCode() == exitForced {
		return nil
	}
	return fmt.Errorf("process: muxserve: %w\n%s", p.err, p.Log())
}

// exitForced is muxserve's exit code after a second SIGTERM.
const exitForced = 128 + int(syscall.SIGTERM)

// Drain makes the process drain and returns its exit code when it has ended, -1 if a signal
// has ended it. Call either Drain or Stop.
func (p *Process) Drain(ctx context.Context) (int, error) {
	if !p.Alive() {
		return 0, fmt.Errorf("process: muxserve had ended: %w\n%s", p.err, p.Log())
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("process: muxserve does not end: %w\n%s", context.Cause(ctx), p.Log())
	}
}

// waits reports whether the process ends within d.
func (p *Process) waits(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}
