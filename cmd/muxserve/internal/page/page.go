// Package page writes the answers that the demo and the admin pages have in common: a web
// page that loads nothing, and JSON.
package page

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// New returns a handler that answers GET and HEAD with the document html. The style and
// the script replace the comments <!-- style --> and <!-- script --> in it.
//
// The page's Content-Security-Policy allows this style and this script by their digests,
// requests to the page's own origin, and nothing else.
func New(html, style, script string) http.Handler {
	document := strings.NewReplacer(
		"<!-- style -->", "<style>"+style+"</style>",
		"<!-- script -->", "<script type=\"module\">"+script+"</script>",
	).Replace(html)
	policy := fmt.Sprintf("default-src 'none'; connect-src 'self'; img-src data:; style-src %s; script-src %s; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", digest(style), digest(script))
	length := strconv.Itoa(len(document))

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Length", length)
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-cache")
		if r.Method == http.MethodHead {
			return
		}
		_, _ = w.Write([]byte(document)) // It fails only where the client has left.
	})
}

// digest is a source expression that allows exactly this text (CSP level 2, section
// 4.2.5).
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// JSON answers a request with value. No cache keeps the answer.
func JSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // It fails only where the client has left.
}

// Error answers a request with {"error": …}.
func Error(w http.ResponseWriter, status int, err error) {
	JSON(w, status, map[string]string{"error": err.Error()})
}
