// Package upgrade replaces a running process by a new one that inherits its listening
// sockets, so that no connection is refused in between.
//
// The old process has an [Upgrader], and the new one a [Parent]. The old process starts
// the new one with the sockets, a pipe and its own arguments and environment. The new one
// opens everything, serves, and says so through the pipe. Until then both have the
// sockets, and the old one serves as before. Then the old one stops accepting and drains.
// If the new process ends or is silent for too long, nothing changes.
//
// github.com/cloudflare/tableflip is not used, because:
//   - it hides the new process's id, which the service manager needs (see [Parent.Tell]);
//   - it refuses an upgrade until the process before the last has ended;
//   - it starts os.Args[0] as given, which may be another program by now;
//   - it allows one Upgrader in a process, so tests cannot run side by side;
//   - it has no receiving half for a service manager's sockets (LISTEN_FDS).
package upgrade

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/muxserve/muxserve/lifecycle"
)

// Parent is the process that has started this one in order to be replaced by it. It is
// nil in a process that was started otherwise.
type Parent struct {
	pipe *os.File
}

// FromParent returns the process that has started this one for an upgrade; nil if none
// has. Call it once, before another file could get the pipe's descriptor.
func FromParent(getenv func(string) string) (*Parent, error) {
	text := getenv(EnvReady)
	if text == "" {
		return nil, nil //nolint:nilnil // It is documented: there is no parent.
	}
	const firstPassed = 3
	fd, err := strconv.Atoi(text)
	if err != nil || fd < firstPassed {
		return nil, errorf("%s is %q, not a passed descriptor", EnvReady, text)
	}
	pipe := os.NewFile(uintptr(fd), EnvReady)
	info, err := pipe.Stat()
	if err != nil {
		return nil, errorf("%s: %w", EnvReady, err)
	}
	if info.Mode().Type() != fs.ModeNamedPipe {
		return nil, errorf("%s: descriptor %d is not a pipe", EnvReady, fd)
	}
	closeOnExec(fd)
	return &Parent{pipe: pipe}, nil
}

// Ready tells the parent that this process serves. The parent stops serving then. It is
// no error if the parent has ended. On a nil Parent Ready does nothing. Call it once, and
// [Parent.Tell] after it.
//
// The parent comes before the service manager, which may be busy: a parent that does not
// know may end this process, which serves already.
func (p *Parent) Ready() error {
	if p == nil {
		return nil
	}
	if _, err := p.pipe.Write([]byte{1}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return errors.Join(errorf("tell the old process: %w", err), p.pipe.Close())
	}
	return nil
}

// Tell tells the service manager that this process serves, and then the parent that the
// service manager knows. On a nil Parent it only tells the service manager. Call it once,
// after [Parent.Ready].
//
// The same datagram has the id of this process, so that the service manager does not take
// the end of the old process for the end of the service. The old process waits for that.
// The service manager must accept messages from a process that it has not started:
// NotifyAccess=all of systemd.exec(5).
func (p *Parent) Tell() error {
	if p == nil {
		_, err := lifecycle.Ready()
		return err
	}
	_, err := lifecycle.Notify("MAINPID="+strconv.Itoa(os.Getpid()), "READY=1")
	return errors.Join(err, p.pipe.Close())
}

// Abandon tells the parent that this process ends and will not be ready. Call it instead
// of Ready. On a nil Parent it does nothing.
func (p *Parent) Abandon() error {
	if p == nil {
		return nil
	}
	return p.pipe.Close()
}
