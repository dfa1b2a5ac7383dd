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

// Ready says that this process serves, to the service manager and to the parent,
// which stops serving then. That the parent has ended before is no error. On a nil
// Parent it tells the service manager alone. It is called once.
//
// The service manager is told the number of this process with the same datagram, so
// that it does not take the end of the old one for the end of the service. It must accept
// that from a process other than the one it has started: NotifyAccess=all of systemd.exec(5).
func (p *Parent) Ready() error {
	if p == nil {
		_, err := lifecycle.Ready()
		return err
	}
	_, err := lifecycle.Notify("MAINPID="+strconv.Itoa(os.Getpid()), "READY=1")
	if _, werr := p.pipe.Write([]byte{1}); werr != nil && !errors.Is(werr, syscall.EPIPE) {
		err = errors.Join(err, errorf("tell the old process: %w", werr))
	}
	return errors.Join(err, p.pipe.Close())
}
