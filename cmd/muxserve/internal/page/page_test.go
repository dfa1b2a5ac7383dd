package page

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func TestNew(t *testing.T) {
	t.Parallel()
	const style, script = "b{color:red}", "let x = 1 < 2"
	h := New("<title>t</title><!-- style --><!-- script --><b>x</b>", style, script)
	get := httptest.NewRecorder()
	h.ServeHTTP(get, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))

	want := "<title>t</title><style>" + tokens + style + `</style><script type="module">` + script + "</script><b>x</b>"
	if got := get.Body.String(); got != want {
		t.Errorf("document %q, want %q", got, want)
	}
	policy := get.Header().Get("Content-Security-Policy")
	for _, text := range []string{tokens + style, script} {
		sum := sha256.Sum256([]byte(text))
		if digest := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, digest) {
			t.Errorf("policy %q does not allow %q by %s", policy, text, digest)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q is too lax", policy)
	}

	head := httptest.NewRecorder()
	h.ServeHTTP(head, httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/", nil))
	if head.Body.Len() != 0 || head.Header().Get("Content-Length") != get.Header().Get("Content-Length") {
		t.Errorf("HEAD answered %d bytes and Content-Length %s", head.Body.Len(), head.Header().Get("Content-Length"))
	}
}

// TestSite: a browser that has a file is told so, and gets a changed one.
func TestSite(t *testing.T) {
	t.Parallel()
	document, files := Site(fstest.MapFS{"d/page.html": {Data: []byte("<title>t</title>")}, "d/a.js": {Data: []byte("1")}}, "d")
	ask := func(h http.Handler, path, etag string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Header.Set("If-None-Match", etag)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	if w := ask(document, "/", ""); w.Code != http.StatusOK || w.Body.String() != "<title>t</title>" {
		t.Errorf("document: %d %q", w.Code, w.Body)
	}
	first := ask(files, "/page/a.js", `"other"`)
	if first.Code != http.StatusOK || first.Body.String() != "1" || first.Header().Get("Cache-Control") != "no-cache" {
		t.Errorf("file: %d %q %v", first.Code, first.Body, first.Header())
	}
	if w := ask(files, "/page/a.js", first.Header().Get("ETag")); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("a file that the browser has: %d %q", w.Code, w.Body)
	}
	if w := ask(files, "/page/tokens.css", ""); w.Body.String() != tokens {
		t.Errorf("the style of all pages: %d %q", w.Code, w.Body)
	}
	if w := ask(files, "/page/b.js", ""); w.Code != http.StatusNotFound {
		t.Errorf("no file: %d", w.Code)
	}
}
