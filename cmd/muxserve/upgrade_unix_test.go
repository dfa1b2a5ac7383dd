//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// textLog selects the log format that these tests parse.
const textLog = "--log-format=text"

// newPID finds the ids of new processes in a log.
var newPID = regexp.MustCompile(`upgraded: .* new_pid=(\d+)`)

// successors returns the ids of the processes that have taken over from p, in order, from
// their logs.
func (p *running) successors(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, match := range newPID.FindAllStringSubmatch(p.stderr.String(), -1) {
		pid, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// endSuccessors kills the successors of p at the end of the test. They share p's outputs,
// and the clean-up of p waits for the end of those.
func (p *running) endSuccessors(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		for _, pid := range p.successors(t) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

// logged waits until the log of p and its successors contains a text n times.
func (p *running) logged(t *testing.T, text string, times int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q is logged %d times", text, times), func() bool {
		return strings.Count(p.stderr.String(), text) >= times
	})
}

// upgrade replaces the process pid and returns the id of the new one.
func (p *running) upgrade(t *testing.T, pid int) int {
	t.Helper()
	before := len(p.successors(t))
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new process has taken over", func() bool { return len(p.successors(t)) > before })
	return p.successors(t)[before]
}

// freshClient makes a new connection for each request.
func freshClient(t *testing.T, socket string) *http.Client {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	return &http.Client{Transport: transport, Timeout: patience}
}

// ask makes one request over a new connection.
func ask(c *http.Client, u *url.URL) error {
	response, err := c.Get(u.String())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// few is a number of clients.
const few = 4

// underLoad runs during while clients make requests over new connections, and
// reports every failed request.
func underLoad(t *testing.T, clients int, c *http.Client, u *url.URL, during func()) {
	t.Helper()
	var stop atomic.Bool
	var asked atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for !stop.Load() {
				if err := ask(c, u); err != nil {
					t.Errorf("request %d: %v", asked.Load(), err)
					return
				}
				asked.Add(1)
			}
		})
	}
	defer func() {
		stop.Store(true)
		wg.Wait()
		t.Logf("%d requests", asked.Load())
	}()
	during()
}

// TestUpgradeUnderLoad replaces the process five times.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	p := start(t, textLog, "--drain-delay=0")
	p.endSuccessors(t)
	echo := p.service.JoinPath("echo")
	const upgrades = 5
	underLoad(t, few, freshClient(t, ""), echo, func() {
		pid := p.cmd.Process.Pid
		for i := range upgrades {
			pid = p.upgrade(t, pid)
			p.logged(t, "phase=stopped", i+1)
		}
	})
	if status := p.adminStatus(t, freshClient(t, ""), "readyz"); status != http.StatusOK {
		t.Errorf("/readyz answers %d after %d upgrades", status, upgrades)
	}
	if strings.Contains(p.stderr.String(), "level=ERROR") {
		t.Error("something was logged as an error")
	}
	last := p.successors(t)[upgrades-1]
	if err := syscall.Kill(last, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != exitOK {
		t.Errorf("the first process ended with %d", code)
	}
}

// TestUpgradeSkipsDelay: after an upgrade the old process drains without its delay, because
// the new process answers health checks.
func TestUpgradeSkipsDelay(t *testing.T) {
	t.Parallel()
	p := start(t, textLog, "--drain-delay=1h", "--drain-timeout=2h", "--drain-spread=0s")
	p.endSuccessors(t)
	p.upgrade(t, p.cmd.Process.Pid)
	p.logged(t, "phase=stopped", 1)
}

// install copies the binary to a new path, where a test can replace it.
func install(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "muxserve")
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	writeExecutable(t, path, content)
	return path
}

// writeExecutable keeps the tests beside it from starting processes meanwhile. Those would
// inherit the file, which cannot be run as long as anyone has it open to write.
func writeExecutable(t *testing.T, path string, content []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, content, 0o700); err != nil {
		t.Fatal(err)
	}
}

// replace replaces a binary by a shell script. Like a deployment it renames, because a
// running file cannot be written.
func replace(t *testing.T, path, script string) {
	t.Helper()
	writeExecutable(t, path+".new", []byte("#!/bin/sh\n"+script+"\n"))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// startInstalled runs the binary at a path, like start.
func startInstalled(t *testing.T, path string, args ...string) *running {
	t.Helper()
	return startAs(t, func(cmd *exec.Cmd) { cmd.Path, cmd.Args[0] = path, path }, nil,
		append([]string{"--listen=127.0.0.1:0", "--admin=127.0.0.1:0"}, args...)...)
}

// TestUpgradeFails replaces the binary by bad ones. The process serves on, and the
// upgrade succeeds once the binary is good.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	path := install(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key, 1)
	p := startInstalled(t, path, textLog, "--tls-cert", cert, "--tls-key", key, "--drain-delay=0")
	p.endSuccessors(t)
	const failed = "upgrade failed; this process serves on"
	attempts := 0
	attempt := func(want string) {
		t.Helper()
		p.signal(t, syscall.SIGUSR2)
		attempts++
		p.logged(t, failed, attempts)
		lines := strings.Split(p.stderr.String(), failed)
		if line, _, _ := strings.Cut(lines[len(lines)-1], "\n"); !strings.Contains(line, want) {
			t.Errorf("logged %q, want %q", line, want)
		}
		if got := serialOf(t, p.service.Host); got != 1 {
			t.Errorf("certificate %d", got)
		}
	}
	good := path + ".good"
	if err := os.Rename(path, good); err != nil {
		t.Fatal(err)
	}
	attempt("no such file")
	replace(t, path, "exit 7")
	attempt("exit status 7")
	ready := filepath.Join(dir, "started")
	replace(t, path, "echo $$ >"+ready+".new; mv "+ready+".new "+ready+"; exec sleep 60")
	p.signal(t, syscall.SIGUSR2)
	pid := 0
	eventually(t, "the new process has started", func() bool {
		number, err := os.ReadFile(ready)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(number)))
		return err == nil && pid > 0
	})
	p.signal(t, syscall.SIGUSR2)
	p.logged(t, "another upgrade is under way", 1)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	attempts++
	p.logged(t, failed, attempts)

	if err := errors.Join(os.Rename(good, path), os.WriteFile(cert, []byte("broken"), 0o600)); err != nil {
		t.Fatal(err)
	}
	attempt("exit status 1")
	writePair(t, cert, key, 2)
	p.upgrade(t, p.cmd.Process.Pid)
	p.logged(t, "phase=stopped", 1)
	if got := serialOf(t, p.service.Host); got != 2 {
		t.Errorf("certificate %d after the upgrade", got)
	}
}

