package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// serveRequest runs one request through Routes.
func serveRequest(t *testing.T, static Files, method, target string, body io.Reader) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	Routes(static).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, target, body))
	return w
}

// TestDuplex: each part of the body is answered before the next one is sent.
func TestDuplex(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(Routes(Files{}))
	defer srv.Close()
	body, parts := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/duplex", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, part := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(parts, part); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(part))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != part {
			t.Errorf("%q, %v; want %q", got, err, part)
		}
	}
	_ = parts.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("behind the end: %q, %v", rest, err)
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, target, body string
		want                 echo
	}{
		{http.MethodGet, "/echo", "", echo{Method: "GET", Path: "/echo", Proto: "HTTP/1.1"}},
		{http.MethodPost, "/echo?x=1", "hello", echo{Method: "POST", Path: "/echo", Proto: "HTTP/1.1", BodyBytes: 5}},
		{http.MethodPatch, "/echo?sleep=1ms", "", echo{Method: "PATCH", Path: "/echo", Proto: "HTTP/1.1"}},
		{"QUERY", "/echo", "q", echo{Method: "QUERY", Path: "/echo", Proto: "HTTP/1.1", BodyBytes: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.method, func(t *testing.T) {
			t.Parallel()
			w := serveRequest(t, Files{}, tt.method, tt.target, strings.NewReader(tt.body))
			if w.Code != http.StatusOK {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			var got echo
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(echo{}, "RemoteAddr")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestEchoKeys: the names of the keys are a contract.
func TestEchoKeys(t *testing.T) {
	t.Parallel()
	w := serveRequest(t, Files{}, http.MethodGet, "/echo", nil)
	want := `{"method":"GET","path":"/echo","proto":"HTTP/1.1","protocol":"","tls":null,"remote_addr":"192.0.2.1:1234","conn_id":0,"body_bytes":0}` + "\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEchoRefusesBadSleep(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"2", "-1s", "6m", "soon"} {
		w := serveRequest(t, Files{}, http.MethodGet, "/echo?sleep="+value, nil)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "is not a time from 0s to 5m0s") {
			t.Errorf("sleep=%s: %d %s", value, w.Code, w.Body)
		}
	}
}

func TestEchoBrokenBody(t *testing.T) {
	t.Parallel()
	body := io.MultiReader(strings.NewReader("part"), failingReader{})
	if w := serveRequest(t, Files{}, http.MethodPost, "/echo", body); w.Code != http.StatusBadRequest {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestEchoSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		w := serveRequest(t, Files{}, http.MethodGet, "/echo?sleep=5m", nil)
		if took := time.Since(started); took != 5*time.Minute || w.Code != http.StatusOK {
			t.Errorf("status %d after %v", w.Code, took)
		}

		// A client that leaves ends the wait.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started = time.Now()
		left := httptest.NewRecorder()
		Routes(Files{}).ServeHTTP(left, httptest.NewRequestWithContext(ctx, http.MethodGet, "/echo?sleep=5m", nil))
		if took := time.Since(started); took != time.Second || left.Body.Len() != 0 {
			t.Errorf("answered %q after %v", left.Body, took)
		}
	})
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", http.StatusOK},
		{http.MethodHead, "/", http.StatusOK},
		{http.MethodPost, "/", http.StatusMethodNotAllowed},
		{http.MethodGet, "/nothing", http.StatusNotFound},
		{http.MethodGet, "/echo/more", http.StatusNotFound},
		{http.MethodGet, "/static/", http.StatusNotFound},
		{http.MethodGet, "/ws", http.StatusUpgradeRequired},
	}
	for _, tt := range tests {
		if got := serveRequest(t, Files{}, tt.method, tt.path, nil).Code; got != tt.want {
			t.Errorf("%s %s answered %d, want %d", tt.method, tt.path, got, tt.want)
		}
	}
}

func TestStatic(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	for path, text := range map[string]string{filepath.Join(dir, "a.txt"): "hello", filepath.Join(dir, ".hidden"): "dotted",
		filepath.Join(dir, "site", "index.html"): "index", filepath.Join(dir, "odd", "index.html", "b.txt"): "below", secret: "secret"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	open := Files{Root: root, Listings: true, DotFiles: true}
	for path, contains := range map[string]string{"/static/": "a.txt", "/static/.hidden": "dotted"} {
		if w := serveRequest(t, open, http.MethodGet, path, nil); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), contains) {
			t.Errorf("%s answered %d %q where all is shown, want %q", path, w.Code, w.Body, contains)
		}
	}
	tests := []struct {
		method, path string
		want         int
		contains     string
	}{
		{http.MethodGet, "/static/a.txt", http.StatusOK, "hello"},
		{http.MethodGet, "/static/", http.StatusNotFound, ""},
		{http.MethodGet, "/static/site/", http.StatusOK, "index"},
		{http.MethodGet, "/static/.hidden", http.StatusNotFound, ""},
		{http.MethodGet, "/static/%2ehidden", http.StatusNotFound, ""},
		{http.MethodGet, "/static/missing", http.StatusNotFound, ""},
		{http.MethodGet, "/static/a%00.txt", http.StatusNotFound, ""},
		{http.MethodGet, "/static/%2e%2e/secret", http.StatusNotFound, ""},
		{http.MethodPut, "/static/a.txt", http.StatusMethodNotAllowed, ""},
		{http.MethodGet, "/static/link", http.StatusNotFound, ""},
		{http.MethodGet, "/static/odd/", http.StatusNotFound, ""},
		{http.MethodGet, "/static/a.txt/b", http.StatusNotFound, ""},
		{http.MethodGet, "/static/" + strings.Repeat("a", 5000), http.StatusNotFound, ""},
	}
	for _, tt := range tests {
		w := serveRequest(t, Files{Root: root}, tt.method, tt.path, nil)
		if w.Code != tt.want || !strings.Contains(w.Body.String(), tt.contains) {
			t.Errorf("%s %s answered %d %q, want %d and %q", tt.method, tt.path, w.Code, w.Body, tt.want, tt.contains)
		}
	}
	// net/http lists a directory whose index.html it cannot open, for whatever reason.
	site, err := Files{Root: root}.Open("/site")
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	if entries, err := site.(fs.ReadDirFile).ReadDir(-1); len(entries) > 0 || err == nil {
		t.Errorf("a directory that is not to be listed has %v, %v", entries, err)
	}
	listing := serveRequest(t, Files{Root: root, Listings: true}, http.MethodGet, "/static/", nil).Body.String()
	if !strings.Contains(listing, "a.txt") || strings.Contains(listing, ".hidden") {
		t.Errorf("a listing without dot files has %q", listing)
	}
}

