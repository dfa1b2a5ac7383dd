package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// patience bounds every wait for something that is meant to happen and of which
// the time does not matter.
const patience = 60 * time.Second

// backend is a muxserve on ports of its own, which it keeps over its restarts. It is used
// by one goroutine.
type backend struct {
	binary  string
	args    []string
	service *process.Port
	admin   *process.Port
	log     *os.File // of all its processes

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
}

// newBackend returns a muxserve with these further flags that does not run yet. Its log is
// in dir.
func newBackend(binary, dir, name string, args ...string) (*backend, error) {
	service, err := process.Reserve()
	if err != nil {
		return nil, err
	}
	admin, err := process.Reserve()
	if err != nil {
		service.Release()
		return nil, err
	}
	// A file and no pipe: processes that the first one starts write to it too, and nobody waits for its end.
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		service.Release()
		admin.Release()
		return nil, fmt.Errorf("restarts: %w", err)
	}
	args = append([]string{"--listen=" + service.String(), "--admin=" + admin.String(), "--log-format=json"}, args...)
	return &backend{binary: binary, args: args, service: service, admin: admin, log: log}, nil
}

// start starts the process and returns when it is ready.
func (b *backend) start(ctx context.Context) error {
	b.cmd = exec.Command(b.binary, b.args...) //nolint:gosec,noctx // It is what the flags name, or was built just now; drain and close end it.
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("restarts: %w", err)
	}
	ended := make(chan struct{})
	b.ended = ended
	go func(cmd *exec.Cmd) {
		defer close(ended)
		_ = cmd.Wait() // What came of it is in ProcessState.
	}(b.cmd)
	return eventually(ctx, "muxserve is ready", func() (bool, error) {
		select {
		case <-ended:
			return false, fmt.Errorf("muxserve ended early: %s\n%s", b.cmd.ProcessState, b.tail())
		default:
			return b.ready(ctx), nil
		}
	})
}

// ready reports whether the admin listener says so.
func (b *backend) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.admin.String()+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := probe.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// probe asks the admin listeners, each time on a new connection.
var probe = &http.Transport{DisableKeepAlives: true}

// drain sends SIGTERM and returns the exit code, -1 if a signal has ended the process.
func (b *backend) drain(ctx context.Context) (int, error) {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("restarts: SIGTERM: %w", err)
	}
	select {
	case <-b.ended:
		return b.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return 0, fmt.Errorf("restarts: muxserve does not end\n%s", b.tail())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// close kills the process, if it still runs, and gives everything back.
func (b *backend) close() {
	if b.ended != nil {
		_ = b.cmd.Process.Kill()
		<-b.ended
	}
	b.service.Release()
	b.admin.Release()
	_ = b.log.Close()
}

// tailLines is how much of a log is shown.
const tailLines = 15

// tail returns the end of the log.
func (b *backend) tail() string {
	all, err := os.ReadFile(b.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(bytes.TrimRight(all, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], nil))
}

var errImpatient = errors.New("it never comes to this")

// eventually asks until ok says yes or fails, because what it asks for shows only
// from outside of the process.
func eventually(ctx context.Context, what string, ok func() (bool, error)) error {
	const interval = 20 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errImpatient)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if yes, err := ok(); err != nil || yes {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("restarts: %w: %s", context.Cause(ctx), what)
		}
	}
}
