package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func mustAddrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// result is the result of a command.
type result struct {
	code           int
	stdout, stderr string
}

// runCommand runs muxserve in this process.
func runCommand(ctx context.Context, vars map[string]string, args ...string) result {
	var stdout, stderr strings.Builder
	code := run(ctx, args, environment{
		getenv: func(name string) string { return vars[name] },
		stdout: &stdout,
		stderr: &stderr,
	})
	return result{code, stdout.String(), stderr.String()}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		vars map[string]string
		want string
	}{
		{[]string{"server"}, nil, `unknown command "server"; did you mean serve?`},
		{[]string{"frobnicate"}, nil, `unknown command "frobnicate"; the commands are serve, check, probe, ctl, version`},
		{[]string{"--lisen", ":1"}, nil, "unknown flag --lisen; did you mean --listen?"},
		{[]string{"serve", "now"}, nil, `serve takes flags only, not "now"`},
		{[]string{"check", "now"}, nil, `check takes flags only, not "now"`},
		{[]string{"--listen"}, nil, "--listen needs a value: --listen ADDR"},
		{[]string{"--tls", "perhaps"}, nil, `--tls: "perhaps" is not one of off, self-signed, auto, manual, mutual`},
		{nil, map[string]string{"PORT": "http"}, `PORT: "http" is not a port from 0 to 65535`},
		{nil, map[string]string{"MUXSERVE_ADMIN": "x"}, `MUXSERVE_ADMIN: "x" is not HOST:PORT`},
		{[]string{"check", "--drain-delay", "1"}, nil, `--drain-delay: "1" is not a length of time`},
		{[]string{"man", "now"}, nil, "man takes no arguments"},
		{[]string{"help", "me"}, nil, "help takes nothing, or flags"},
		{[]string{"completion"}, nil, "completion needs the name of a shell"},
		{[]string{"completion", "csh"}, nil, `completion: "csh" is not one of bash, zsh, fish`},
		{[]string{"--config", "/missing"}, nil, "--config: stat /missing: no such file or directory"},
		{[]string{"version", "now"}, nil, "version takes no arguments"},
		{[]string{"probe"}, nil, "probe needs one address"},
		{[]string{"probe", "a:1", "b:2"}, nil, "probe needs one address"},
		{[]string{"probe", "localhost"}, nil, `"localhost" is not HOST:PORT`},
		{[]string{"probe", "--path", "x", ":1"}, nil, `--path: "x" does not begin with a slash`},
		{[]string{"probe", "--insecure", ":1"}, nil, "--insecure has no effect without --tls"},
		{[]string{"probe", "--service", "x", ":1"}, nil, "--service has no effect without --grpc"},
		{[]string{"probe", "--timeout", "5", ":1"}, nil, `--timeout: "5" is not a time`},
		{[]string{"probe", "--grcp", ":1"}, nil, "unknown flag --grcp; did you mean --grpc?"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			got := runCommand(t.Context(), tt.vars, tt.args...)
			if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "muxserve: "+tt.want) {
				t.Errorf("got %+v, want exit code 2 and %q", got, tt.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	all := [][]string{
		{"--listen ADDR", "(default 127.0.0.1:8080)", "[MUXSERVE_TLS_CERT]", "--service NAME"},
		{"muxserve probe [flags] ADDR", "--listen ADDR", "--drain-spread TIME"},
		{"muxserve probe [flags] ADDR", "--service NAME", "(default /readyz)"},
	}
	tests := map[string][]string{
		"help flags": all[0],
		"--help":     all[1], "help": all[1], "serve -h": all[1], "check --help": all[1], "completion --help": all[1],
		"probe --help": all[2],
	}
	for args, wants := range tests {
		got := runCommand(t.Context(), nil, strings.Fields(args)...)
		for _, want := range wants {
			if got.code != exitOK || !strings.Contains(got.stdout, want) {
				t.Errorf("%q: %q is missing in %+v", args, want, got)
			}
		}
	}
}

// TestHelpFitsAScreen: the help leaves one line of the smallest terminal for the prompt.
func TestHelpFitsAScreen(t *testing.T) {
	t.Parallel()
	const lines, columns = 23, 80
	got := runCommand(t.Context(), nil, "--help")
	if n := strings.Count(got.stdout, "\n"); n > lines {
		t.Errorf("%d lines, want %d:\n%s", n, lines, got.stdout)
	}
	for line := range strings.Lines(got.stdout) {
		if n := utf8.RuneCountInString(line) - 1; n > columns {
			t.Errorf("%d columns, want %d: %s", n, columns, line)
		}
	}
}

// TestManualPage compares the committed page with the printed one.
func TestManualPage(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(filepath.Join("man", "muxserve.1"))
	if err != nil {
		t.Fatal(err)
	}
	got := runCommand(t.Context(), nil, "man")
	if diff := cmp.Diff(string(want), got.stdout); diff != "" {
		t.Errorf("man/muxserve.1 is out of date; run go run ./cmd/muxserve man >cmd/muxserve/man/muxserve.1 (-committed +printed):\n%s", diff)
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		return
	}
	cmd := exec.CommandContext(t.Context(), groff, "-man", "-Tascii", "-ww", "-z")
	cmd.Stdin = strings.NewReader(got.stdout)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		got := runCommand(t.Context(), nil, "completion", shell)
		if got.code != exitOK || !strings.Contains(got.stdout, "tls-cert") || !strings.Contains(got.stdout, "self-signed") {
			t.Errorf("%s: %+v", shell, got)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"version", "--version"} {
		got := runCommand(t.Context(), nil, arg)
		if got.code != exitOK || !strings.HasPrefix(got.stdout, "muxserve ") || !strings.Contains(got.stdout, "\nrevision ") {
			t.Errorf("%s: %+v", arg, got)
		}
	}
}

func TestPrintVersion(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	printVersion(&out, &debug.BuildInfo{
		Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-01T00:00:00Z"}, {Key: "vcs.modified", Value: "true"},
		},
	})
	lines := strings.Split(out.String(), "\n")
	got := []string{lines[0], lines[2]}
	if diff := cmp.Diff([]string{"muxserve v1.2.3", "revision abc of 2026-01-01T00:00:00Z, modified"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	printVersion(&out, nil)
	if !strings.HasPrefix(out.String(), "muxserve unknown\n") || !strings.HasSuffix(out.String(), "\nrevision unknown\n") {
		t.Errorf("without build information: %q", &out)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	got := runCommand(t.Context(), map[string]string{"PORT": "9000"}, "check", "--tls", "self-signed", "--drain-timeout", "10s")
	if got.code != exitOK {
		t.Fatalf("%+v", got)
	}
	for _, want := range []string{
		"address: \":9000\"  # environment PORT\n", "mode: self-signed  # flag --tls\n", "timeout: 10s  # flag --drain-timeout\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is missing in:\n%s", want, got.stdout)
		}
	}
	if !strings.Contains(got.stderr, "muxserve: warning: drain.timeout 10s") {
		t.Errorf("no warning about the drain: %q", got.stderr)
	}
}

// TestCheckHerd: more connections than any machine has time to serve handshakes for.
func TestCheckHerd(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "herd.yaml")
	if err := os.WriteFile(config, []byte("limits: {max_connections: 1000000000}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runCommand(t.Context(), nil, "check", "--config", config, "--drain-spread=5s")
	const want = "muxserve: warning: drain.spread 5s makes a herd: 1000000000 connections over 5s are 200000000 reconnects a second"
	if got.code != exitOK || !strings.Contains(got.stderr, want) {
		t.Errorf("%+v, want exit code 0 and %q", got, want)
	}
}

// TestCheckUnreadableCertificates: every listener with a bad certificate is reported with
// its line.
func TestCheckUnreadableCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing, file := filepath.Join(dir, "missing.pem"), filepath.Join(dir, "muxserve.yaml")
	const text = `listeners:
  - address: 127.0.0.1:1
    tls: {mode: self-signed}
  - address: 127.0.0.1:2
    tls:
      cert: missing.pem
      key: missing.pem
  - address: 127.0.0.1:3
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runCommand(t.Context(), nil, "check", "--config", file)
	if want := "muxserve: " + file + ":6: listeners[1].tls.cert: "; got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, want) {
		t.Errorf("%+v, want %q", got, want)
	}
	got = runCommand(t.Context(), nil, "check", "--tls-cert", missing, "--tls-key", missing)
	if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, missing) || !strings.Contains(got.stderr, "--tls-cert") {
		t.Errorf("%+v", got)
	}
}

func TestCheckFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(file, []byte("drain:\n  delay: 1s\n  spread: 2s\nadmin: {token: s3cret}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runCommand(t.Context(), map[string]string{"MUXSERVE_CONFIG": file, "MUXSERVE_ADMIN": "off"}, "check", "--drain-delay=3s")
	if got.code != exitOK || strings.Contains(got.stdout, "s3cret") {
		t.Fatalf("%+v", got)
	}
	for _, want := range []string{
		"  delay: 3s  # flag --drain-delay\n", "  spread: 2s  # " + file + ":3\n", "  address: off  # environment MUXSERVE_ADMIN\n", "  timeout: 30s  # default\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is missing in:\n%s", want, got.stdout)
		}
	}
}

func TestProbeHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			_, _ = w.Write([]byte("ok\n"))
		case "/moved":
			http.Redirect(w, r, "/readyz", http.StatusFound)
		default:
			http.Error(w, "draining", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()
	tests := []struct {
		args []string
		want result
	}{
		{nil, result{exitOK, "200 OK ok\n", ""}},
		{[]string{"--path", "/down"}, result{exitFailed, "", "muxserve: probe " + addr + ": 503 Service Unavailable draining\n"}},
	}
	for _, tt := range tests {
		got := runCommand(t.Context(), nil, append(append([]string{"probe"}, tt.args...), addr)...)
		if got != tt.want {
			t.Errorf("probe %q: %+v, want %+v", tt.args, got, tt.want)
		}
	}
	if got := runCommand(t.Context(), nil, "probe", "--path=/moved", addr); got.code != exitFailed || !strings.Contains(got.stderr, "302") {
		t.Errorf("a redirect passes for healthy: %+v", got)
	}
}

func TestProbeNobody(t *testing.T) {
	t.Parallel()
	nobody := "unix:" + filepath.Join(t.TempDir(), "nobody")
	for _, kind := range []string{"--grpc=false", "--grpc"} {
		got := runCommand(t.Context(), nil, "probe", kind, "--timeout=2s", nobody)
		if got.code != exitFailed || !strings.Contains(got.stderr, "nobody") {
			t.Errorf("%s: %+v", kind, got)
		}
	}
}
