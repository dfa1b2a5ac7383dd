package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

// fakeConfiguration returns err, and records the last origin.
type fakeConfiguration struct {
	token  string
	err    error
	origin string
	number int // of the last rollback

	protectAll bool
	hosts      []string
}

var _ Configuration = (*fakeConfiguration)(nil)

var exampleTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func exampleVersion() mux.Version {
	return mux.Version{
		Number: 2, Time: exampleTime, Origin: "SIGHUP", Outcome: mux.OutcomeApplied,
		Changes: []mux.Change{{Path: "log.level", Old: "INFO", New: "DEBUG", Apply: mux.ApplyRuntime, How: "takes effect at once"}},
	}
}

func (c *fakeConfiguration) Write(w io.Writer) error {
	_, err := io.WriteString(w, "log:\n  level: debug  # default\n")
	return err
}

func (c *fakeConfiguration) Reload(origin string) (mux.Version, error) {
	c.origin = origin
	return exampleVersion(), c.err
}

func (c *fakeConfiguration) Rollback(number int, origin string) (mux.Version, error) {
	c.origin, c.number = origin, number
	return exampleVersion(), c.err
}

// exampleHistory is the history of a server whose last reload has failed.
func exampleHistory() mux.History {
	return mux.History{Current: exampleVersion().Number, Versions: []mux.Version{
		{Number: 1, Time: exampleTime, Origin: "start", Outcome: mux.OutcomeApplied},
		exampleVersion(),
		{Number: 3, Time: exampleTime, Origin: "watch", Outcome: mux.OutcomeFailed, Err: "muxserve.yaml:1: not YAML"},
	}}
}

func (c *fakeConfiguration) Access() Access { return Access{c.token, c.protectAll, c.hosts} }

// ask sends a request to the pages of a configuration. It is local unless edit changes
// that.
func ask(t *testing.T, c Configuration, method, path string, edit func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Host, r.RemoteAddr = "127.0.0.1:8081", "127.0.0.1:4242"
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	New(example(), Options{Configuration: c}).ServeHTTP(w, r)
	return w
}

