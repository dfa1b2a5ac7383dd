//go:build unix

package main

import (
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// slowUpgrade is a process whose binary a script has replaced. The next process begins when
// the script is let go.
type slowUpgrade struct {
	*running

	file, service string // of the configuration, and of a listener that version 1 has not
	base          string
	started, gate string
}

func startSlowUpgrade(t *testing.T, flags ...string) *slowUpgrade {
	t.Helper()
	dir := socketDir(t)
	u := &slowUpgrade{
		file: filepath.Join(dir, "muxserve.yaml"), service: filepath.Join(dir, "s"),
		started: filepath.Join(dir, "started"), gate: filepath.Join(dir, "gate"),
		base: "admin: {address: \"127.0.0.1:0\"}\ndrain: {delay: 0s, spread: 0s}\nlisteners:\n- address: 127.0.0.1:0\n",
	}
	u.write(t, u.base)
	path := install(t)
	u.running = startAs(t, func(cmd *exec.Cmd) { cmd.Path, cmd.Args[0] = path, path }, nil,
		append([]string{textLog, "--config", u.file}, flags...)...)
	u.endSuccessors(t)
	if err := os.Rename(path, path+".good"); err != nil {
		t.Fatal(err)
	}
	replace(t, path, "echo $$ >"+u.started+".new; mv "+u.started+".new "+u.started+
		"; while ! [ -e "+u.gate+" ]; do sleep 0.02; done; exec "+path+".good \"$@\"")
	return u
}

func (u *slowUpgrade) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(u.file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(u.file+".new", u.file); err != nil {
		t.Fatal(err)
	}
}

// begin begins an upgrade, and returns the id of the new process.
func (u *slowUpgrade) begin(t *testing.T) (pid int) {
	t.Helper()
	u.signal(t, syscall.SIGUSR2)
	eventually(t, "the new process has started", func() bool {
		number, err := os.ReadFile(u.started)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(number)))
		return err == nil && pid > 0
	})
	return pid
}

// TestNothingChangesDuringUpgrade: what the old process put in force while an upgrade is under
// way would be lost with it, so it refuses that. When the upgrade has failed, it does what a
// SIGHUP has asked for meanwhile; otherwise the new process does.
func TestNothingChangesDuringUpgrade(t *testing.T) {
	t.Parallel()
	u := startSlowUpgrade(t)
	u.write(t, u.base+"- address: unix:"+u.service+"\n")
	u.expect(t, exitOK, "version 2 is in force", "reload")
	refused := func() {
		t.Helper()
		for _, call := range [][]string{{"reload"}, {"rollback", "1"}, {"ready", "off"}} {
			u.expect(t, exitFailed, "an upgrade is under way; ask again when it is over", call...)
		}
		if status := u.adminStatus(t, freshClient(t, ""), "readyz"); status != http.StatusOK {
			t.Errorf("/readyz answers %d", status)
		}
	}
	pid := u.begin(t)
	u.logged(t, "new_pid="+strconv.Itoa(pid), 1)
	refused()
	u.write(t, u.base+"- address: unix:"+u.service+"\nlimits: {max_connections: 77}\n")
	u.signal(t, syscall.SIGHUP)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	u.logged(t, "upgrade failed", 1)
	u.logged(t, logReloaded, 2)
	u.expect(t, exitOK, "not ready", "ready", "off")
	u.expect(t, exitOK, "^ready", "ready", "on")

	if err := os.Remove(u.started); err != nil {
		t.Fatal(err)
	}
	_ = u.begin(t)
	refused()
	u.signal(t, syscall.SIGHUP)
	if err := os.WriteFile(u.gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u.logged(t, "SIGHUP passed on", 1)
	u.logged(t, "configuration and certificates unchanged", 1)
	if err := ask(freshClient(t, u.service), mustURL(t, "http://localhost/echo")); err != nil {
		t.Errorf("the socket that the old process was to give up: %v", err)
	}
}

// TestWatchDuringUpgrade: files that change during an upgrade are read when it has failed.
func TestWatchDuringUpgrade(t *testing.T) {
	t.Parallel()
	u := startSlowUpgrade(t, "--watch")
	pid := u.begin(t)
	u.write(t, u.base+"limits: {max_connections: 77}\n")
	time.Sleep(3 * watchInterval) // What is under test is time.
	if strings.Contains(u.stderr.String(), logReloaded) {
		t.Error("reloaded during the upgrade")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	u.logged(t, logReloaded, 1)
}

// TestWatchFromTheStart: a file that has changed since the process has read it, and before it
// looks for the first time, has changed.
func TestWatchFromTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config, token := filepath.Join(dir, "muxserve.yaml"), filepath.Join(dir, "token")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, changed := range []string{"", config, token} {
		write(config, "admin: {token_file: "+token+"}\n")
		write(token, "first")
		parsed, err := cli.Parse(settings.Flags(), []string{"--config", config})
		if err != nil {
			t.Fatal(err)
		}
		none := func(string) string { return "" }
		s, err := settings.Load(parsed, none)
		if err != nil {
			t.Fatal(err)
		}
		if changed != "" {
			write(changed, "{}")
		}
		h, err := inherit(none, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		env := environment{stderr: io.Discard, getenv: none}
		p := newProcess(env, s, newLogs(env, s.Log), h)
		if got := !maps.Equal(digestsOf(filesOf(s)), p.reloads.looked); got != (changed != "") {
			t.Errorf("%q was written: changed is %t", changed, got)
		}
		p.close()
	}
}
