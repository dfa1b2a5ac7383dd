//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// badReload is a bad configuration file and its error in the log.
type badReload struct {
	name string
	text string
	// place creates something other than a text file.
	place func(path string) error
	want  string
}

// badReloads returns bad files of every kind. One has a listener at the address untaken.
// The tests of package settings have many more texts.
func badReloads(t *testing.T, dir, taken, untaken string) []badReload {
	t.Helper()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key, 1)
	otherKey := filepath.Join(dir, "key2.pem")
	writePair(t, filepath.Join(dir, "cert2.pem"), otherKey, 2)
	const admin = "admin: {address: \"127.0.0.1:0\"}\n"
	tls := func(cert, key string) string {
		return admin + fmt.Sprintf("listeners:\n  - address: 127.0.0.1:0\n  - address: 127.0.0.1:0\n    tls: {cert: %q, key: %q}\n", cert, key)
	}
	return []badReload{
		{name: "empty", text: "", want: ":1: the file is empty"},
		{name: "truncated", text: anyPorts + "limits: {max_conn", want: ":4: not YAML"},
		{name: "tab", text: anyPorts + "log:\n\tlevel: info\n", want: ":5: not YAML: the line begins with a tab"},
		{name: "binary", text: "\x7fELF\x02\x01", want: ":1: byte 0x7f is not text"},
		{name: "UTF-16", text: "\xff\xfel\x00o\x00g\x00", want: ":1: the file is UTF-16"},
		{name: "wrong type", text: anyPorts + "limits: {max_connections: many}\n", want: ":4: limits.max_connections: want a whole number"},
		{name: "list for a section", text: anyPorts + "log: []\n", want: ":4: log: want keys below it"},
		{name: "unknown key", text: anyPorts + "grcp: {}\n", want: ":4: grcp: unknown key; did you mean grpc?"},
		{name: "duplicate key", text: anyPorts + "admin: {}\n", want: ":4: admin: given twice"},
		{name: "absurd number", text: anyPorts + "http2: {max_streams: 4294967296}\n", want: ":4: http2.max_streams: want a whole number from"},
		{name: "negative number", text: anyPorts + "limits: {per_address: -1}\n", want: ":4: limits.per_address: -1 must not be negative"},
		{name: "absurd time", text: anyPorts + "http1: {max_age: 99999999h}\n", want: ":4: http1.max_age: want a length of time"},
		{name: "two documents", text: anyPorts + "---\nlog: {}\n", want: ":4: a second document begins"},
		{name: "too long", text: "#" + strings.Repeat("x", 2<<20), want: "is longer than 1048576 bytes"},
		{name: "unknown step", text: admin + "drain: {skip_steps: [annuonce]}\n", want: ":2: drain.skip_steps: unknown step"},
		{name: "no directory for static files", text: anyPorts + "static: /missing/directory\n", want: ":4: static: not a directory that can be read"},
		{name: "missing certificate", text: tls("/missing/cert.pem", key), want: ":5: listeners[1].tls.cert: "},
		{name: "broken certificate", text: tls("/proc/self/status", key), want: "listeners[1]: listeners: tls.cert and tls.key: "},
		{name: "key of another certificate", text: tls(cert, otherKey), want: "tls: private key does not match public key"},
		{name: "address that is none", text: admin + "listeners: [{address: \"8080\"}]\n", want: `:2: listeners[0].address: "8080" is not HOST:PORT`},
		{name: "address of another machine", text: admin + "listeners: [{address: \"127.0.0.1:0\"}, {address: \"192.0.2.1:0\"}]\n", want: "192.0.2.1:0"},
		{name: "port in use", text: admin + fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\"}, {address: %q}]\n", taken), want: "address already in use"},
		{name: "admin port in use", text: "listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"" + taken + "\"}\n", want: ":2: admin.address: listeners: listen on"},
		{
			name: "one fault among changes that could be made",
			text: fmt.Sprintf("admin: {address: %q}\nlisteners: [{address: \"127.0.0.1:0\"}, {address: %q}]\nstatic: %q\nlog: {level: debug}\n", untaken, taken, dir),
			want: "address already in use",
		},
		{name: "what needs a new process", text: anyPorts + "http2: {websocket: true}\n", want: ":4: http2.websocket: net/http looks for it when the process starts"},
		{name: "no file", place: func(string) error { return nil }, want: "no such file or directory"},
		{name: "directory", place: func(path string) error { return os.Mkdir(path, 0o700) }, want: "is not a regular file"},
		{name: "link to nothing", place: func(path string) error { return os.Symlink("nothing", path) }, want: "no such file or directory"},
		{name: "link to itself", place: func(path string) error { return os.Symlink(path, path) }, want: "too many levels of symbolic links"},
		{name: "pipe", place: func(path string) error { return syscall.Mkfifo(path, 0o600) }, want: "is not a regular file"},
		{name: "no permission", place: func(path string) error { return os.WriteFile(path, []byte(anyPorts), 0) }, want: "permission denied"},
	}
}

// put replaces the file by the bad one.
func (b badReload) put(t *testing.T, r *reloadable) {
	t.Helper()
	if b.place == nil {
		r.write(t, b.text)
		return
	}
	if err := os.RemoveAll(r.file); err != nil {
		t.Fatal(err)
	}
	if err := b.place(r.file); err != nil {
		t.Fatal(err)
	}
}

