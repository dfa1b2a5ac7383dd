package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

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

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// runCommand runs muxserve within this process.
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
		{[]string{"frobnicate"}, nil, `unknown command "frobnicate"; the commands are serve, check, probe, version`},
		{[]string{"--lisen", ":1"}, nil, "unknown flag --lisen; did you mean --listen?"},
		{[]string{"serve", "now"}, nil, `serve takes flags only, not "now"`},
		{[]string{"check", "now"}, nil, `check takes flags only, not "now"`},
		{[]string{"--listen"}, nil, "--listen needs a value: --listen ADDR"},
		{[]string{"--tls", "perhaps"}, nil, `--tls: "perhaps" is not one of off, self-signed, auto, manual, mutual`},
		{nil, map[string]string{"PORT": "http"}, `PORT: "http" is not a port from 0 to 65535`},
		{nil, map[string]string{"MUXSERVE_ADMIN": "x"}, `MUXSERVE_ADMIN: "x" is not HOST:PORT`},
		{[]string{"check", "--drain-delay", "1"}, nil, `--drain-delay: "1" is not a length of time`},
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
	for _, args := range [][]string{{"--help"}, {"help"}, {"serve", "-h"}, {"check", "--help"}, {"probe", "--help"}} {
		got := runCommand(t.Context(), nil, args...)
		for _, want := range []string{"muxserve probe [flags] ADDR", "--listen ADDR", "(default 127.0.0.1:8080)", "--service NAME"} {
			if got.code != exitOK || !strings.Contains(got.stdout, want) {
				t.Errorf("%q: %q is missing in %+v", args, want, got)
			}
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
		"address: 127.0.0.1:9000  # environment PORT\n", "mode: self-signed  # flag --tls\n", "timeout: 10s  # flag --drain-timeout\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is missing in:\n%s", want, got.stdout)
		}
	}
	if !strings.Contains(got.stderr, "muxserve: warning: drain.timeout 10s") {
		t.Errorf("no warning about the drain: %q", got.stderr)
	}
}

func TestCheckUnreadableCertificate(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	got := runCommand(t.Context(), nil, "check", "--tls-cert", missing, "--tls-key", missing)
	if got.code != exitFailed || !strings.Contains(got.stderr, missing) || got.stdout != "" {
		t.Errorf("%+v", got)
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
