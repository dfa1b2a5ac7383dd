package listeners

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// socketState is what keys set on a Unix socket.
type socketState struct {
	File  fileState
	Queue int
}

// stateOf returns the state of a Unix socket that accepts nothing.
func stateOf(t *testing.T, l net.Listener) (s socketState) {
	t.Helper()
	info, err := os.Lstat(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	s.File = fileState{Mode: info.Mode().Perm(), UID: int(st.Uid), GID: int(st.Gid)}
	s.Queue = queueOf(t, l)
	return s
}

// longQueue is what queueOf returns for every queue of this length and above.
const longQueue = 20

// queueOf returns how many clients the kernel lets into the queue of a Unix socket. Others
// are refused at once.
func queueOf(t *testing.T, l net.Listener) (n int) {
	t.Helper()
	for ; n < longQueue; n++ {
		conn, err := net.Dial("unix", l.Addr().String())
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for range n {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	return n
}

// withFile returns a configuration of a Unix socket whose keys are all set. Where the test
// may change owners, the nth has its own.
func withFile(address, mode string, n int) Config {
	c := withAddress(Config{}, address)
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 4000+n, 5000+n
	}
	c.UnixMode, c.UnixOwner, c.Backlog = mode, fmt.Sprintf("%d:%d", uid, gid), n
	return c
}

// newFile is what a new socket's file has by the umask, as every file.
func newFile(t *testing.T) fileState {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o777)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fileState{Mode: info.Mode().Perm(), UID: os.Geteuid(), GID: os.Getegid()}
}

// listenFuncs are the ways to open a Unix socket: the listener of another package has no
// memory.
func listenFuncs() map[string]listenFunc {
	return map[string]listenFunc{
		"Listen":  Listen,
		"Sockets": new(Sockets).Listen,
		"another package's": func(ctx context.Context, address string) (net.Listener, error) {
			l, err := Listen(ctx, address)
			if err != nil {
				return nil, err
			}
			return struct{ innerSocket }{l.(innerSocket)}, nil
		},
	}
}

type listenFunc = func(context.Context, string) (net.Listener, error)

// TestReopenUndo has a change fail after the options of a socket that stays have changed.
func TestReopenUndo(t *testing.T) {
	for name, listen := range listenFuncs() {
		for _, was := range []Config{{}, withFile("", "0640", 3)} {
			t.Run(fmt.Sprintf("%s, %q", name, was.UnixMode), func(t *testing.T) {
				was := withAddress(was, "unix:"+filepath.Join(t.TempDir(), "x"))
				first := Unwrap(openAll(t, was, listen)[0])
				before := stateOf(t, first)
				for _, next := range []Config{withFile(was.Address, "0666", 1), withAddress(Config{}, was.Address)} {
					o, err := next.Reopen(t.Context(), listen, was, first)
					if err != nil {
						t.Fatal(err)
					}
					if err := o.Undo(); err != nil {
						t.Error(err)
					}
					if diff := cmp.Diff(before, stateOf(t, first)); diff != "" {
						t.Errorf("after a change to mode %q (-before +after):\n%s", next.UnixMode, diff)
					}
				}
				// The way back to no keys is still known.
				set := withFile(was.Address, "0606", 2)
				reopen(t, set, was, listen, first)
				reopen(t, withAddress(Config{}, was.Address), set, listen, first)
				if diff := cmp.Diff(socketState{newFile(t), longQueue}, stateOf(t, first)); diff != "" {
					t.Errorf("without keys (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestReopenUnset takes keys out, all of them and one after the other.
func TestReopenUnset(t *testing.T) {
	for name, listen := range listenFuncs() {
		for _, was := range []Config{{}, withFile("", "0600", 1)} {
			t.Run(fmt.Sprintf("%s, %q", name, was.UnixMode), func(t *testing.T) {
				was := withAddress(was, "unix:"+filepath.Join(t.TempDir(), "x"))
				first := Unwrap(openAll(t, was, listen)[0])
				bare := socketState{newFile(t), longQueue}
				set := withFile(was.Address, "0606", 2)
				full := socketState{fileState{Mode: 0o606, UID: os.Getuid(), GID: os.Getgid()}, 3}
				if os.Getuid() == 0 {
					full.File.UID, full.File.GID = 4002, 5002
				}
				step := func(c Config, want socketState) {
					t.Helper()
					reopen(t, c, was, listen, first)
					was = c
					if diff := cmp.Diff(want, stateOf(t, first)); diff != "" {
						t.Errorf("%q %q %d (-want +got):\n%s", c.UnixMode, c.UnixOwner, c.Backlog, diff)
					}
				}
				step(set, full)
				step(withAddress(Config{}, was.Address), bare)
				step(set, full)
				set.Backlog, full.Queue = 0, longQueue
				step(set, full)
				set.UnixOwner, full.File.UID = fmt.Sprintf(":%d", full.File.GID), bare.File.UID
				step(set, full)
				set.UnixMode, full.File.Mode = "", bare.File.Mode
				step(set, full)
				set.UnixOwner = ""
				step(set, bare)
			})
		}
	}
}

// TestReopenInherited: a socket that was passed to the process has what the manager gave it
// until a key is set, and again once none is. The process after it knows that, too.
func TestReopenInherited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o622); err != nil { // No umask leaves that.
		t.Fatal(err)
	}
	raw, err := inner.SyscallConn()
	if err == nil {
		err = setBacklog(raw, 4)
	}
	if err != nil {
		t.Fatal(err)
	}
	bare, set := withAddress(Config{}, "unix:"+path), withFile("unix:"+path, "0606", 2)
	var s *Sockets
	first := func() net.Listener { return s.open[0] }
	check := func(mode os.FileMode, queue int) {
		t.Helper()
		if got := stateOf(t, first()); got.File.Mode != mode || got.Queue != queue {
			t.Errorf("%+v, want mode %v and a queue of %d", got, mode, queue)
		}
	}
	s = &Sockets{inherited: []*inheritedSocket{{inner, passedSocket{Address: "fd:x", Manager: "fd:x", activated: true}}}}
	openAll(t, bare, s.Listen)
	check(0o622, 5)
	o, err := set.Reopen(t.Context(), s.Listen, bare, first())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Undo(); err != nil {
		t.Error(err)
	}
	check(0o622, 5)
	reopen(t, set, bare, s.Listen, first())
	check(0o606, 3)

	s = passOn(t, s)
	openAll(t, set, s.Listen)
	check(0o606, 3)
	reopen(t, bare, set, s.Listen, first())
	check(0o622, longQueue) // Nothing says how long the manager's queue was.
	reopen(t, set, bare, s.Listen, first())

	s = passOn(t, s)
	openAll(t, bare, s.Listen)
	check(0o622, longQueue)

	reopen(t, set, bare, s.Listen, first())
	_ = first().Close() // A reload leaves it out, and another takes it again.
	openAll(t, bare, s.Listen)
	check(0o622, longQueue)
}

// isShared reports whether SO_REUSEPORT is on.
func isShared(t *testing.T, l net.Listener) bool {
	t.Helper()
	raw, err := layer{l}.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return reusesPort(raw)
}

// TestReopenReusePort has the number of sockets grow and shrink, in changes that fail and
// in others.
func TestReopenReusePort(t *testing.T) {
	was := sharing("127.0.0.1:0", 0)
	first := Unwrap(openAll(t, was, nil)[0])
	undo := func(c, was Config, keep ...net.Listener) {
		t.Helper()
		o, err := c.Reopen(t.Context(), nil, was, keep...)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Undo(); err != nil {
			t.Error(err)
		}
		for i, l := range o.Listeners[min(len(keep), len(o.Listeners)):] {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("new socket %d: %v, want net.ErrClosed", i, err)
			}
		}
	}
	grown := sharing("127.0.0.1:0", 3)
	grown.TCPKeepalive = time.Minute
	undo(grown, was, first)
	if isShared(t, first) {
		t.Error("the port is shared after a change that failed")
	}
	if got := acceptedOptions(t, first); got.Idle != 15 {
		t.Errorf("options after a change that failed are %+v", got)
	}
	var keep []net.Listener
	for _, l := range reopen(t, grown, was, nil, first) {
		keep = append(keep, Unwrap(l))
	}
	undo(was, grown, keep...)
	for i, l := range keep {
		if !isShared(t, l) {
			t.Errorf("socket %d of %d does not share its port after a change that failed", i, len(keep))
		}
	}
	for _, l := range keep[1:] {
		_ = l.Close()
	}
	reopen(t, was, grown, nil, first)
	if isShared(t, first) {
		t.Error("the port is shared by one socket")
	}
	if got := acceptedOptions(t, first); got.Idle != 15 {
		t.Errorf("options are %+v", got)
	}
	checkSpread(t, reopen(t, grown, was, nil, first))

	// The service manager had it on.
	inherited, err := Listen(withOption(t.Context(), sharedPort), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Sockets{inherited: []*inheritedSocket{{inherited, passedSocket{Address: "fd:x"}}}}
	was = sharing(inherited.Addr().String(), 0)
	grown.Address = was.Address
	kept := Unwrap(openAll(t, was, s.Listen)[0])
	for _, l := range reopen(t, grown, was, s.Listen, kept)[1:] {
		_ = l.Close()
	}
	reopen(t, was, grown, s.Listen, kept)
	if !isShared(t, kept) {
		t.Error("the manager's SO_REUSEPORT is off")
	}
}

// TestReopenFails: a failure of Reopen itself leaves kept sockets as they were.
func TestReopenFails(t *testing.T) {
	was := sharing("127.0.0.1:0", 0)
	first := Unwrap(openAll(t, was, nil)[0])
	for name, end := range map[string]func() error{
		"error": func() error { return errors.New("no more") },
		"panic": func() error { panic("no more") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				_ = recover()
				if isShared(t, first) {
					t.Error("the port is shared")
				}
			}()
			_, err := sharing("127.0.0.1:0", 2).Reopen(t.Context(), func(context.Context, string) (net.Listener, error) { return nil, end() }, was, first)
			checkError(t, err, []string{"no more"})
		})
	}
}
