// Package page writes the answers that the demo and the admin pages have in common: web
// pages, event streams and JSON.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// tokens is the style that all pages begin with.
//
//go:embed tokens.css
var tokens string

// New returns a handler that answers GET and HEAD with the document html, which loads
// nothing. The style and the script replace the comments <!-- style --> and
// <!-- script --> in it. The style has that of all pages before it.
//
// The page's Content-Security-Policy allows this style and this script by their digests,
// requests to the page's own origin, and nothing else.
func New(html, style, script string) http.Handler {
	style = tokens + style
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

// Site returns two handlers for the page in a directory: one for its document, which is
// called page.html, and one for the other files, whose paths end with their names. One more
// of these, tokens.css, is the style that all pages have in common.
//
// The page's Content-Security-Policy allows the files and requests of the page's own origin,
// and nothing else. Where the browser knows Trusted Types (W3C), no text becomes markup.
//
// Site panics where the directory cannot be read.
func Site(fsys fs.FS, dir string) (document, files http.Handler) {
	const policy = "default-src 'none'; connect-src 'self'; img-src data:; style-src 'self'; script-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		panic(err)
	}
	served := map[string]http.HandlerFunc{"tokens.css": file("tokens.css", []byte(tokens), policy)}
	for _, e := range entries {
		content, err := fs.ReadFile(fsys, path.Join(dir, e.Name()))
		if err != nil {
			panic(err)
		}
		served[e.Name()] = file(e.Name(), content, policy)
	}
	return served[documentName], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if serve := served[path.Base(r.URL.Path)]; serve != nil {
			serve(w, r)
			return
		}
		http.NotFound(w, r)
	})
}

// documentName is the file of a [Site] that is its document.
const documentName = "page.html"

// file serves one file of a [Site]. Browsers ask each time whether they have it still.
func file(name string, content []byte, policy string) http.HandlerFunc {
	sum := sha256.Sum256(content)
	etag := strconv.Quote(base64.RawURLEncoding.EncodeToString(sum[:]))
	// Not by the system's table, which may have another type for .js.
	kind := map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript"}[path.Ext(name)]
	return func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Type", kind+"; charset=utf-8")
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-cache")
		header.Set("ETag", etag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	}
}

// EventStream begins an answer of the type text/event-stream, which no cache keeps. It
// reports false for HEAD, whose answer ends there: otherwise the next request on the
// connection would wait for the end of the stream.
func EventStream(w http.ResponseWriter, r *http.Request) bool {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	return r.Method != http.MethodHead
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
