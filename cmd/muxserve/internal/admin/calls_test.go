package admin

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// actor is a Server and a Process that records what it is told.
type actor struct {
	fakeServer

	mu    sync.Mutex // guards what follows
	said  []string
	ready error
	level slog.Level
}

func (a *actor) say(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = append(a.said, what)
}

func (a *actor) Ready() error { return a.ready }

func (a *actor) ReadyHandler() http.Handler { return lifecycle.ReadyHandler(a.Phase, a.Ready) }

func (a *actor) SetReady(ready bool) error {
	a.ready = nil
	if !ready {
		a.ready = errors.New("switched off")
	}
	a.say("ready " + strconv.FormatBool(ready))
	return nil
}

func (a *actor) Disconnect(which func(pool.Info) bool, patience time.Duration) int {
	n := 0
	for _, c := range a.Connections() {
		if which(c) {
			n++
		}
	}
	a.say("patience " + patience.String())
	return n
}

func (a *actor) Closed() []mux.ClosedConn {
	return []mux.ClosedConn{
		{ID: 2, Outcome: mux.EndRefused, Reason: "no_match", RemoteAddr: "192.0.2.1:1", Closed: exampleTime},
		{ID: 1, Outcome: mux.EndClosed, Reason: "peer_closed", RemoteAddr: "192.0.2.2:1", Closed: exampleTime},
	}
}

func (a *actor) Drain(origin string) bool {
	if a.phase != lifecycle.PhaseServing {
		return false
	}
	a.say("drain by " + origin)
	return true
}

func (a *actor) LogLevel() slog.Level                    { return a.level }
func (a *actor) SetLogLevel(level slog.Level, by string) { a.level = level; a.say("level by " + by) }

// peers are connections with addresses.
func peers(phase lifecycle.Phase) *actor {
	f := example()
	f.phase = phase
	f.conns = []pool.Info{
		{ID: 7, Protocol: "http1", RemoteAddr: "192.0.2.1:4711"},
		{ID: 8, Protocol: "grpc", RemoteAddr: "192.0.2.1:4712"},
		{ID: 9, Protocol: "http1", RemoteAddr: "[2001:db8::1]:4711"},
		{ID: 10, Protocol: "http1", RemoteAddr: "[::ffff:198.51.100.7]:1"},
		{ID: 11, Protocol: "http1", RemoteAddr: "@"},
		{ID: 12, Protocol: "sniffing"},
	}
	return &actor{fakeServer: f}
}

