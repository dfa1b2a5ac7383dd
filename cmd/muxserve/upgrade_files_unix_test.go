//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// socketDir returns a directory whose path is short enough for sockets.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mux") //nolint:usetesting // The path of a socket has to be short.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestFailedUpgradeKeepsSocketFiles: a new process that fails after it has taken the
// sockets over does not remove the files of Unix sockets. The old process serves on.
func TestFailedUpgradeKeepsSocketFiles(t *testing.T) {
	t.Parallel()
	dir := socketDir(t)
	service, admin := filepath.Join(dir, "s"), filepath.Join(dir, "a")
	config := filepath.Join(dir, "muxserve.yaml")
	write := func(second string) {
		t.Helper()
		text := "listeners:\n- address: unix:" + service + "\n" + second + "admin: {address: \"unix:" + admin + "\"}\n"
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	p := startWith(t, nil, textLog, "--config", config, "--drain-delay=0")
	p.endSuccessors(t)
	for _, tt := range []struct{ name, second string }{
		{"an address that cannot be bound", "- address: 192.0.2.1:1\n"},
		{"a certificate that is not there", "- {address: \"127.0.0.1:0\", tls: {mode: manual, cert: /nowhere, key: /nowhere}}\n"},
	} {
		before := strings.Count(p.stderr.String(), "upgrade failed")
		write(tt.second)
		p.signal(t, syscall.SIGUSR2)
		p.logged(t, "upgrade failed", before+1)
		for _, path := range []string{service, admin} {
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("%s: the old process serves on, but %v", tt.name, err)
			}
		}
		if err := ask(freshClient(t, service), mustURL(t, "http://localhost/echo")); err != nil {
			t.Errorf("%s: a client after the failed upgrade: %v", tt.name, err)
		}
	}
}

// TestStoppedUpgradeKeepsSocketFiles: the same for a new process that the old process
// ends because it hangs.
func TestStoppedUpgradeKeepsSocketFiles(t *testing.T) {
	t.Parallel()
	dir := socketDir(t)
	service := filepath.Join(dir, "s")
	path := install(t)
	good := path + ".good"
	p := startAs(t, func(cmd *exec.Cmd) { cmd.Path, cmd.Args[0] = path, path }, nil,
		textLog, "--listen", "unix:"+service, "--admin=127.0.0.1:0", "--drain-delay=0")
	p.endSuccessors(t)
	if err := os.Rename(path, good); err != nil {
		t.Fatal(err)
	}
	// The new process serves at once but never says so: the pipe is closed.
	replace(t, path, `n=$MUXSERVE_UPGRADE_READY; unset MUXSERVE_UPGRADE_READY; eval "exec $n>&-"; `+good+` "$@" & child=$!; trap 'kill $child' TERM; sleep 1; kill $child; wait; exit 1`)
	p.signal(t, syscall.SIGUSR2)
	p.logged(t, "upgrade failed", 1)
	if err := ask(freshClient(t, service), mustURL(t, "http://localhost/echo")); err != nil {
		t.Errorf("a client after the failed upgrade: %v", err)
	}
}