func TestConfigurationAnswers(t *testing.T) {
	t.Parallel()
	const changed = `{"version":2,"time":"2026-01-01T00:00:00Z","origin":"SIGHUP","changes":[{"path":"log.level","old":"INFO","new":"DEBUG",` +
		`"apply":"runtime","how":"takes effect at once"}],"outcome":"applied"}`
	tests := []struct {
		name, path string
		err        error
		status     int
		body       string
	}{
		{"reload", "/config/reload", nil, http.StatusOK, changed},
		{"rollback", "/config/rollback?version=2", nil, http.StatusOK, changed},
		{"no version", "/config/rollback", nil, http.StatusBadRequest, `{"error":"version: \"\" is not the number of a version"}`},
		{"busy", "/config/reload", ErrBusy, http.StatusConflict, `{"error":"the configuration is as it was","faults":["` + ErrBusy.Error() + `"]}`},
		{
			"faults", "/config/reload", errors.Join(errors.New("a.yaml:1: x"), errors.New("a.yaml:2: y")), http.StatusUnprocessableEntity,
			`{"error":"the configuration is as it was","faults":["a.yaml:1: x","a.yaml:2: y"]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := ask(t, &fakeConfiguration{err: tt.err}, http.MethodPost, tt.path, nil)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			if diff := cmp.Diff(tt.body, strings.TrimSpace(w.Body.String())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestConfigurationKnowsWho(t *testing.T) {
	t.Parallel()
	c := new(fakeConfiguration)
	ask(t, c, http.MethodPost, "/config/rollback?version=7", nil)
	if c.number != 7 || c.origin != "admin listener, 127.0.0.1" {
		t.Errorf("rollback to %d by %q", c.number, c.origin)
	}
	ask(t, c, http.MethodPost, "/config/reload", overUnix)
	if c.origin != "admin listener, Unix socket" {
		t.Errorf("reload by %q", c.origin)
	}
}

// overUnix turns a request into one over a Unix socket, where the peer has no address.
func overUnix(r *http.Request) {
	r.RemoteAddr = "@"
	*r = *r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.UnixAddr{Name: "/run/admin", Net: "unix"})))
}

func TestWhoMayChange(t *testing.T) {
	t.Parallel()
	const token = "s3cret"
	header := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Add(pairs[i], pairs[i+1])
			}
		}
	}
	remote := func(more func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			r.RemoteAddr = "192.0.2.1:4242"
			if more != nil {
				more(r)
			}
		}
	}
	tests := []struct {
		name  string
		token string
		edit  func(*http.Request)
		want  int
	}{
		{"loopback", "", nil, 200},
		{"loopback, a token is configured", token, nil, 401},
		{"Unix socket, a token is configured", token, overUnix, 401},
		{"IPv6 loopback", "", func(r *http.Request) { r.RemoteAddr = "[::1]:1" }, 200},
		{"IPv4 in IPv6", "", func(r *http.Request) { r.RemoteAddr = "[::ffff:127.0.0.1]:1" }, 200},
		{"Unix socket", "", overUnix, 200},
		{"loopback, right token", token, header("Authorization", "Bearer "+token), 200},
		{"loopback, wrong token", token, header("Authorization", "Bearer x"), 401},
		{"loopback, a token where none is configured", "", header("Authorization", "Bearer x"), 401},
		{"loopback, empty token where none is configured", "", header("Authorization", "Bearer "), 401},
		{"a proxy of this machine", "", header("X-Forwarded-For", "192.0.2.1"), 403},
		{"a proxy of this machine, right token", token, header("Forwarded", "for=192.0.2.1", "Authorization", "Bearer "+token), 200},
		{"remote", "", remote(nil), 403},
		{"remote, no token", token, remote(nil), 401},
		{"remote, right token", token, remote(header("Authorization", "bearer "+token)), 200},
		{"remote, wrong token", token, remote(header("Authorization", "Bearer s3creT")), 401},
		{"remote, beginning of the token", token, remote(header("Authorization", "Bearer s3cre")), 401},
		{"remote, other scheme", token, remote(header("Authorization", "Basic "+token)), 401},
		{"remote, two tokens", token, remote(header("Authorization", "Bearer "+token, "Authorization", "Bearer x")), 401},
		{"no address at all", token, func(r *http.Request) { r.RemoteAddr = "" }, 401},
		{"own page", "", header("Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:8081"), 200},
		{"foreign page", "", header("Sec-Fetch-Site", "cross-site"), 403},
		{"page of another port", "", header("Sec-Fetch-Site", "same-site"), 403},
		{"foreign page, old browser", "", header("Origin", "http://evil.example"), 403},
		{"page without an origin", "", header("Origin", "null"), 403},
		{"foreign page, right token", token, header("Origin", "http://evil.example", "Authorization", "Bearer "+token), 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &fakeConfiguration{token: tt.token}
			w := ask(t, c, http.MethodPost, "/config/reload", tt.edit)
			if w.Code != tt.want {
				t.Errorf("status %d, want %d: %s", w.Code, tt.want, w.Body)
			}
			if changed := c.origin != ""; changed != (tt.want == http.StatusOK) {
				t.Errorf("changed %v", changed)
			}
			if asked := w.Header().Get("WWW-Authenticate") != ""; asked != (tt.want == http.StatusUnauthorized) {
				t.Errorf("asked for a token: %v", asked)
			}
		})
	}
}

func TestOnlyPostChanges(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		for _, path := range []string{"/config/reload", "/config/rollback?version=1"} {
			c := new(fakeConfiguration)
			w := ask(t, c, method, path, nil)
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodPost || c.origin != "" {
				t.Errorf("%s %s: status %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

// TestConfigForms: text is the default, and JSON has the versions.
func TestConfigForms(t *testing.T) {
	t.Parallel()
	tests := []struct {
		path, accept string
		json         bool
	}{
		{"/config", "", false},
		{"/config", "*/*", false},
		{"/config", "text/html,application/json", false},
		{"/config", "application/json", true},
		{"/config", "Application/JSON; q=1, text/plain", true},
		{"/config?format=json", "", true},
		{"/config?format=text", "application/json", false},
	}
	for _, tt := range tests {
		w := ask(t, new(fakeConfiguration), http.MethodGet, tt.path, func(r *http.Request) { r.Header.Set("Accept", tt.accept) })
		if !tt.json {
			if !strings.Contains(w.Body.String(), "level: debug") {
				t.Errorf("%s, accepting %q: %s", tt.path, tt.accept, w.Body)
			}
			continue
		}
		var got struct {
			Version int
			History []mux.Version
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s, accepting %q: %v", tt.path, tt.accept, err)
		}
		var outcomes []string
		for _, v := range got.History {
			outcomes = append(outcomes, v.Outcome)
		}
		if diff := cmp.Diff([]string{mux.OutcomeApplied, mux.OutcomeApplied, mux.OutcomeFailed}, outcomes); diff != "" || got.Version != 2 {
			t.Errorf("version %d (-want +got):\n%s", got.Version, diff)
		}
	}
}

// TestSetAddress: the pages answer to the new host and no longer to the old one.
func TestSetAddress(t *testing.T) {
	t.Parallel()
	p := New(example(), Options{Address: "old.internal:1"})
	p.SetAddress("new.internal:2")
	for host, want := range map[string]int{"old.internal:1": http.StatusForbidden, "new.internal:2": http.StatusOK} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health", nil)
		r.Host = host
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", host, w.Code, want)
		}
	}
}
