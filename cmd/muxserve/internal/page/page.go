// Package page serves a web page that is whole in itself: one document with its
// style and script inside, under a policy that allows nothing else.
package page

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// The comments in a document's head that its style and script take the place of.
const (
	styleMark  = "<!-- style -->"
	scriptMark = "<!-- script -->"
)

// New returns a handler that answers GET and HEAD with the document html, into
// which it puts style and script where the comments <!-- style --> and
// <!-- script --> stand.
//
// The page's Content-Security-Policy allows this style and this script by their
// digests, requests to the page's own origin, and nothing else.
func New(html, style, script string) http.Handler {
	document := strings.NewReplacer(
		styleMark, "<style>"+style+"</style>",
		scriptMark, "<script type=\"module\">"+script+"</script>",
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
		// A browser that has left needs no page.
		_, _ = w.Write([]byte(document))
	})
}

// digest is a source expression that allows exactly this text (CSP level 2,
// section 4.2.5).
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
