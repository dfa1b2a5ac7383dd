//go:build unix

package main

import (
	"net/http"
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

// TestUpgradeKeepsReadiness: a server that an operator has taken out of its balancer is not
// back there by an upgrade.
func TestUpgradeKeepsReadiness(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, anyPorts)
	r.endSuccessors(t)
	pid := r.cmd.Process.Pid
	for i, tt := range []struct {
		state string
		want  int
	}{{"off", http.StatusServiceUnavailable}, {"on", http.StatusOK}} {
		if status, body := r.post(t, "ready?state="+tt.state); status != http.StatusOK {
			t.Fatal(status, body)
		}
		for again := range 2 {
			pid = r.upgrade(t, pid)
			r.logged(t, "phase=stopped", 2*i+again+1)
			for _, path := range []string{"readyz", "livez"} {
				want := tt.want
				if path == "livez" {
					want = http.StatusOK
				}
				if status := r.adminStatus(t, freshClient(t, ""), path); status != want {
					t.Errorf("ready %s: /%s answers %d behind the upgrade", tt.state, path, status)
				}
			}
		}
	}
}

// TestUpgradeWithoutConfiguration: a file that was truncated or removed does not put the
// defaults in force by an upgrade. A file that has never had content stays what it is.
func TestUpgradeWithoutConfiguration(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, anyPorts)
	r.endSuccessors(t)
	for i, tt := range []badReload{
		{text: "", want: ":1: the file is empty"},
		{text: "# listeners: []\n", want: ":1: the file is empty"},
		{place: func(string) error { return nil }, want: "no such file or directory"},
	} {
		tt.put(t, r)
		r.signal(t, syscall.SIGUSR2)
		r.logged(t, "upgrade failed; this process serves on", i+1)
		if log := r.stderr.String(); !strings.Contains(log, tt.want) || strings.Count(log, "exit status 2") != i+1 {
			t.Errorf("%q: the reason is not logged:\n%s", tt.text, log)
		}
		if err := ask(r.client, r.service.JoinPath("echo")); err != nil {
			t.Errorf("%q: %v", tt.text, err)
		}
	}
	r.write(t, anyPorts)
	r.upgrade(t, r.cmd.Process.Pid)
	r.logged(t, "phase=stopped", 1)

	blank := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(blank, []byte("# listeners: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, textLog, "--config", blank, "--drain-delay=0", "--drain-spread=0s")
	p.endSuccessors(t)
	p.signal(t, syscall.SIGHUP)
	p.logged(t, logUnchanged, 1)
	second := p.upgrade(t, p.cmd.Process.Pid)
	p.logged(t, "phase=stopped", 1)
	p.upgrade(t, second)
	p.logged(t, "phase=stopped", 2)
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
