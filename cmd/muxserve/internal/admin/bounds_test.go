package admin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestForeignPages: no page answers to a web page of another site. That of the operator's
// own browser, and of programs, is served.
func TestForeignPages(t *testing.T) {
	t.Parallel()
	paths := []string{
		"/", "/livez", "/health", "/servers", "/connections", "/config", "/metrics",
		"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=0.1", "/debug/pprof/trace?seconds=0.1",
	}
	for _, tt := range []struct {
		name, value string
		foreign     bool
	}{
		{"Sec-Fetch-Site", "cross-site", true},
		{"Sec-Fetch-Site", "same-site", true},
		{"Origin", "http://evil.example", true},
		{"Origin", "null", true},
		{"Referer", "http://evil.example/page", true},
		{"Referer", "http://127.0.0.1:9999/", true},
		{"Referer", "http://127.0.0.1:8081/", false},
		{"Origin", "http://127.0.0.1:8081", false},
		{"Sec-Fetch-Site", "none", false},
		{"Sec-Fetch-Site", "same-origin", false},
		{"User-Agent", "curl", false},
	} {
		p := New(example(), Options{Configuration: new(fakeConfiguration)})
		for _, path := range paths {
			if !tt.foreign && strings.Contains(path, "seconds") {
				continue // They take their time.
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
			r.Host = "127.0.0.1:8081"
			r.Header.Set(tt.name, tt.value)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if refused := w.Code == http.StatusForbidden; refused != tt.foreign {
				t.Errorf("%s: %s, %s: status %d", tt.name, tt.value, path, w.Code)
			}
		}
	}
}

// TestPagesThatHide: browsers do not say to plaintext addresses which site asks, and a page
// can have Origin and Referer left out. It gets nothing by an address that no operator's
// browser uses, and no profile by any other.
func TestPagesThatHide(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(New(example(), Options{Address: "0.0.0.0:8081", Configuration: &fakeConfiguration{hosts: []string{"admin.example"}}}))
	t.Cleanup(srv.Close)
	const reads, profile = "/health", "/debug/pprof/heap"
	browser, program := "Accept-Language", "User-Agent"
	for _, tt := range []struct {
		host, path, header, value string
		want                      int
	}{
		{"0.0.0.0:8081", reads, browser, "en", http.StatusForbidden},
		{"0.0.0.0", "/", browser, "", http.StatusForbidden},
		{"[::]:8081", reads, browser, "en", http.StatusForbidden},
		{"[0:0::0]", profile, browser, "en", http.StatusForbidden},
		{"[::ffff:0:0]", reads, browser, "en", http.StatusForbidden},
		{"[::ffff:7f00:1]:8081", reads, browser, "en", http.StatusForbidden},
		{"0.0.0.0:8081", reads, "Referer", "http://0.0.0.0:8081/", http.StatusForbidden},
		{"0.0.0.0:8081", "/livez", browser, "en", http.StatusOK},
		{"0.0.0.0:8081", profile, program, "curl", http.StatusOK},
		{"[::]:8081", reads, program, "curl", http.StatusOK},
		{"10.1.2.3:8081", profile, browser, "en", http.StatusForbidden},
		{"10.1.2.3:8081", "/debug/pprof/profile?seconds=9", browser, "en", http.StatusForbidden},
		{"admin.example", "/debug/pprof/trace?seconds=9", browser, "en", http.StatusForbidden},
		{"10.1.2.3:8081", profile, "Referer", "http://10.1.2.3:8081/debug/pprof/", http.StatusOK},
		{"10.1.2.3:8081", profile, program, "curl", http.StatusOK},
		{"10.1.2.3:8081", "/debug/pprof/", browser, "en", http.StatusOK},
		{"10.1.2.3:8081", reads, browser, "en", http.StatusOK},
		{"127.0.0.1:8081", profile, "Sec-Fetch-Site", "none", http.StatusOK},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = tt.host
		r.Header.Set(tt.header, tt.value)
		resp, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body) // The next profile is taken behind this one.
		_ = resp.Body.Close()
		if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s may stand in a frame: %q", tt.path, policy)
		}
		if resp.StatusCode != tt.want {
			t.Errorf("%s%s with %s %q: got %d, want %d", tt.host, tt.path, tt.header, tt.value, resp.StatusCode, tt.want)
		}
	}
}

