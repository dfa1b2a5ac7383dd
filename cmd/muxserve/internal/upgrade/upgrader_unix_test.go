//go:build unix

package upgrade

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// patience bounds waits, which take a fraction of it.
const patience = 30 * time.Second

// fakeSockets pass no sockets. A variable tells the new process its role.
type fakeSockets struct {
	role  string
	err   error
	kept  atomic.Int32
	files []*os.File
}

func (s *fakeSockets) Pass(environ []string) ([]*os.File, []string, error) {
	return s.files, append(environ, roleEnv+"="+s.role, "GORACE=atexit_sleep_ms=0"), s.err
}

func (s *fakeSockets) KeepFiles() { s.kept.Add(1) }

func newUpgrader(t *testing.T, s *fakeSockets, timeout time.Duration) *Upgrader {
	t.Helper()
	program := Current()
	program.Args = program.Args[:1]
	return New(program, s, timeout)
}

// terminate ends a process that has taken over, and waits for its end.
func terminate(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(time.Millisecond); syscall.Kill(pid, 0) == nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", pid)
		}
	}
}

func TestUpgrade(t *testing.T) {
	s := &fakeSockets{role: roleCrash}
	u := newUpgrader(t, s, patience)
	for range 2 { // One that failed does not stand in the way of the next.
		_, err := u.Upgrade(t.Context())
		if err == nil || !strings.Contains(err.Error(), "exit status 7") {
			t.Fatalf("a process that crashes: %v", err)
		}
	}
	if n := s.kept.Load(); n != 0 {
		t.Fatalf("the sockets were handed over %d times", n)
	}
	s.role = roleReady
	pid, err := u.Upgrade(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if pid == os.Getpid() || s.kept.Load() != 1 {
		t.Errorf("process %d has taken over, %d times", pid, s.kept.Load())
	}
	if _, err := u.Upgrade(t.Context()); !errors.Is(err, ErrUpgraded) {
		t.Errorf("after an upgrade: %v", err)
	}
	for range 2 {
		if !u.Stop() {
			t.Error("Stop knows nothing of the upgrade")
		}
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("Stop has ended the new process: %v", err)
	}
	terminate(t, pid)
}

// TestUpgradeReadyEnds: the new process is ready and ends, before or after the old one
// has read that.
func TestUpgradeReadyEnds(t *testing.T) {
	u := newUpgrader(t, &fakeSockets{role: roleReadyEnds}, patience)
	if _, err := u.Upgrade(t.Context()); err != nil && !strings.Contains(err.Error(), "exit status 0") {
		t.Error(err)
	}
	u.Stop()
}

func TestUpgradeTimeout(t *testing.T) {
	s := &fakeSockets{role: roleHang}
	u := newUpgrader(t, s, 100*time.Millisecond)
	_, err := u.Upgrade(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not ready after 100ms") {
		t.Fatalf("a process that hangs: %v", err)
	}
	_, number, _ := strings.Cut(err.Error(), "(")
	number, _, _ = strings.Cut(number, ")")
	pid, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

func TestStopEndsUpgrade(t *testing.T) {
	s := &fakeSockets{role: roleHang}
	u := newUpgrader(t, s, patience)
	ended := make(chan error, 1)
	go func() {
		_, err := u.Upgrade(t.Context())
		ended <- err
	}()
	isRunning := func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.state == running
	}
	for tick := time.NewTicker(time.Millisecond); !isRunning(); <-tick.C {
	}
	if _, err := u.Upgrade(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("a second upgrade: %v", err)
	}
	if u.Stop() {
		t.Error("the sockets were handed over")
	}
	select {
	case err := <-ended:
		if !errors.Is(err, errStopped) {
			t.Errorf("the upgrade ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the upgrade goes on after Stop")
	}
	if _, err := u.Upgrade(t.Context()); !errors.Is(err, errStopped) {
		t.Errorf("after Stop: %v", err)
	}
	if u.Stop() || s.kept.Load() != 0 {
		t.Error("the sockets were handed over")
	}
}

func TestUpgradeCannotStart(t *testing.T) {
	cause := errors.New("no socket")
	u := newUpgrader(t, &fakeSockets{err: cause}, 0)
	if _, err := u.Upgrade(t.Context()); !errors.Is(err, cause) {
		t.Errorf("%v, want what the sockets said", err)
	}
	u.sockets = new(fakeSockets)
	u.program.Path = filepath.Join(t.TempDir(), "missing")
	if _, err := u.Upgrade(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want that there is no such file", err)
	}
	if u.Stop() {
		t.Error("the sockets were handed over")
	}
}

// TestReadyTellsServiceManager: the new process sends its id, because the service manager
// follows the old process until then.
func TestReadyTellsServiceManager(t *testing.T) {
	dir, err := os.MkdirTemp("", "mux") //nolint:usetesting // The path of a socket has to be short.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	hear := func() string {
		t.Helper()
		text := make([]byte, 1<<10)
		manager.SetReadDeadline(time.Now().Add(patience))
		n, err := manager.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "n"))
	pid, err := newUpgrader(t, &fakeSockets{role: roleReady}, patience).Upgrade(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer terminate(t, pid)
	if diff := cmp.Diff("MAINPID="+strconv.Itoa(pid)+"\nREADY=1", hear()); diff != "" {
		t.Errorf("the new process said (-want +got):\n%s", diff)
	}
	if err := errors.Join((*Parent)(nil).Ready(), (*Parent)(nil).Tell()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("READY=1", hear()); diff != "" {
		t.Errorf("a process without a parent said (-want +got):\n%s", diff)
	}
}

func TestReadyWithoutParent(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	if err := (&Parent{pipe: writer}).Ready(); err != nil {
		t.Errorf("the parent has ended before: %v", err)
	}
}

func TestFromParent(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"": "", "x": "not a passed descriptor", "2": "not a passed descriptor", strconv.Itoa(fd): "not a pipe"} {
		parent, err := FromParent(func(string) string { return value })
		if parent != nil {
			t.Errorf("%q: got a parent", value)
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", value, err, want)
		}
	}
}

// TestCalledBy: the path follows a link that a deployment changes, and no other file with
// that name.
func TestCalledBy(t *testing.T) {
	dir := t.TempDir()
	program, link, other := filepath.Join(dir, "v1"), filepath.Join(dir, "current"), filepath.Join(dir, "other")
	for _, path := range []string{program, other} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for name, want := range map[string]bool{link: true, "current": true, program: true, other: false, "missing": false} {
		called, ok := calledBy(name, program)
		if ok != want || ok && called != filepath.Join(dir, filepath.Base(name)) {
			t.Errorf("%s: %s, %t", name, called, ok)
		}
	}
}
