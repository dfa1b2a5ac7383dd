//go:build unix

package listeners

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestSuccessorsFile closes a Unix socket after another one has taken its path.
func TestSuccessorsFile(t *testing.T) {
	old := map[string]func(t *testing.T, path string) net.Listener{
		"Listen": func(t *testing.T, path string) net.Listener {
			return openAll(t, withAddress(Config{}, "unix:"+path), nil)[0]
		},
		"Sockets": func(t *testing.T, path string) net.Listener {
			return openAll(t, withAddress(Config{}, "unix:"+path), new(Sockets).Listen)[0]
		},
	}
	for name, listen := range old {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			first := listen(t, path)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			second := listen(t, path)
			if err := first.Close(); err != nil {
				t.Error(err)
			}
			dial(t, second.Addr())
			if err := second.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("the own file stays: %v", err)
			}
		})
	}
}

// TestPassedFile has the process before say which file is the socket's, and takes the path
// away before the process begins.
func TestPassedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	inner, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	passed := passedSocket{Address: "unix:" + path, Unlink: true, File: fileOf(path).id}
	os.Remove(path)
	successor := openAll(t, withAddress(Config{}, "unix:"+path), nil)[0]
	s := &Sockets{inherited: []*inheritedSocket{{inner, passed}}}
	if _, err := s.Listen(t.Context(), "unix:"+path); err != nil {
		t.Fatal(err)
	}
	s.OwnFiles()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	dial(t, successor.Addr())
}

// TestReleasedFile: the file of a Unix socket goes with Release, and not when the socket has
// no more clients in its queue. A process that is started in between serves the path by a
// socket of its own.
func TestReleasedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	var s Sockets
	inner, err := s.Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	dial(t, inner.Addr())
	l := New(inner, nil)
	l.Release()
	next := passOn(t, &s)
	successor, err := next.Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := l.Accept(); err != nil {
		t.Errorf("what the queue held: %v", err)
	} else {
		_ = conn.Close()
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the released listener goes on")
	}
	dial(t, successor.Addr())
	if conn, err := successor.Accept(); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestFileOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	c := withAddress(Config{}, "unix:"+path)
	c.UnixMode = "0662" // The umask of no system leaves the last bit.
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 4711, 4712
	}
	c.UnixOwner = fmt.Sprintf("%d:%d", uid, gid)
	check := func(mode os.FileMode) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != mode || int(st.Uid) != uid || int(st.Gid) != gid {
			t.Errorf("%v of %d:%d, want %v of %s", info.Mode().Perm(), st.Uid, st.Gid, mode, c.UnixOwner)
		}
	}
	open := openAll(t, c, new(Sockets).Listen)
	check(0o662)
	was := c
	c.UnixMode = "600"
	reopen(t, c, was, nil, Unwrap(open[0]))
	check(0o600)

	os.Remove(path)
	if _, err := c.Reopen(t.Context(), nil, c, Unwrap(open[0])); err == nil {
		t.Error("the owner of a file that is gone was set")
	}
}

func TestFileOwnerFaults(t *testing.T) {
	tests := []struct{ address, mode, owner, want string }{
		{"unix:x", "0680", "", "unix_mode: \"0680\" is not a number in octal"},
		{"unix:x", "01777", "", "unix_mode: "},
		{"unix:x", "", ":", "unix_owner: \":\" is none of"},
		{"unix:@x", "0600", "", "abstract"},
		{"fd:web", "0600", "", "only the address unix:PATH"},
		{":80", "", "root", "only the address unix:PATH"},
	}
	for _, tt := range tests {
		c := withAddress(Config{}, tt.address)
		c.UnixMode, c.UnixOwner = tt.mode, tt.owner
		checkError(t, c.Validate(), []string{tt.want})
	}
	for _, owner := range []string{"no-such-user-here", ":no-such-group-here", strconv.Itoa(1 << 40)} {
		c := withAddress(Config{}, "unix:"+filepath.Join(t.TempDir(), "x"))
		c.UnixOwner = owner
		_, err := c.Open(t.Context(), nil)
		checkError(t, err, []string{"unix_owner", strings.TrimPrefix(owner, ":")})
		if _, err := os.Lstat(strings.TrimPrefix(c.Address, "unix:")); err == nil {
			t.Error("the socket of a failed Open stays")
		}
	}
}
