package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// authorized lets a request pass that may change something: a POST that no foreign web page has a browser
// send, from this machine or with the token.
//
// A wrong token is refused from anywhere, so that whoever tries one learns that it is wrong.
func (p *Pages) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "muxserve: this takes POST alone", http.StatusMethodNotAllowed)
			return
		}
		if err := p.crossOrigin.Check(r); err != nil {
			http.Error(w, "muxserve: a web page of another origin cannot change anything here", http.StatusForbidden)
			return
		}
		want := p.configuration.Token()
		given, brought := bearerToken(r)
		switch {
		case brought && want != "" && sameToken(given, want), !brought && isLocal(r):
			next.ServeHTTP(w, r)
		case !brought && want == "":
			http.Error(w, "muxserve: without admin.token, only requests of this machine change anything", http.StatusForbidden)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="muxserve"`)
			http.Error(w, "muxserve: the bearer token is missing or wrong", http.StatusUnauthorized)
		}
	})
}

// bearerToken returns the token of a request (RFC 6750, section 2.1). brought is true for whatever else stands in the
// header, too: it is meant to prove something.
func bearerToken(r *http.Request) (token string, brought bool) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(token), true
}

// sameToken takes the same time for any token, however long and wherever it is wrong.
func sameToken(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// proxyHeaders are what proxies add to requests that they pass on. A proxy of this machine speaks for others.
var proxyHeaders = []string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"}

// isLocal reports whether a request was made on this machine: over the loopback interface or a Unix socket, and by no proxy.
func isLocal(r *http.Request) bool {
	for _, name := range proxyHeaders {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	if isUnix(r) {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// isUnix reports whether a request came over a Unix socket, whose file's permissions say who may send any.
func isUnix(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && local.Network() == "unix"
}
