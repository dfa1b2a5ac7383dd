//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// mute is a muxserve whose stderr is a pipe that was full before it started.
type mute struct {
	*running

	config, service string
	client, admin   *http.Client
	log             *os.File // the end of the pipe that is not read
}

// settings is the configuration, without what more adds.
func (m *mute) settings(dir, more string) string {
	return fmt.Sprintf("listeners: [{address: \"unix:%s\"}]\nadmin: {address: \"unix:%s\"}\ndrain: {delay: 0s, spread: 0s}\n%s",
		m.service, filepath.Join(dir, "a"), more)
}

func startMute(t *testing.T, more string) *mute {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	defer w.Close() // The process has its own.
	if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("full\n"), 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the pipe is not full: %v", err)
	}
	dir := socketDir(t)
	m := &mute{config: filepath.Join(dir, "c.yaml"), service: filepath.Join(dir, "s"), log: r}
	m.client, m.admin = freshClient(t, m.service), freshClient(t, filepath.Join(dir, "a"))
	m.configure(t, more)
	m.running, _ = launchAs(t, func(cmd *exec.Cmd) { cmd.Stderr = w }, nil, "--config", m.config, textLog)
	eventually(t, "it is ready", func() bool { return m.readiness(t) == http.StatusOK })
	return m
}

func (m *mute) configure(t *testing.T, more string) {
	t.Helper()
	if err := os.WriteFile(m.config, []byte(m.settings(filepath.Dir(m.config), more)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// page returns a page of the admin listener.
func (m *mute) page(t *testing.T, path string) string {
	t.Helper()
	_, data, err := fetch(t.Context(), m.admin, http.MethodGet, mustURL(t, "http://localhost/"+path), nil)
	if err != nil {
		return ""
	}
	return string(data)
}

func (m *mute) readiness(t *testing.T) int {
	t.Helper()
	status, _, err := fetch(t.Context(), m.admin, http.MethodGet, mustURL(t, "http://localhost/readyz"), nil)
	if err != nil {
		return 0
	}
	return status
}

// TestFullLogPipe: with stderr a full pipe that nobody reads, a reload takes effect, SIGTERM
// begins the drain, /readyz turns 503, and a second SIGTERM ends the process.
func TestFullLogPipe(t *testing.T) {
	t.Parallel()
	m := startMute(t, "")
	m.configure(t, "limits: {max_connections: 77}\n")
	m.signal(t, syscall.SIGHUP)
	eventually(t, "the reload is in force", func() bool { return strings.Contains(m.page(t, "config"), "max_connections: 77") })
	slow := slowRequest(t.Context(), m.client, mustURL(t, "http://localhost"), time.Minute)
	eventually(t, "the request is active", func() bool { return strings.Contains(m.page(t, "connections"), `"active"`) })
	m.signal(t, syscall.SIGTERM)
	eventually(t, "not ready", func() bool { return m.readiness(t) == http.StatusServiceUnavailable })
	m.signal(t, syscall.SIGTERM)
	if code := m.wait(t); code != exitSignalled+int(syscall.SIGTERM) {
		t.Errorf("exit code %d", code)
	}
	if err := <-slow; err == nil {
		t.Error("the request of a minute was answered")
	}
}

// droppedLines finds the number in the metric of the access log.
var droppedLines = regexp.MustCompile(`(?m)^mux_log_lines_dropped_total\{log="access"\} (\d+)$`)

// TestLogPipeFreed: lines that a full pipe keeps out are counted by a metric and, when the
// pipe flows again, in one line. No request waits.
func TestLogPipeFreed(t *testing.T) {
	t.Parallel()
	m := startMute(t, "log: {access: true}\n")
	if got := droppedLines.FindStringSubmatch(m.page(t, "metrics")); got == nil || got[1] != "0" {
		t.Errorf("the metric begins with %q", got)
	}
	pipeline(t, m.service, 9000) // Twice 4096 lines may wait.
	got := droppedLines.FindStringSubmatch(m.page(t, "metrics"))
	if got == nil || got[1] == "0" {
		t.Fatalf("no line was dropped: %q", got)
	}
	var log lockedBuffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&log, m.log)
	}()
	want := fmt.Sprintf("level=WARN msg=\"log lines dropped\" pid=%d log=access count=%s\n", m.cmd.Process.Pid, got[1])
	eventually(t, "the log tells of the dropped lines", func() bool { return strings.Contains(log.String(), want) })
	m.signal(t, syscall.SIGTERM)
	if code := m.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	<-read
	if n := strings.Count(log.String(), "log lines dropped"); n != 1 {
		t.Errorf("%d lines tell of dropped ones, want 1", n)
	}
	if !strings.Contains(log.String(), "phase=stopped") {
		t.Error("the last line is missing")
	}
}

// pipeline makes n requests on one connection and does not wait in between.
func pipeline(t *testing.T, socket string, n int) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(context.Background(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, strings.Repeat("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", n)) }()
	r := bufio.NewReader(conn)
	for range n {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// TestStartLine: one line tells what is served and with which configuration, every line has
// the process's id, and without a terminal stdout has the addresses and no more.
func TestStartLine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "c.yaml")
	const text = `listeners:
  - {address: "127.0.0.1:0", protocols: [http1, grpc], tls: {mode: self-signed}}
  - {address: "127.0.0.1:0", proxy_protocol: {mode: required, trusted: [127.0.0.1]}}
admin: {address: "127.0.0.1:0"}
limits: {max_connections: 77}
drain: {delay: 0s}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, lines := launch(t, nil, "--config", file)
	p.logged(t, `"msg":"serving"`, 1)
	var printed []string
	for len(printed) < 3 {
		printed = append(printed, <-lines)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for line := range lines {
		printed = append(printed, line)
	}
	at := func(i int) string {
		_, address, _ := strings.Cut(printed[i], "://")
		return address
	}
	var starts []map[string]any
	for line := range strings.Lines(p.stderr.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if entry["pid"] != float64(p.cmd.Process.Pid) {
			t.Errorf("pid %v in %s", entry["pid"], line)
		}
		if entry["msg"] == "serving" {
			starts = append(starts, entry)
			for _, key := range []string{"time", "build", "pid"} {
				if entry[key] == nil {
					t.Errorf("%s is missing in %s", key, line)
				}
				delete(entry, key)
			}
		}
	}
	want := []map[string]any{{
		"level": "INFO", "msg": "serving", "config_file": file, "admin": at(2), "max_connections": 77.0,
		"listeners": []any{
			map[string]any{"address": at(0), "protocols": []any{"http1", "grpc"}, "tls": "self-signed", "proxy_protocol": "off"},
			map[string]any{
				"address": at(1), "protocols": []any{"http1", "http2", "grpc", "websocket"}, "tls": "off", "proxy_protocol": "required",
			},
		},
	}}
	if diff := cmp.Diff(want, starts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(printed) != 3 {
		t.Errorf("stdout has %d lines:\n%s", len(printed), strings.Join(printed, "\n"))
	}
}

// TestStartLineInText: the listeners are words in text.
func TestStartLineInText(t *testing.T) {
	t.Parallel()
	p := start(t, textLog, "--protocols=http1,http2")
	p.logged(t, fmt.Sprintf(`listeners="[%s http1,http2 tls=off proxy_protocol=off]"`, p.service.Host), 1)
}
