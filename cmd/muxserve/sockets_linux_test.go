package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// freeAddress returns an address with a port that is free at every address.
func freeAddress(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort(host, port)
}

// livez asks a service for its liveness.
func livez(t *testing.T, c *http.Client, address string) error {
	t.Helper()
	return ask(c, &url.URL{Scheme: "http", Host: address, Path: "/livez"})
}

// TestActivationByName has systemd's own program pass two sockets of one name, and two of
// another to the admin pages. It makes them, waits for a client and starts the binary.
func TestActivationByName(t *testing.T) {
	t.Parallel()
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skipf("package systemd has it, and CI installs that: %v", err)
	}
	service, admin := []string{freeAddress(t, "127.0.0.1"), freeAddress(t, "::1")}, []string{freeAddress(t, "127.0.0.1"), freeAddress(t, "::1")}
	args := []string{"--fdname=web:admin:admin:web"}
	for _, address := range []string{service[0], admin[0], admin[1], service[1]} {
		args = append(args, "--listen="+address)
	}
	cmd := exec.Command(activate, append(args, binary, "--listen=fd:web", "--admin=fd:admin", textLog)...)
	log := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it said:\n%s", log)
		}
	})
	client := freshClient(t, "")
	for _, address := range append(service, admin...) {
		eventually(t, address+" is served", func() bool { return livez(t, client, address) == nil })
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has reloaded", func() bool { return strings.Contains(log.String(), logUnchanged) })
	for _, address := range append(service, admin...) {
		if err := livez(t, client, address); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestSuccessorsSocket ends a process after another one has put its socket in the place of
// the first.
func TestSuccessorsSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.sock")
	args := []string{"--listen=unix:" + path, "--admin=off", "--drain-delay=0s", "--drain-spread=0s"}
	client := freshClient(t, path)
	first, _ := launch(t, nil, args...)
	eventually(t, "the first serves", func() bool { return livez(t, client, "first") == nil })
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, _ := launch(t, nil, args...)
	eventually(t, "the second serves", func() bool { return livez(t, client, "second") == nil })
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := first.wait(t); code != exitOK {
		t.Errorf("the first ended with %d", code)
	}
	if err := livez(t, client, "second"); err != nil {
		t.Error(err)
	}
	if err := second.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	second.wait(t)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the second leaves its file: %v", err)
	}
}

// TestSocketMode has the file of a Unix socket belong to the configured group.
func TestSocketMode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, file := filepath.Join(dir, "x.sock"), filepath.Join(dir, "muxserve.yaml")
	text := fmt.Sprintf("listeners: [{address: \"unix:%s\", unix_mode: \"0620\", unix_owner: \":%d\"}]\nadmin: {address: \"off\"}\n", path, os.Getgid())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = launch(t, nil, "--config", file)
	client := freshClient(t, path)
	eventually(t, "it serves", func() bool { return livez(t, client, "x") == nil })
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o620 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestReloadOverlappingAddress moves both listeners to addresses that overlap with theirs
// while clients connect anew for each request.
func TestReloadOverlappingAddress(t *testing.T) {
	t.Parallel()
	service, admin := freeAddress(t, ""), freeAddress(t, "")
	text := func(serviceHost, adminHost string) string {
		return fmt.Sprintf("listeners: [{address: %q}]\nadmin: {address: %q}\ndrain: {spread: 0s, delay: 0s}\n", serviceHost+service, adminHost+admin)
	}
	r := startReloadable(t, text("127.0.0.1", "127.0.0.1"))
	r.admin.Host, r.service.Host = "127.0.0.1"+admin, "127.0.0.1"+service
	stop := r.steadyNewConnections(t)
	for i, hosts := range [][]string{{"0.0.0.0", "127.0.0.1"}, {"127.0.0.1", "0.0.0.0"}, {"", "127.0.0.1"}, {"127.0.0.1", ""}} {
		r.write(t, text(hosts[0], hosts[1]))
		r.signal(t, syscall.SIGHUP)
		r.logged(t, logReloaded, i+1)
	}
	// Each takes the other's place, which one reload cannot do.
	r.write(t, fmt.Sprintf("listeners: [{address: %q}]\nadmin: {address: %q}\n", "127.0.0.1"+admin, "127.0.0.1"+service))
	r.signal(t, syscall.SIGHUP)
	r.logged(t, logFailed, 1)
	if log := r.stderr.String(); !strings.Contains(log, "bind: address already in use; this process itself listens on ") {
		t.Errorf("the log does not say whose port it is:\n%s", log)
	}
	stop()
}