// dialEcho opens a WebSocket to the demo's routes behind net/http's own server.
func dialEcho(t *testing.T) *websocket.Conn {
	t.Helper()
	server := httptest.NewServer(Routes(Files{}))
	t.Cleanup(server.Close)
	c, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http")+"/ws",
		&websocket.DialOptions{HTTPClient: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func TestWebSocketEcho(t *testing.T) {
	t.Parallel()
	c := dialEcho(t)
	messages := []struct {
		kind websocket.MessageType
		data []byte
	}{
		{websocket.MessageText, []byte("grüße ✓")},
		{websocket.MessageBinary, []byte{0xff, 0x00, 0xfe}},
		{websocket.MessageText, nil},
		{websocket.MessageBinary, bytes.Repeat([]byte{7}, 32<<10)},
		{websocket.MessageText, []byte("after a large one")},
	}
	for _, m := range messages {
		if err := c.Write(t.Context(), m.kind, m.data); err != nil {
			t.Fatal(err)
		}
		kind, data, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if kind != m.kind || !bytes.Equal(data, m.data) {
			t.Errorf("%v of %d bytes came back as %v of %d bytes", m.kind, len(m.data), kind, len(data))
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestWebSocketCloseCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kind websocket.MessageType
		data []byte
		want websocket.StatusCode
	}{
		{"text that is not UTF-8", websocket.MessageText, []byte("a\xc3("), websocket.StatusInvalidFramePayloadData},
		{"text that ends within a character", websocket.MessageText, []byte("a\xe4\xb8"), websocket.StatusInvalidFramePayloadData},
		{"beyond the read limit", websocket.MessageBinary, make([]byte, 32<<10+1), websocket.StatusMessageTooBig},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dialEcho(t)
			if err := c.Write(t.Context(), tt.kind, tt.data); err != nil {
				t.Fatal(err)
			}
			_, _, err := c.Read(t.Context())
			if got := websocket.CloseStatus(err); got != tt.want {
				t.Errorf("closed with %v (%v), want %v", got, err, tt.want)
			}
		})
	}
}
