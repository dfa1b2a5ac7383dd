//go:build unix

package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestStaticLinkThatWasTurned points the link of --static to another directory, which the
// next reload follows.
func TestStaticLinkThatWasTurned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, version := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "a.txt"), []byte(version), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	current, next := filepath.Join(dir, "current"), filepath.Join(dir, "next")
	if err := os.Symlink("v1", current); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--static", current, textLog)
	client := httpClient(t, false)
	served := func() string {
		response, err := client.Get(p.service.JoinPath("static", "a.txt").String())
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response.Status, err)
		}
		return string(body)
	}
	if got := served(); got != "v1" {
		t.Fatalf("%q is served at the start", got)
	}
	if err := os.Symlink("v2", next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, current); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	eventually(t, "the other directory is served", func() bool { return served() == "v2" })
	p.signal(t, syscall.SIGHUP)
	p.logged(t, "configuration and certificates unchanged", 1)
}

// TestUpgradeWithoutStartDirectory removes the directory in which the process was started.
// Both the next process and the one after it serve.
func TestUpgradeWithoutStartDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := startAs(t, func(c *exec.Cmd) { c.Dir = dir }, nil,
		"--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-timeout=1s", "--drain-spread=0", textLog)
	p.endSuccessors(t)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	second := p.upgrade(t, p.cmd.Process.Pid)
	p.upgrade(t, second)
	if err := ask(freshClient(t, ""), p.service.JoinPath("echo")); err != nil {
		t.Error(err)
	}
}

// TestUpgradeBelowInit runs the binary as the only child of process 1 of a namespace, a
// shell that ends with it. The upgrade is refused, and the process serves on.
func TestUpgradeBelowInit(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || exec.Command("unshare", "-rpf", "--kill-child", "true").Run() != nil {
		t.Skip("no process namespaces here")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	p := startAs(t, func(c *exec.Cmd) {
		// The shell passes SIGUSR2 on, as an init does.
		script := `"$@" & child=$!; trap 'kill -USR2 $child' USR2; while ! wait $child; do kill -0 $child || exit; done`
		c.Args = append([]string{"unshare", "-rpf", "--mount-proc", "--kill-child", "sh", "-c", script, "sh", binary}, c.Args[1:]...)
		c.Path = unshare
	}, nil, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", textLog)
	shell := childOf(t, p.cmd.Process.Pid)
	if err := syscall.Kill(childOf(t, shell), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	p.logged(t, "upgrade refused", 1)
	p.logged(t, "process 1 (sh) has started it", 1)
	if err := ask(freshClient(t, ""), p.service.JoinPath("echo")); err != nil {
		t.Error(err)
	}
}

// childOf returns the only child of a process.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	var child int
	eventually(t, "the process has a child", func() bool {
		id := strconv.Itoa(pid)
		text, err := os.ReadFile(filepath.Join("/proc", id, "task", id, "children"))
		if err != nil {
			t.Fatal(err)
		}
		child, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return child
}

// TestMisspeltVariable is a warning of check and of serve.
func TestMisspeltVariable(t *testing.T) {
	t.Parallel()
	vars := []string{"MUXSERVE_LISTN=:1", "MUXSERVE_PORT=tcp://10.0.0.1:80"}
	const want = "MUXSERVE_LISTN is no variable of muxserve; did you mean MUXSERVE_LISTEN?"
	checked, _ := launch(t, vars, "check")
	if code := checked.wait(t); code != exitOK || !strings.Contains(checked.stderr.String(), want) {
		t.Errorf("check ends with %d and says %q", code, &checked.stderr)
	}
	p := startWith(t, vars, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0")
	p.logged(t, `"msg":"serving"`, 1) // Warnings come before it.
	if said := p.stderr.String(); !strings.Contains(said, want) || strings.Contains(said, "MUXSERVE_PORT") {
		t.Errorf("serve says %q", said)
	}
}
