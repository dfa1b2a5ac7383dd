package settings

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// writeConfig writes a configuration file and returns its name.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// loadText loads settings from a file with this text.
func loadText(t *testing.T, text string, args ...string) (s *Settings, name string, err error) {
	t.Helper()
	name = writeConfig(t, text)
	s, err = loadFrom(t, append([]string{"--config", name}, args...), nil)
	return s, name, err
}

func TestFile(t *testing.T) {
	t.Parallel()
	got, name, err := loadText(t, `
listeners:
  - address: 127.0.0.1:1
    protocols: [http1, grpc]
    tls: {mode: mutual, cert: c.pem, key: k.pem, client_ca: ca.pem, min_version: "1.3"}
  - {tls: {}, address: "unix:/run/m.sock", proxy_protocol: {mode: required, trusted: [unix]}}
admin: {address: off}
watch: true
limits: {max_connections: 0, on_limit: wait}
http1:
  max_connections: null
  idle_timeout: 1m30s
  max_age: 0
http2:
websocket: {origin_patterns: ["*.example.org"], read_limit: -1}
health: {degraded_above: 0.5}
drain: {skip_steps: [announce], accept_during_delay: false}
log: {level: debug}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Mux.Listeners = []listeners.Config{
		{
			Address: "127.0.0.1:1", Protocols: []string{"http1", "grpc"}, TCPKeepalive: listeners.DefaultConfig().TCPKeepalive,
			TLS: listeners.TLSConfig{Mode: "mutual", Cert: "c.pem", Key: "k.pem", ClientCA: "ca.pem", MinVersion: "1.3"},
		},
		{Address: "unix:/run/m.sock", TCPKeepalive: listeners.DefaultConfig().TCPKeepalive, ProxyProtocol: listeners.ProxyConfig{Mode: "required", Trusted: []string{"unix"}}},
	}
	want.Admin.Address = Off
	want.Watch = true
	want.Mux.Limits.MaxConnections, want.Mux.Limits.OnLimit = 0, "wait"
	want.Mux.HTTP1.IdleTimeout = 90 * time.Second
	want.Mux.WebSocket.OriginPatterns, want.Mux.WebSocket.ReadLimit = []string{"*.example.org"}, -1
	want.Mux.Health.DegradedAbove = 0.5
	want.Mux.Drain.SkipSteps, want.Mux.Drain.AcceptDuringDelay = []string{"announce"}, false
	want.Log.Level = -4
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Settings{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for path, line := range map[string]string{
		"listeners[1].address": ":6", "listeners[0].tls.min_version": ":5", "http1.idle_timeout": ":12",
	} {
		if diff := cmp.Diff(name+line, got.source(path)); diff != "" {
			t.Errorf("origin of %s (-want +got):\n%s", path, diff)
		}
	}
	for _, path := range []string{"http1.max_connections", "listeners[1].tls.cert", "http1.header_timeout"} {
		if got := got.source(path); got != "default" {
			t.Errorf("%s was not set, but by %s", path, got)
		}
	}
}

func TestFileThatSaysNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "null\n", "{}", "listeners:\nhttp1: {}\n", "\ufeff# byte order mark\n"} {
		got, _, err := loadText(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(Default(), got, cmpopts.IgnoreUnexported(Settings{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// TestFileThatHasBecomeBlank: a file that had content, and has none now, is refused. One that
// never had any stays in force.
func TestFileThatHasBecomeBlank(t *testing.T) {
	t.Parallel()
	blank := []string{"", "\n", "# nothing\n", "---\n", "null\n", "\ufeff# byte order mark\n"}
	for _, text := range append(blank, "{}", "http1: {}\n") {
		s, err := loadBytes([]byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if _, err := s.Reload(); err != nil {
			t.Errorf("%q again: %v", text, err)
		}
		s.inputs.read = func(string) ([]byte, error) { return []byte("log: {access: true}\n"), nil }
		if s, err = s.Reload(); err != nil {
			t.Fatal(err)
		}
		reads := 0
		s.inputs.read = func(string) ([]byte, error) {
			reads++
			return []byte(text), nil
		}
		want := "<nil>"
		if slices.Contains(blank, text) {
			want = "f.yaml:1: " + textEmpty
		}
		if _, err := s.Reload(); fmt.Sprint(err) != want || reads != 1 {
			t.Errorf("%q in the place of content: %v, read %d times", text, err, reads)
		}
	}
}

func TestFileIsJSONToo(t *testing.T) {
	t.Parallel()
	got, _, err := loadText(t, "{\n\t\"drain\": {\n\t\t\"delay\": \"1s\"\n\t},\n\t\"admin\": {\"address\": \"off\"}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Mux.Drain.Delay != time.Second || got.Admin.Address != Off {
		t.Errorf("drain.delay %v, admin.address %q", got.Mux.Drain.Delay, got.Admin.Address)
	}
}

// TestFilePrecedence covers listeners, where flags set all elements of the file's list.
func TestFilePrecedence(t *testing.T) {
	t.Parallel()
	const file = `listeners:
  - {address: "127.0.0.1:1", tls: {mode: self-signed}}
  - {address: "unix:/a"}
drain: {delay: 1s, spread: 2s}
`
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want []string // address and TLS mode of the listeners
	}{
		{"file", nil, nil, []string{"127.0.0.1:1 self-signed", "unix:/a off"}},
		{"flag for all", []string{"--tls=off"}, nil, []string{"127.0.0.1:1 off", "unix:/a off"}},
		{"fewer addresses", []string{"--listen=:3"}, nil, []string{":3 self-signed"}},
		{"more addresses", []string{"--listen=:3", "--listen=:4", "--listen=:5"}, nil, []string{":3 self-signed", ":4 off", ":5 off"}},
		{"PORT", nil, map[string]string{"PORT": "9000"}, []string{"127.0.0.1:9000 self-signed", "unix:/a off"}},
		{"IP in vain", []string{"--listen=unix:/b"}, map[string]string{"IP": "::1"}, []string{"unix:/b self-signed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"MUXSERVE_CONFIG": writeConfig(t, file), "MUXSERVE_DRAIN_DELAY": "3s"}
			maps.Copy(env, tt.env)
			s, err := loadFrom(t, tt.args, env)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range s.Mux.Listeners {
				got = append(got, l.Address+" "+l.Shown().TLS.Mode)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("listeners (-want +got):\n%s", diff)
			}
			if s.Mux.Drain.Delay != 3*time.Second || s.Mux.Drain.Spread != 2*time.Second {
				t.Errorf("drain.delay %v, drain.spread %v; the environment wins over the file, and the file over the default",
					s.Mux.Drain.Delay, s.Mux.Drain.Spread)
			}
		})
	}
}

// TestProfile: the file and the flags win over the numbers of a profile.
func TestProfile(t *testing.T) {
	t.Parallel()
	nlb, err := lifecycle.Profile("nlb")
	if err != nil {
		t.Fatal(err)
	}
	nlb.Spread = time.Second
	nlb.StepTimeout = 2 * time.Second
	for _, tt := range []struct {
		text string
		args []string
	}{
		{"drain: {spread: 1s, profile: nlb, step_timeout: 2s}", nil},
		{"drain: {spread: 1s, profile: k8s, step_timeout: 2s}", []string{"--drain-profile=nlb"}},
	} {
		got, _, err := loadText(t, tt.text, tt.args...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(nlb, got.Mux.Drain); diff != "" {
			t.Errorf("%s %q (-want +got):\n%s", tt.text, tt.args, diff)
		}
		if diff := cmp.Diff("profile nlb", got.source("drain.delay")); diff != "" {
			t.Errorf("origin of drain.delay (-want +got):\n%s", diff)
		}
	}
}

// TestEdge: the profile edge sets the defaults of mux.Edge, from the file and by its flag,
// and keys beside it win.
func TestEdge(t *testing.T) {
	t.Parallel()
	const seven = "http1: {max_connections: 7}\n"
	want := Default().Mux
	mux.Edge(&want)
	want.HTTP1.MaxConnections = 7
	for _, tt := range []struct {
		text string
		args []string
	}{
		{seven + "profile: edge\n", nil},
		{seven, []string{"--profile=edge"}},
		{seven + "profile: \"\"\n", []string{"--profile=edge"}},
	} {
		got, _, err := loadText(t, tt.text, tt.args...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Mux); diff != "" {
			t.Errorf("%s %q (-want +got):\n%s", tt.text, tt.args, diff)
		}
		for key, want := range map[string]string{"http2.max_connections": "profile edge", "http2.idle_timeout": "default"} {
			if source := got.source(key); source != want {
				t.Errorf("origin of %s: %s, want %s", key, source, want)
			}
		}
	}
	if s, err := loadFrom(t, nil, map[string]string{"MUXSERVE_PROFILE": "edge"}); err != nil || s.Mux.HTTP2.MaxStreams != want.HTTP2.MaxStreams {
		t.Errorf("by the variable: %v", err)
	}
	for text, args := range map[string][]string{"profile: egde\n": nil, "": {"--profile=egde"}} {
		if _, _, err := loadText(t, text, args...); err == nil || !strings.Contains(err.Error(), "profile") {
			t.Errorf("a misspelt profile: %v", err)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	name := writeConfig(t, "drain: {delay: 1s}\n")
	s, err := loadFrom(t, []string{"--config", name, "--drain-spread=3s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.ConfigFile() != name {
		t.Errorf("the file is %q, want %q", s.ConfigFile(), name)
	}
	if err := os.WriteFile(name, []byte("drain: {delay: 2s, spread: 4s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := s.Reload()
	if err != nil {
		t.Fatal(err)
	}
	got := []time.Duration{s.Mux.Drain.Delay, again.Mux.Drain.Delay, again.Mux.Drain.Spread}
	if diff := cmp.Diff([]time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, got); diff != "" {
		t.Errorf("delay before and after, spread after (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(name, []byte("drian: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Reload(); err == nil || !strings.Contains(err.Error(), name+":1: drian: unknown key; did you mean drain?") {
		t.Errorf("error %v", err)
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	s, name, err := loadText(t, "listeners:\n  - tls:\n      cert: /missing/c.pem\n      key: k.pem\n")
	if err != nil {
		t.Fatal(err)
	}
	_, err = listeners.NewTLS(s.Mux.Listeners[0].TLS)
	want := name + ":3: listeners[0].tls.cert: "
	if err := s.Locate("listeners[0]", err); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want it to begin with %q", err, want)
	}
}
