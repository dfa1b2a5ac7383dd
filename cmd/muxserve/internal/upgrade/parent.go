package upgrade

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/muxserve/muxserve/lifecycle"
)

// Parent is the process that has started this one to be replaced by it. It is nil
// in a process that was started otherwise.
type Parent struct {
	pipe *os.File
}

// FromParent returns the process that has started this one for an upgrade, nil if
// none has. It is called once, before anything else could have opened a file under the
// pipe's number.
func FromParent(getenv func(string) string) (*Parent, error) {
	text := getenv(envReady)
	if text == "" {
		return nil, nil //nolint:nilnil // It is documented: there is no parent.
	}
	const firstPassed = 3
	fd, err := strconv.Atoi(text)
	if err != nil || fd < firstPassed {
		return nil, errorf("%s is %q, not a passed descriptor", envReady, text)
	}
	pipe := os.NewFile(uintptr(fd), envReady)
	info, err := pipe.Stat()
	if err != nil {
		return nil, errorf("%s: %w", envReady, err)
	}
	if info.Mode().Type() != fs.ModeNamedPipe {
		return nil, errorf("%s: descriptor %d is not a pipe", envReady, fd)
	}
	closeOnExec(fd)
	return &Parent{pipe: pipe}, nil
}

// Ready says to the parent that this process serves; the parent stops serving then. That
// the parent has ended before is no error. On a nil Parent it does nothing. It is
// called once, and followed by [Parent.Tell].
//
// The parent comes before the service manager, which may be busy: until it knows, it takes
// a process that serves already for one that it may end.
func (p *Parent) Ready() error {
	if p == nil {
		return nil
	}
	if _, err := p.pipe.Write([]byte{1}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return errors.Join(errorf("tell the old process: %w", err), p.pipe.Close())
	}
	return nil
}

// Tell says to the service manager that this process serves, and to the parent that the
// service manager knows. On a nil Parent it tells the service manager alone. It is called once, after [Parent.Ready].
//
// The service manager is told the number of this process with the same datagram, so
// that it does not take the end of the old one for the end of the service; the old one
// waits for that. It must accept this from a process other than the one it has started:
// NotifyAccess=all of systemd.exec(5).
func (p *Parent) Tell() error {
	if p == nil {
		_, err := lifecycle.Ready()
		return err
	}
	_, err := lifecycle.Notify("MAINPID="+strconv.Itoa(os.Getpid()), "READY=1")
	return errors.Join(err, p.pipe.Close())
}

// Abandon says to the parent that this process is going to end, and never will be ready. It
// is called instead of Ready. On a nil Parent it does nothing.
func (p *Parent) Abandon() error {
	if p == nil {
		return nil
	}
	return p.pipe.Close()
}