// TestSignalDuringUpgrade: a signal drains at once, without waiting for a new process
// that hangs.
func TestSignalDuringUpgrade(t *testing.T) {
	t.Parallel()
	path := install(t)
	p := startInstalled(t, path, textLog, "--drain-delay=0")
	started := filepath.Join(t.TempDir(), "started")
	// It is one process: a child of it would keep the socket for a while.
	replace(t, path, "trap '' TERM; echo >"+started+"; exec sleep 60")
	p.signal(t, syscall.SIGUSR2)
	eventually(t, "the new process has started", func() bool {
		_, err := os.Stat(started)
		return err == nil
	})
	p.signal(t, syscall.SIGTERM)
	p.logged(t, "upgrade failed", 1)
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if conn, err := net.Dial("tcp", p.service.Host); err == nil {
		conn.Close()
		t.Error("somebody has the socket still")
	}
}

// TestKillAfterUpgrade kills the old process as soon as the new one is ready. The
// socket's file stays.
func TestKillAfterUpgrade(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "mux") //nolint:usetesting // The path of a socket has to be short.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	service, admin := filepath.Join(dir, "s"), filepath.Join(dir, "a")
	p := startWith(t, nil, textLog, "--listen", "unix:"+service, "--admin", "unix:"+admin, "--drain-delay=30s", "--drain-timeout=60s")
	p.endSuccessors(t)
	client, echo := freshClient(t, service), mustURL(t, "http://localhost/echo")
	underLoad(t, few, client, echo, func() {
		p.upgrade(t, p.cmd.Process.Pid)
		// From here on the old one takes no new connections.
		p.logged(t, "step=announce", 1)
		const settled = 50
		for range settled {
			if err := ask(client, echo); err != nil {
				t.Error(err)
			}
		}
		p.signal(t, syscall.SIGKILL)
		for range settled {
			if err := ask(client, echo); err != nil {
				t.Error(err)
			}
		}
	})
	if err := ask(freshClient(t, admin), mustURL(t, "http://localhost/readyz")); err != nil {
		t.Errorf("the admin pages: %v", err)
	}
	// The process with the sockets removes the files.
	for _, pid := range p.successors(t) {
		if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	<-p.exited
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestSocketActivation passes sockets as a service manager does. The process restarts for
// GODEBUG first, and is upgraded then.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	var files []*os.File
	var urls []*url.URL
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, mustURL(t, "http://"+l.Addr().String()))
		l.Close()
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	activate := func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.ExtraFiles = files
	}
	vars := []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=web:admin"}
	p := startAs(t, activate, vars, textLog, "--listen=fd:web", "--admin", urls[1].Host, "--http2-websocket", "--drain-delay=0")
	p.endSuccessors(t)
	client := freshClient(t, "")
	check := func() {
		t.Helper()
		for i, path := range []string{"echo", "metrics"} {
			if err := ask(client, urls[i].JoinPath(path)); err != nil {
				t.Error(err)
			}
		}
	}
	check()
	p.upgrade(t, p.cmd.Process.Pid)
	p.logged(t, "phase=stopped", 1)
	check()

	unused, _ := launchAs(t, activate, vars, textLog, "--listen=fd:web", "--admin=off")
	if code := unused.wait(t); code != exitFailed || !strings.Contains(unused.stderr.String(), "fd:admin ("+urls[1].Host+")") {
		t.Errorf("exit code %d with a socket that nobody asks for", code)
	}
}

// TestUpgradeWithoutAnnounce: where the step announce is skipped, the old process still
// leaves the admin port to the new one, which answers the balancer's checks.
func TestUpgradeWithoutAnnounce(t *testing.T) {
	t.Parallel()
	for _, steps := range []string{"announce", "stop-accepting"} {
		t.Run(steps, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "muxserve.yaml")
			if err := os.WriteFile(config, []byte("drain: {skip_steps: ["+steps+"]}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			p := startWith(t, nil, textLog, "--config", config, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=0", "--drain-timeout=20s")
			p.endSuccessors(t)
			// A busy connection keeps the old process draining.
			conn, err := net.Dial("tcp", p.service.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("GET /echo?sleep=5s HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "busy", func() bool { return p.adminStatus(t, freshClient(t, ""), "readyz") == http.StatusOK })
			p.upgrade(t, p.cmd.Process.Pid)
			p.logged(t, "phase=draining", 1)
			bad := 0
			const checks = 100
			for range checks {
				if p.adminStatus(t, freshClient(t, ""), "readyz") != http.StatusOK {
					bad++
				}
			}
			if bad > 0 {
				t.Errorf("%d of %d readiness checks after the upgrade were answered by the old process", bad, checks)
			}
		})
	}
}