// TestProfilesAreBounded: a profile has an end, and there is one of each kind at a time:
// of those that take time, and of snapshots.
func TestProfilesAreBounded(t *testing.T) {
	t.Parallel()
	p := New(example(), Options{})
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/debug/pprof/"+path, nil))
		return w
	}
	for _, seconds := range []string{"61", "1e9", "-1", "NaN", "Inf", "x"} {
		for _, name := range []string{"profile", "trace", "heap", "goroutine"} {
			if w := ask(name + "?seconds=" + seconds); w.Code != http.StatusBadRequest {
				t.Errorf("%s of %s seconds: %d", name, seconds, w.Code)
			}
		}
	}
	served := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			if w := ask(path); w.Code != http.StatusOK {
				t.Errorf("%q: %d %s", path, w.Code, w.Body)
			}
		}
	}
	refused := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			if w := ask(path); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s beside another of its kind: %d %v", path, w.Code, w.Header())
			}
		}
	}
	p.timed.Lock()
	refused("profile", "trace", "profile?seconds=1", "heap?seconds=1", "goroutine?seconds=1", "profile?seconds=0", "profile?seconds=0.5", "trace?seconds=0")
	served("", "heap", "heap", "goroutine?debug=2", "allocs", "block?seconds=")
	p.timed.Unlock()
	p.snapshots.Lock()
	refused("heap", "goroutine?debug=2", "allocs", "mutex", "block?seconds=")
	served("", "trace?seconds=0.01", "trace?seconds=0.01")
	p.snapshots.Unlock()
	served("heap", "heap")
}

// TestLongListsAreBounded: only so many long lists of connections are made at a time, and
// a short one is made beside them.
func TestLongListsAreBounded(t *testing.T) {
	t.Parallel()
	p := New(example(), Options{})
	ask := func(limit string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/connections?limit="+limit, nil))
		return w
	}
	for range cap(p.longLists) {
		p.longLists <- struct{}{}
	}
	for _, limit := range []string{"101", "10000"} {
		if w := ask(limit); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s connections beside others: %d %v", limit, w.Code, w.Header())
		}
	}
	if w := ask("100"); w.Code != http.StatusOK {
		t.Errorf("a short list beside long ones: %d", w.Code)
	}
	<-p.longLists
	for range 2 {
		if w := ask("10000"); w.Code != http.StatusOK {
			t.Errorf("a long list: %d", w.Code)
		}
	}
}

// TestSlowAdminClients: a body that does not come and an answer that is not read end.
func TestSlowAdminClients(t *testing.T) {
	t.Parallel()
	p := New(example(), Options{})
	p.bounds = bounds{body: 100 * time.Millisecond, answer: 100 * time.Millisecond, profile: time.Second}
	ended := make(chan struct{})
	routes := http.NewServeMux()
	routes.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	p.route(routes)
	srv := httptest.NewServer(p)
	defer srv.Close()
	dial := func(request string) net.Conn {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		return c
	}
	slow := dial("POST /long HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nab")
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil || resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
		t.Errorf("half a body: %v, %v", resp, err)
	}
	refused := dial("POST /long HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\nab")
	resp, err = http.ReadResponse(bufio.NewReader(refused), nil)
	if err != nil || resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
		t.Errorf("half a body of a request that is refused: %v, %v", resp, err)
	}
	many := dial("")
	go func() { // Until the server reads no more.
		for err := error(nil); err == nil; {
			_, err = io.WriteString(many, strings.Repeat("GET /long HTTP/1.1\r\nHost: evil.example\r\n\r\n", 100))
		}
	}()
	dial("GET /long HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("an answer that nobody reads does not end")
	}
	closed := make(chan struct{})
	go func() {
		srv.Close() // It waits for requests under way.
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("refusals that nobody reads do not end")
	}
}

// TestRefusalRepeatsLittle: a refusal does not repeat a host of any length.
func TestRefusalRepeatsLittle(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = strings.Repeat("\x01", 1<<20)
	w := httptest.NewRecorder()
	New(example(), Options{}).ServeHTTP(w, r)
	if n := w.Body.Len(); w.Code != http.StatusForbidden || n > 2<<10 {
		t.Errorf("%d, %d bytes", w.Code, n)
	}
}
