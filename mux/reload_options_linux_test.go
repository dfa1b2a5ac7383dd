package mux_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// unixState is what a listener's keys set on a Unix socket.
type unixState struct {
	Mode     os.FileMode
	UID, GID uint32
	Queue    int
}

// unixStateOf returns the state of a Unix socket that nothing accepts from. It takes the
// place of its clients in the queue, for good.
func unixStateOf(t *testing.T, path string, longest int) (s unixState) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	s.Mode, s.UID, s.GID = info.Mode().Perm(), st.Uid, st.Gid
	for ; s.Queue < longest; s.Queue++ {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	return s
}

// listening returns a server that has opened a configuration and serves another listener
// alone, so that the queues of the configured ones stay full.
func listening(t *testing.T, c mux.Config) *mux.Server {
	t.Helper()
	s := mux.New(mux.Configure(func(own *mux.Config) { *own = c }), mux.WithLogger(discard))
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	l := listen(t)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, mux.ErrServerClosed) {
			t.Error(err)
		}
	})
	eventually(t, "it serves", func() bool { return s.Phase() == mux.PhaseServing })
	return s
}

// withKeys changes the first listener's keys. Where the test may change owners, it does.
func withKeys(c mux.Config) mux.Config {
	c.Listeners = append([]listeners.Config(nil), c.Listeners...)
	l := &c.Listeners[0]
	l.UnixMode, l.Backlog = "0606", 5
	if os.Getuid() == 0 {
		l.UnixOwner = "4711:4712"
	}
	return c
}

// TestReloadFailsOptions has a reload fail that changes the options of a socket that stays.
func TestReloadFailsOptions(t *testing.T) {
	taken := listen(t)
	defer taken.Close() // Unreferenced, it would be closed earlier.
	for _, tt := range []struct {
		want string
		edit func(c *mux.Config, other string) // other is the file of the second listener
	}{
		{"address already in use", func(c *mux.Config, _ string) {
			c.Listeners = append(c.Listeners, at(taken.Addr().String()).Listeners...)
		}},
		{"no such file", func(c *mux.Config, _ string) {
			c.Listeners[1].TLS = listeners.TLSConfig{Cert: "/missing/cert", Key: "/missing/key"}
		}},
		{"the socket's file is gone", func(c *mux.Config, other string) {
			c.Listeners[1].UnixMode = "0600"
			if err := os.Remove(other); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(tt.want, func(t *testing.T) {
			dir := t.TempDir()
			path, other := filepath.Join(dir, "x"), filepath.Join(dir, "y")
			c := at("unix:"+path, "unix:"+other)
			c.Listeners[0].UnixMode, c.Listeners[0].Backlog = "0600", 2
			s := listening(t, c)
			before := unixStateOf(t, path, 0)
			next := withKeys(c)
			tt.edit(&next, other)
			if _, err := s.Reload(next, "test"); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			before.Queue = 3 // The kernel lets in one more than the backlog.
			if diff := cmp.Diff(before, unixStateOf(t, path, 10)); diff != "" {
				t.Errorf("after a reload that failed (-before +after):\n%s", diff)
			}
		})
	}
}

// TestRollbackOptions sets keys that were not set, and goes back.
func TestRollbackOptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	c := at("unix:" + path)
	s := listening(t, c)
	before := unixStateOf(t, path, 0)
	if _, err := s.Reload(withKeys(c), "test"); err != nil {
		t.Fatal(err)
	}
	want := unixState{0o606, before.UID, before.GID, 6}
	if os.Getuid() == 0 {
		want.UID, want.GID = 4711, 4712
	}
	if diff := cmp.Diff(want, unixStateOf(t, path, 10)); diff != "" {
		t.Errorf("after a reload (-want +got):\n%s", diff)
	}
	if _, err := s.Rollback(1, "test"); err != nil {
		t.Fatal(err)
	}
	before.Queue = 10
	if diff := cmp.Diff(before, unixStateOf(t, path, before.Queue)); diff != "" {
		t.Errorf("after the rollback (-before +after):\n%s", diff)
	}
}