// steadyNewConnections makes requests over new connections until stop is called.
func (r *reloadable) steadyNewConnections(t *testing.T) (stop func()) {
	t.Helper()
	client, done, ended := freshClient(t, ""), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-done:
				t.Logf("%d requests", n)
				return
			default:
			}
			if err := livez(t, client, r.service.Host); err != nil {
				t.Errorf("request %d: %v", n, err)
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// TestReloadOverlappingAdmin moves the admin listener to addresses that overlap with its own,
// also in reloads that fail, while probes connect anew for each question.
func TestReloadOverlappingAdmin(t *testing.T) {
	t.Parallel()
	port := freeAddress(t, "")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	text := func(host, more string) string {
		return fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\"}%s]\nadmin: {address: %q}\ndrain: {spread: 0s}\n", more, host+port)
	}
	r := startReloadable(t, text("127.0.0.1", ""))
	r.admin.Host = "127.0.0.1" + port
	stop, client := make(chan struct{}), freshClient(t, "")
	var probes sync.WaitGroup
	for range 16 {
		probes.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := livez(t, client, r.admin.Host); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 8 {
		host := []string{"0.0.0.0", "127.0.0.1"}[i%2]
		r.write(t, text(host, fmt.Sprintf(", {address: %q}", taken.Addr())))
		r.signal(t, syscall.SIGHUP)
		r.logged(t, logFailed, i+1)
		r.write(t, text(host, ""))
		r.signal(t, syscall.SIGHUP)
		r.logged(t, logReloaded, i+1)
	}
	close(stop)
	probes.Wait()
}

// TestUpgradeManySockets passes as many sockets of an address as there can be.
func TestUpgradeManySockets(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, "listeners: [{address: \"127.0.0.1:0\", reuse_port: 1024}]\nadmin: {address: \"127.0.0.1:0\"}\ndrain: {spread: 0s, delay: 0s}\n")
	r.endSuccessors(t)
	r.upgrade(t, r.cmd.Process.Pid)
	r.logged(t, "phase=stopped", 1)
	for range 100 {
		if err := livez(t, freshClient(t, ""), r.service.Host); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckAddresses checks addresses that cannot be listened on together.
func TestCheckAddresses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		want string // of the error; empty where both can
	}{
		{[]string{"--listen=0.0.0.0:80", "--listen=[::]:80"}, ""},
		{[]string{"--listen=0.0.0.0:80", "--listen=[::1]:80"}, ""},
		{[]string{"--listen=0.0.0.0:80", "--listen=127.0.0.1:80"}, "listeners.address: 127.0.0.1:80 cannot be listened on beside 0.0.0.0:80, which is that of listeners[0].address"},
		{[]string{"--listen=:80", "--admin=127.0.0.1:80"}, "admin.address: 127.0.0.1:80 cannot be listened on beside :80"},
		{[]string{"--listen=[::]:80", "--admin=0.0.0.0:80"}, "admin.address: 0.0.0.0:80 cannot be listened on beside [::]:80"},
		{[]string{"--listen=unix:x", "--listen=unix:./x"}, "unix:./x cannot be listened on beside unix:x"},
		{[]string{"--listen=:80", "--listen=:80"}, ":80 is that of listeners[0].address already"},
	}
	for _, tt := range tests {
		code, stderr := runBinary(t, append([]string{"check"}, tt.args...)...)
		if wantCode := map[bool]int{true: exitOK, false: exitUsage}[tt.want == ""]; code != wantCode || !strings.Contains(stderr, tt.want) {
			t.Errorf("%v: exit code %d, want %d and %q in:\n%s", tt.args, code, wantCode, tt.want, stderr)
		}
	}
}

// TestFewDescriptors looks for the limit of connections where there are few descriptors,
// and where 0 would be no limit.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	for files := 65; files <= 74; files++ {
		cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" check`, files), binary)
		out, err := cmd.CombinedOutput()
		want := fmt.Sprintf("max_connections: %d  # default", max(1, (files-64)*9/10))
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%d descriptors: %v, want %q in\n%s", files, err, want, out)
		}
	}
}

// TestRefusedLeaveDescriptors: where there are few descriptors, connections that are refused,
// and that their client keeps silent, leave some for other clients, and for the admin pages.
// So do idle connections of the admin pages.
// One client takes not even all of those that there are for such connections.
func TestRefusedLeaveDescriptors(t *testing.T) {
	t.Parallel()
	const files, crowd, perAddress = 256, 400, 5
	const all = (files - 64) * 9 / 10
	for name, tt := range map[string]struct {
		limits      string
		least, most int // that are kept open of the crowd
		admin       int // idle connections of the admin listener
	}{
		"one address":            {fmt.Sprintf("limits: {per_address: %d}\n", perAddress), perAddress, 4 * perAddress, 0},
		"all":                    {"", all / 2, all + (files-all)/2, 0},
		"all, and the admin one": {"", all / 2, all + (files-all)/2, files - all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "config.yaml")
			config := "listeners: [{address: 127.0.0.1:0}]\nadmin: {address: 127.0.0.1:0}\nsniff: {timeout: 1m}\n" + tt.limits
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			p := startAs(t, func(cmd *exec.Cmd) {
				script := fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files)
				cmd.Path, cmd.Args = "/bin/sh", append([]string{"/bin/sh", "-c", script, binary}, cmd.Args[1:]...)
			}, nil, "--config", file)
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: patience}
			var ended atomic.Int32
			var readers sync.WaitGroup
			t.Cleanup(readers.Wait)
			for range tt.admin {
				idle := &http.Client{Transport: new(http.Transport), Timeout: patience}
				t.Cleanup(idle.CloseIdleConnections)
				if err := livez(t, idle, p.admin.Host); err != nil {
					t.Fatal(err)
				}
			}
			for range crowd {
				conn, err := from.DialContext(t.Context(), "tcp", p.service.Host)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				readers.Go(func() {
					_, _ = conn.Read(make([]byte, 1))
					ended.Add(1)
				})
			}
			eventually(t, "enough are closed", func() bool { return crowd-int(ended.Load()) <= tt.most })
			if n := crowd - int(ended.Load()); n < tt.least {
				t.Errorf("%d of %d are open, want %d or more", n, crowd, tt.least)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
			eventually(t, "another client is served", func() bool { return livez(t, client, p.service.Host) == nil })
			if err := livez(t, client, p.admin.Host); err != nil {
				t.Error(err)
			}
			if text := p.stderr.String(); strings.Contains(text, "too many open files") {
				t.Error(text)
			}
		})
	}
}
