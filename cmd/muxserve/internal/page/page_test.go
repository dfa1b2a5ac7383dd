package page

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestNew(t *testing.T) {
	t.Parallel()
	const style, script = "b{color:red}", "let x = 1 < 2"
	h := New("<title>t</title><!-- style --><!-- script --><b>x</b>", style, script)
	get := httptest.NewRecorder()
	h.ServeHTTP(get, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))

	want := "<title>t</title><style>" + style + `</style><script type="module">` + script + "</script><b>x</b>"
	if got := get.Body.String(); got != want {
		t.Errorf("document %q, want %q", got, want)
	}
	policy := get.Header().Get("Content-Security-Policy")
	for _, text := range []string{style, script} {
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