// TestFaultyReloads reloads one bad file after the other under load. The clients of every
// protocol notice nothing, and each file is one line in the log.
func TestFaultyReloads(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	r := startReloadable(t, anyPorts)
	socket := r.listeningSocket(t)
	stop := r.steadyLoad(t)
	defer stop()
	reloads, untaken := 0, unusedAddress(t)
	for _, bad := range badReloads(t, t.TempDir(), taken.Addr().String(), untaken) {
		if bad.name == "no permission" && os.Geteuid() == 0 {
			t.Log("root reads what it has no permission for")
			continue
		}
		bad.put(t, r)
		r.signal(t, syscall.SIGHUP)
		reloads++
		r.logged(t, logFailed, reloads)
		if got := r.reloadMetric(t); got != "0" {
			t.Errorf("%s: the metric is %q after the reload", bad.name, got)
		}
		if err := os.RemoveAll(r.file); err != nil {
			t.Fatal(err)
		}
		r.write(t, anyPorts)
		r.signal(t, syscall.SIGHUP)
		r.logged(t, logUnchanged, reloads)
		if got := r.reloadMetric(t); got != "1" {
			t.Errorf("%s: the metric is %q after a reload of the good file", bad.name, got)
		}
		checkOneLine(t, bad, r.stderr.String(), reloads)
	}
	if c, err := net.Dial("tcp", untaken); err == nil {
		_ = c.Close()
		t.Error("the address of a change that failed is listened on")
	}
	if now := r.listeningSocket(t); now != socket {
		t.Errorf("the socket was %s and is %s", socket, now)
	}
}

// checkOneLine checks that the log has one error for each faulty file, and that the last
// one is about this file.
func checkOneLine(t *testing.T, bad badReload, log string, faults int) {
	t.Helper()
	lines := strings.Split(log, "level=ERROR")
	if len(lines)-1 != faults {
		t.Errorf("%s: %d lines of errors, want %d", bad.name, len(lines)-1, faults)
	}
	if line, _, _ := strings.Cut(lines[len(lines)-1], "\n"); !strings.Contains(strings.ReplaceAll(line, `\"`, `"`), bad.want) {
		t.Errorf("%s: %q is not in %s", bad.name, bad.want, line)
	}
}

// listeningSocket returns the inode of the service port's socket; empty without /proc.
func (r *reloadable) listeningSocket(t *testing.T) string {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscan(r.service.Port(), &port); err != nil {
		t.Fatal(err)
	}
	const addressField, stateField, inodeField = 1, 3, 9
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if strings.HasSuffix(fields[addressField], fmt.Sprintf(":%04X", port)) && fields[stateField] == "0A" {
			return fields[inodeField]
		}
	}
	t.Fatalf("nobody listens on %s", r.service.Host)
	return ""
}

// steadyLoad makes requests in every protocol, over new connections and over connections
// that must stay open until stop is called.
func (r *reloadable) steadyLoad(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	echo := r.service.JoinPath("echo")
	stream, err := demov1.NewEchoClient(r.dialGRPC(t)).BidiStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ws, fresh := r.dialWebSocket(t), freshClient(t, "")
	clients := map[string]func() error{
		"HTTP/1.1":        sameConnection(t, &http.Client{Transport: dialOnce(t, r.service.Host)}, echo),
		"HTTP/2":          sameConnection(t, httpClient(t, true), echo),
		"new connections": func() error { return ask(fresh, echo) },
		"WebSocket":       func() error { return echoMessage(t.Context(), ws, websocket.MessageText, []byte("hello")) },
		"gRPC": func() error {
			if err := stream.Send(&demov1.EchoRequest{Message: "hello"}); err != nil {
				return err
			}
			_, err := stream.Recv()
			return err
		},
	}
	var wg sync.WaitGroup
	for name, operate := range clients {
		wg.Go(func() {
			n := 0
			for ; ctx.Err() == nil; n++ {
				if err := operate(); err != nil {
					t.Errorf("%s, operation %d: %v", name, n, err)
					return
				}
			}
			t.Logf("%s: %d operations", name, n)
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// sameConnection returns a function that makes a request and fails where it uses another
// connection than the first one.
func sameConnection(t *testing.T, c *http.Client, u *url.URL) func() error {
	t.Helper()
	var first uint64
	return func() error {
		got, err := fetchEcho(t.Context(), c, u, nil)
		if err != nil {
			return err
		}
		if first == 0 {
			first = got.ConnID
		}
		if got.ConnID != first {
			return fmt.Errorf("connection %d instead of %d", got.ConnID, first)
		}
		return nil
	}
}

// onConn makes HTTP/1.1 requests on one connection. http.Transport takes a new one where a
// busy machine has its goroutine of writes wait for 50 ms.
type onConn struct {
	net.Conn
	answers *bufio.Reader
}

func dialOnce(t *testing.T, address string) *onConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &onConn{conn, bufio.NewReader(conn)}
}

func (c *onConn) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Write(c); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.answers, req)
}

// unusedAddress returns an address without a listener.
func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
