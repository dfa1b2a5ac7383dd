package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What muxserve logs of an upgrade.
const (
	logUpgraded = "upgraded:"
	logFailed   = "upgrade failed"
)

// lineage is a muxserve that is upgraded in place: a sequence of processes on the
// same sockets. It is used by one goroutine.
type lineage struct {
	*backend

	current *os.Process
	ended   chan struct{} // closed when current has ended; state is set before
	state   *os.ProcessState
	read    int64 // how much of the log has been read
}

// adopt makes this process the parent of those whose parent has ended, so that
// it can wait for muxserves that it has not started itself.
func adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("restarts: prctl: %w", err)
	}
	return nil
}

// startLineage starts the first process.
func startLineage(ctx context.Context, o *options, name string) (*lineage, error) {
	if err := adopt(); err != nil {
		return nil, err
	}
	b, err := newBackend(o.binary, o.dir, name, "--drain-delay=0s", "--drain-spread="+o.spread.String(), "--drain-timeout="+drainTimeout.String())
	if err != nil {
		return nil, err
	}
	l := &lineage{backend: b}
	if err := b.start(ctx); err != nil {
		b.close()
		return nil, err
	}
	l.current, l.ended = b.cmd.Process, make(chan struct{})
	go func(ended chan<- struct{}) {
		defer close(ended)
		<-b.ended
		l.state = b.cmd.ProcessState
	}(l.ended)
	return l, nil
}

// request asks the current process for an upgrade.
func (l *lineage) request() error {
	info, err := l.log.Stat()
	if err != nil {
		return fmt.Errorf("restarts: %w", err)
	}
	l.read = info.Size()
	if err := l.current.Signal(syscall.SIGUSR2); err != nil {
		return fmt.Errorf("restarts: SIGUSR2: %w", err)
	}
	return nil
}

// outcome returns what the log says of the last request: the number of the new
// process, or that the upgrade failed; neither if it says nothing yet.
func (l *lineage) outcome() (pid int, failed bool, err error) {
	log, err := os.ReadFile(l.log.Name())
	if err != nil {
		return 0, false, fmt.Errorf("restarts: %w", err)
	}
	pid, failed = outcomeIn(log[l.read:])
	return pid, failed, nil
}

// logEntry is how each entry of the log begins.
var logEntry = []byte(`{"time":`)

// outcomeIn is outcome for a part of the log. An entry need not stand at the beginning of its
// line: the new process prints at its start, in pieces, to the same file.
func outcomeIn(log []byte) (pid int, failed bool) {
	for line := range bytes.Lines(log) {
		var entry struct {
			Msg string `json:"msg"`
			PID int    `json:"new_pid"`
		}
		at := bytes.Index(line, logEntry)
		if at < 0 || json.Unmarshal(line[at:], &entry) != nil {
			continue // What muxserve prints at its start is not JSON.
		}
		switch {
		case strings.HasPrefix(entry.Msg, logUpgraded):
			return entry.PID, false
		case strings.HasPrefix(entry.Msg, logFailed):
			return 0, true
		}
	}
	return 0, false
}

// waitUpgraded waits until the new process has taken over, and returns its number.
func (l *lineage) waitUpgraded(ctx context.Context) (pid int, err error) {
	err = eventually(ctx, "the new process has taken over", func() (bool, error) {
		var failed bool
		if pid, failed, err = l.outcome(); err == nil && failed {
			err = fmt.Errorf("restarts: the upgrade failed\n%s", l.tail())
		}
		return pid != 0, err
	})
	return pid, err
}

// waitEnded waits until the current process has ended, and makes pid the current one.
func (l *lineage) waitEnded(ctx context.Context, pid int) (*os.ProcessState, error) {
	err := eventually(ctx, "the old process ends", func() (bool, error) {
		select {
		case <-l.ended:
			return true, nil
		default:
			return false, nil
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, l.tail())
	}
	state := l.state
	// It is ours now, since its parent has ended.
	if l.current, err = os.FindProcess(pid); err != nil {
		return nil, fmt.Errorf("restarts: %w", err)
	}
	ended := make(chan struct{})
	l.ended = ended
	go func(p *os.Process) {
		defer close(ended)
		if s, err := p.Wait(); err == nil {
			l.state = s
		}
	}(l.current)
	return state, nil
}

// child returns the number of a process that the current one has started and that
// has not ended, 0 if there is none. Go starts one for a moment to see what the system can do.
func (l *lineage) child() (int, error) {
	// Each thread has a list of those that it has started.
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", l.current.Pid))
	if err != nil {
		return 0, fmt.Errorf("restarts: %w", err)
	}
	for _, file := range files {
		children, err := os.ReadFile(file)
		if err != nil {
			continue // The thread has ended.
		}
		for child := range strings.FieldsSeq(string(children)) {
			if pid, err := strconv.Atoi(child); err != nil || lives(pid) {
				return pid, err
			}
		}
	}
	return 0, nil
}

// lives reports whether a process exists and has not ended.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the name, which is in parentheses and may hold some.
	_, state, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return ok && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// waitChild waits for a process that the current one starts. It asks more often
// than eventually does, because what matters is the first moments.
func (l *lineage) waitChild(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if pid, err := l.child(); pid != 0 || err != nil {
			return pid, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("restarts: no new process: %w\n%s", ctx.Err(), l.tail())
		}
	}
}

// close kills the current process, and the new one if an upgrade is under way.
func (l *lineage) close() {
	child, _ := l.child()
	_ = l.current.Kill()
	<-l.ended
	if child != 0 {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	l.backend.close()
}
