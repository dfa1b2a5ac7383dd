package admin

import (
	"crypto/x509"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// fakeServer is a Server in one phase with the connections of [example].
type fakeServer struct {
	phase   lifecycle.Phase
	conns   []pool.Info
	history mux.History
}

func (f fakeServer) Phase() lifecycle.Phase     { return f.phase }
func (f fakeServer) ReadyHandler() http.Handler { return lifecycle.ReadyHandler(f.Phase) }

func (f fakeServer) Connections() []pool.Info { return append([]pool.Info(nil), f.conns...) }

func (f fakeServer) Ready() error             { return nil }
func (f fakeServer) Closed() []mux.ClosedConn { return nil }

func (f fakeServer) Disconnect(func(pool.Info) bool, time.Duration) int { return 0 }

func (f fakeServer) Config() mux.Config { return mux.DefaultConfig() }

func (f fakeServer) Listeners() iter.Seq2[net.Addr, listeners.Config] {
	return func(yield func(net.Addr, listeners.Config) bool) {
		yield(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, f.Config().Listeners[0].Shown())
	}
}

func (f fakeServer) DrainProgress() (mux.DrainProgress, bool) { return mux.DrainProgress{}, false }

func (f fakeServer) History() mux.History { return f.history }

func (f fakeServer) Certificates() map[string][]*x509.Certificate { return nil }

func (f fakeServer) Stats() mux.Stats {
	return mux.Stats{
		Phase:    f.phase,
		Started:  time.Now().Add(-time.Minute),
		Pools:    map[string]pool.Stats{"http1": {Active: 2, Accepted: 9}, "grpc": {Active: 1, Accepted: 1}},
		Rejected: map[string]map[string]uint64{"sniffing": {"silent": 4}},
	}
}

func (f fakeServer) Servers() []mux.ServerInfo {
	return []mux.ServerInfo{{
		ID: "http1", Protocol: "http1", Status: string(f.phase),
		Addresses: []string{"127.0.0.1:1"}, Connections: 2, Uptime: 90 * time.Second,
	}}
}

func example() fakeServer {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return fakeServer{
		phase:   lifecycle.PhaseServing,
		history: exampleHistory(),
		conns: []pool.Info{
			{ID: 1, Protocol: "http1", Opened: start.Add(time.Minute), BytesSent: 10},
			{ID: 2, Protocol: "grpc", Opened: start, BytesReceived: 500},
			{ID: 3, Protocol: "http1", Opened: start.Add(2 * time.Minute), BytesSent: 1000},
		},
	}
}

// get asks the handler over s for a path.
func get(t *testing.T, s Server, host, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	New(s, Options{Address: "admin.internal:8081", Version: "v1.2.3", Configuration: new(fakeConfiguration)}).ServeHTTP(w, r)
	return w
}

func TestPages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		path        string
		contentType string
		contains    string
	}{
		{"/", "text/html", "<title>muxserve admin</title>"},
		{"/livez", "text/plain", "ok"},
		{"/readyz", "text/plain", "ok"},
		{"/health", "application/json", `"phase":"serving"`},
		{"/servers", "application/json", `"uptime_seconds":90`},
		{"/connections", "application/json", `"total":3`},
		{"/config", "text/plain", "level: debug"},
		{"/metrics", "text/plain", `mux_connections_active{protocol="http1"} 2`},
		{"/metrics", "text/plain", "go_goroutines "},
		{"/metrics?format=json", "application/json", `"totals":{"phase":"serving"`},
		{"/debug/pprof/", "text/html", "goroutine"},
		{"/debug/pprof/goroutine?debug=1", "text/plain", "goroutine profile"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			w := get(t, example(), "127.0.0.1:8081", tt.path)
			if w.Code != http.StatusOK {
				t.Errorf("status %d", w.Code)
			}
			if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, tt.contentType) {
				t.Errorf("Content-Type %q, want %q", got, tt.contentType)
			}
			if !strings.Contains(w.Body.String(), tt.contains) {
				t.Errorf("%q is missing in:\n%s", tt.contains, w.Body)
			}
		})
	}
}

// TestNoStore: caches must not keep pages about the current state.
func TestNoStore(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/health", "/servers", "/connections", "/config", "/metrics", "/metrics?format=json"} {
		if got := get(t, example(), "localhost", path).Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q", path, got)
		}
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/nothing", "/debug/pprof/cmdline", "/debug/pprof/nothing"} {
		if w := get(t, example(), "localhost", path); w.Code != http.StatusNotFound {
			t.Errorf("%s answered %d", path, w.Code)
		}
	}
}

func TestPhases(t *testing.T) {
	t.Parallel()
	type codes struct{ Livez, Readyz, Health int }
	tests := map[lifecycle.Phase]codes{
		lifecycle.PhaseNew:      {200, 503, 503},
		lifecycle.PhaseServing:  {200, 200, 200},
		lifecycle.PhaseDraining: {200, 503, 503},
		lifecycle.PhaseStopped:  {200, 503, 503},
	}
	for phase, want := range tests {
		s := fakeServer{phase: phase}
		got := codes{
			get(t, s, "localhost", "/livez").Code,
			get(t, s, "localhost", "/readyz").Code,
			get(t, s, "localhost", "/health").Code,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", phase, diff)
		}
	}
}