// call sends a request of this machine to an actor's pages.
func call(t *testing.T, a *actor, method, path string) (status int, answer string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:8081"+path, nil)
	r.RemoteAddr = "127.0.0.1:4242"
	w := httptest.NewRecorder()
	New(a, Options{Version: "v1.2.3", Configuration: new(fakeConfiguration), Process: a}).ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestCalls(t *testing.T) {
	t.Parallel()
	const serving, draining, stopped = lifecycle.PhaseServing, lifecycle.PhaseDraining, lifecycle.PhaseStopped
	const by = "admin listener, 127.0.0.1"
	tests := []struct {
		phase        lifecycle.Phase
		method, path string
		status       int
		answer       string
		said         []string
	}{
		{serving, "POST", "/drain", 202, `{"phase":"draining"}`, []string{"drain by " + by}},
		{draining, "POST", "/drain", 409, `{"error":"the server is draining already"}`, nil},
		{lifecycle.PhaseNew, "POST", "/drain", 409, `{"error":"the server does not serve yet"}`, nil},
		{serving, "POST", "/ready?state=off", 200, `{"ready":false,"reason":"switched off"}`, []string{"ready false"}},
		{serving, "POST", "/ready?state=on", 200, `{"ready":true}`, []string{"ready true"}},
		{draining, "POST", "/ready?state=on", 409, `{"error":"the server is draining already"}`, nil},
		{stopped, "POST", "/ready?state=off", 409, `{"error":"the server is stopped already"}`, nil},
		{serving, "POST", "/ready", 400, `{"error":"state: \"\" is not one of off, on"}`, nil},
		{serving, "POST", "/ready?state=maybe", 400, `{"error":"state: \"maybe\" is not one of off, on"}`, nil},
		{serving, "POST", "/log?level=WARN", 200, `{"level":"warn"}`, []string{"level by " + by}},
		{draining, "POST", "/log?level=debug", 200, `{"level":"debug"}`, []string{"level by " + by}},
		{serving, "POST", "/log?level=loud", 400, `{"error":"level: \"loud\" is not one of debug, info, warn, error"}`, nil},
		{serving, "POST", "/log?level=info%2B1", 400, `{"error":"level: \"info+1\" is not one of debug, info, warn, error"}`, nil},
		{serving, "DELETE", "/connections/7", 200, `{"closed":1,"patience_seconds":1}`, []string{"patience 1s"}},
		{draining, "DELETE", "/connections/7?patience=0s", 200, `{"closed":1,"patience_seconds":0}`, []string{"patience 0s"}},
		{serving, "DELETE", "/connections/70", 404, `{"error":"no open connection has the id 70"}`, []string{"patience 1s"}},
		{serving, "DELETE", "/connections/x", 400, `{"error":"id: \"x\" is not the number of a connection"}`, nil},
		{serving, "DELETE", "/connections/-1", 400, `{"error":"id: \"-1\" is not the number of a connection"}`, nil},
		{serving, "DELETE", "/connections?peer=192.0.2.1", 200, `{"closed":2,"patience_seconds":1}`, []string{"patience 1s"}},
		{serving, "DELETE", "/connections?peer=192.0.2.1:4712&patience=1m", 200, `{"closed":1,"patience_seconds":60}`, []string{"patience 1m0s"}},
		{serving, "DELETE", "/connections?peer=192.0.2.0/24", 200, `{"closed":2,"patience_seconds":1}`, []string{"patience 1s"}},
		{serving, "DELETE", "/connections?peer=2001:db8::1", 200, `{"closed":1,"patience_seconds":1}`, []string{"patience 1s"}},
		{serving, "DELETE", "/connections?peer=198.51.100.7", 200, `{"closed":1,"patience_seconds":1}`, []string{"patience 1s"}},
		{serving, "DELETE", "/connections?peer=198.51.100.8", 404, `{"error":"no open connection has the peer 198.51.100.8"}`, []string{"patience 1s"}},
		{serving, "DELETE", "/connections", 400, `{"error":"peer: \"\" is not an address such as 192.0.2.1, 192.0.2.1:4711 or 192.0.2.0/24"}`, nil},
		{serving, "DELETE", "/connections?peer=all", 400, `{"error":"peer: \"all\" is not an address such as 192.0.2.1, 192.0.2.1:4711 or 192.0.2.0/24"}`, nil},
		{serving, "DELETE", "/connections/7?patience=2h", 400, `{"error":"patience: \"2h\" is not a length of time from 0s to 1h, such as 10s"}`, nil},
		{serving, "DELETE", "/connections/7?patience=5", 400, `{"error":"patience: \"5\" is not a length of time from 0s to 1h, such as 10s"}`, nil},
		{serving, "GET", "/connections?peer=x", 400, `{"error":"peer: \"x\" is not an address such as 192.0.2.1, 192.0.2.1:4711 or 192.0.2.0/24"}`, nil},
		{serving, "GET", "/closed?limit=0", 400, `{"error":"limit: \"0\" is not a number from 1 to 10000"}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path+" "+string(tt.phase), func(t *testing.T) {
			t.Parallel()
			a := peers(tt.phase)
			status, answer := call(t, a, tt.method, tt.path)
			if status != tt.status || answer != tt.answer {
				t.Errorf("got %d %s, want %d %s", status, answer, tt.status, tt.answer)
			}
			if !slices.Equal(a.said, tt.said) {
				t.Errorf("did %q, want %q", a.said, tt.said)
			}
		})
	}
}

// TestCallsNeedPermission: each call asks for its method and the token, and says which key
// has it.
func TestCallsNeedPermission(t *testing.T) {
	t.Parallel()
	for path, method := range map[string]string{
		"/drain": http.MethodPost, "/ready?state=off": http.MethodPost, "/log?level=debug": http.MethodPost,
		"/config/reload": http.MethodPost, "/config/rollback?version=1": http.MethodPost,
		"/connections/7": http.MethodDelete, "/connections?peer=192.0.2.1": http.MethodDelete,
	} {
		for _, tt := range []struct {
			method, token, authorization, remote string
			status                               int
			says                                 string
		}{
			{method, "s3cret", "", "127.0.0.1:1", 401, "admin.token"},
			{method, "s3cret", "Bearer x", "127.0.0.1:1", 401, "admin.token"},
			{method, "", "", "192.0.2.9:1", 403, "admin.token"},
			{http.MethodPut, "", "", "127.0.0.1:1", 405, ""},
		} {
			a := peers(lifecycle.PhaseServing)
			c := &fakeConfiguration{token: tt.token}
			r := httptest.NewRequestWithContext(t.Context(), tt.method, "http://127.0.0.1:8081"+path, nil)
			r.RemoteAddr = tt.remote
			if tt.authorization != "" {
				r.Header.Set("Authorization", tt.authorization)
			}
			w := httptest.NewRecorder()
			New(a, Options{Configuration: c, Process: a}).ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("%s %s: got %d %s, want %d that names %q", tt.method, path, w.Code, w.Body, tt.status, tt.says)
			}
			if a.said != nil || c.origin != "" {
				t.Errorf("%s %s: did %q", tt.method, path, a.said)
			}
		}
	}
}

func TestConnectionsOfAPeer(t *testing.T) {
	t.Parallel()
	_, answer := call(t, peers(lifecycle.PhaseServing), http.MethodGet, "/connections?peer=192.0.2.0/24&protocol=http1")
	var got connectionsView
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatal(err)
	}
	if got.Total != 1 || len(got.Connections) != 1 || got.Connections[0].ID != 7 {
		t.Errorf("got %+v", got)
	}
}

func TestClosedConnections(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]uint64{"/closed": {2, 1}, "/closed?limit=1": {2}} {
		_, answer := call(t, peers(lifecycle.PhaseServing), http.MethodGet, path)
		var got struct{ Closed []mux.ClosedConn }
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Fatal(err)
		}
		var ids []uint64
		for _, c := range got.Closed {
			ids = append(ids, c.ID)
		}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	if got := get(t, example(), "localhost", "/closed").Body.String(); got != "{\"closed\":[]}\n" {
		t.Errorf("without any: %s", got)
	}
}

// TestReadyzSaysWhatWasSwitchedOff: the admin listener's /readyz turns as the service port's.
func TestReadyzSaysWhatWasSwitchedOff(t *testing.T) {
	t.Parallel()
	a := peers(lifecycle.PhaseServing)
	_ = a.SetReady(false)
	if status, answer := call(t, a, http.MethodGet, "/readyz"); status != http.StatusServiceUnavailable || answer != "not ready: switched off" {
		t.Errorf("got %d %s", status, answer)
	}
}