// TestGuard: the pages do not answer to a name that a foreign page can own (DNS
// rebinding).
func TestGuard(t *testing.T) {
	t.Parallel()
	tests := []struct {
		host string
		want int
	}{
		{"127.0.0.1:8081", http.StatusOK},
		{"127.0.0.1", http.StatusOK},
		{"[::1]:8081", http.StatusOK},
		{"[::1]", http.StatusOK},
		{"10.1.2.3:8081", http.StatusOK},
		{"localhost:8081", http.StatusOK},
		{"LocalHost.", http.StatusOK},
		{"app.localhost", http.StatusOK},
		{"admin.internal:8081", http.StatusOK},
		{"Admin.Internal", http.StatusOK},
		{"", http.StatusOK},
		{"evil.example:8081", http.StatusForbidden},
		{"localhost.evil.example", http.StatusForbidden},
		{"127.0.0.1.evil.example", http.StatusForbidden},
		{"notlocalhost", http.StatusForbidden},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%q", tt.host), func(t *testing.T) {
			t.Parallel()
			if got := get(t, example(), tt.host, "/health").Code; got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

// TestProbesAndMetricsAnswerToEveryName: balancers and Prometheus may ask by any name. A page
// that has rebound its name gets probes alone: what a browser sends is not Prometheus's.
func TestProbesAndMetricsAnswerToEveryName(t *testing.T) {
	t.Parallel()
	pages := New(example(), Options{Address: "127.0.0.1:8081"})
	for _, tt := range []struct {
		path, header, value string
		want                int
	}{
		{"/livez", "", "", http.StatusOK},
		{"/readyz", "Accept-Language", "en", http.StatusOK},
		{"/metrics", "", "", http.StatusOK},
		{"/metrics?format=prometheus", "", "", http.StatusOK},
		{"/metrics", "Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1", http.StatusOK},
		{"/metrics", "Authorization", "Bearer x", http.StatusOK},
		{"/metrics", "Accept-Language", "*", http.StatusForbidden},
		{"/metrics", "Origin", "http://muxserve.monitoring.svc:8081", http.StatusForbidden},
		{"/metrics", "Referer", "http://muxserve.monitoring.svc:8081/", http.StatusForbidden},
		{"/metrics", "Sec-Fetch-Site", "same-origin", http.StatusForbidden},
		{"/metrics", "Sec-Ch-Ua", `"Chromium"`, http.StatusForbidden},
		{"/metrics", "Cookie", "a=b", http.StatusForbidden},
		{"/metrics", "Accept", "application/json", http.StatusForbidden},
		{"/metrics?format=json", "", "", http.StatusForbidden},
		{"/metrics?format=other", "", "", http.StatusForbidden},
		{"/", "", "", http.StatusForbidden},
		{"/health", "", "", http.StatusForbidden},
		{"/connections", "", "", http.StatusForbidden},
		{"/debug/pprof/", "", "", http.StatusForbidden},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, nil)
		r.Host = "muxserve.monitoring.svc:8081"
		if tt.header != "" {
			r.Header.Set(tt.header, tt.value)
		}
		w := httptest.NewRecorder()
		pages.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s by a name of a cluster with %s %q: got %d, want %d", tt.path, tt.header, tt.value, w.Code, tt.want)
		}
	}
}

// TestConfiguredHosts: the names of admin.hosts are answered, and no others.
func TestConfiguredHosts(t *testing.T) {
	t.Parallel()
	pages := New(example(), Options{Address: "127.0.0.1:8081", Configuration: &fakeConfiguration{hosts: []string{"a.example", "B.example"}}})
	for host, want := range map[string]int{
		"a.example": http.StatusOK, "A.Example:8081": http.StatusOK, "b.example.": http.StatusOK, "127.0.0.1": http.StatusOK,
		"c.a.example": http.StatusForbidden, "example": http.StatusForbidden,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health", nil)
		r.Host = host
		w := httptest.NewRecorder()
		pages.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", host, w.Code, want)
		}
		if want == http.StatusForbidden && !strings.Contains(w.Body.String(), "admin.hosts") {
			t.Errorf("%s: the refusal does not name the key: %s", host, w.Body)
		}
	}
}

// TestProtectAll: with admin.protect all, everything but the probes and the page, which has
// no data, asks for the token, of this machine, too.
func TestProtectAll(t *testing.T) {
	t.Parallel()
	paths := []string{"/health", "/servers", "/connections", "/metrics", "/metrics?format=json", "/config", "/debug/pprof/", "/debug/pprof/heap", "/nothing"}
	for _, tt := range []struct {
		all           bool
		authorization string
		refused       bool
	}{
		{true, "", true},
		{true, "Bearer x", true},
		{true, "Basic s3cret", true},
		{true, "Bearer s3cret", false},
		{false, "", false},
	} {
		c := &fakeConfiguration{token: "s3cret", protectAll: tt.all}
		bring := func(r *http.Request) {
			if tt.authorization != "" {
				r.Header.Set("Authorization", tt.authorization)
			}
		}
		for _, path := range paths {
			w := ask(t, c, http.MethodGet, path, bring)
			if refused := w.Code == http.StatusUnauthorized; refused != tt.refused {
				t.Errorf("all %v, %q, %s: status %d", tt.all, tt.authorization, path, w.Code)
			}
			if tt.refused && (w.Header().Get("WWW-Authenticate") == "" || !strings.Contains(w.Body.String(), "admin.token")) {
				t.Errorf("%s: the refusal does not say what is missing: %v %s", path, w.Header(), w.Body)
			}
		}
		for _, path := range []string{"/", "/page/main.js", "/page/page.css", "/page/tokens.css", "/livez", "/readyz"} {
			if w := ask(t, c, http.MethodGet, path, bring); w.Code != http.StatusOK {
				t.Errorf("all %v, %q, %s: status %d", tt.all, tt.authorization, path, w.Code)
			}
		}
	}
}
