package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// guard lets in requests whose host is an IP address, localhost or the configured host. A
// foreign web page can point its own name at this address (DNS rebinding). Its requests
// would pass the browser's same-origin rule, and the page could read everything here.
//
// A request without a host comes from an HTTP/1.0 client, which is not a browser. The
// paths of anyName answer to every name.
func (p *Pages) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := bareHost(r.Host); host != "" && !anyName[r.URL.Path] && !trusted(host, *p.host.Load()) {
			http.Error(w, "muxserve: the admin pages answer to an IP address, to localhost or to the host of --admin, not to "+
				strconv.Quote(host), http.StatusForbidden)
			return
		}
		if isForeign(r) {
			http.Error(w, "muxserve: the admin pages do not answer to pages of other sites, nor to links on them", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// anyName are the paths that answer to every name. Balancers and Prometheus ask by names
// that the server does not know, and the answers name neither clients nor settings.
var anyName = map[string]bool{"/livez": true, "/readyz": true, "/metrics": true}

// isForeign reports whether a web page of another origin has sent a request, or a link on
// it. Such a page cannot read the answer, but a profile costs time, and a change is a
// change. Browsers say so by Sec-Fetch-Site, but only to hosts whose connection they trust
// (https, localhost), and otherwise by Origin or Referer.
func isForeign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none": // none is an address that the user has entered.
		return false
	case "":
	default:
		return true
	}
	for _, name := range []string{"Origin", "Referer"} {
		if from := r.Header.Get(name); from != "" {
			u, err := url.Parse(from)
			return err != nil || !strings.EqualFold(u.Host, r.Host)
		}
	}
	return false
}

// bareHost returns the host of a Host header, without port and brackets.
func bareHost(header string) string {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = header
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func trusted(host, configured string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	// Browsers resolve names below localhost to the loopback interface (RFC 6761, section
	// 6.3).
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == strings.ToLower(configured)
}

// authorized passes on requests that may change something: a POST with the token. Where
// no token is configured, it has to come from this machine and bring none.
func (p *Pages) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "muxserve: this takes POST alone", http.StatusMethodNotAllowed)
			return
		}
		want := p.configuration.Token()
		given, brought := bearerToken(r)
		switch {
		case want != "" && brought && sameToken(given, want), want == "" && !brought && isLocal(r):
			next.ServeHTTP(w, r)
		case !brought && want == "":
			http.Error(w, "muxserve: without admin.token, only requests of this machine change anything", http.StatusForbidden)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="muxserve"`)
			http.Error(w, "muxserve: the bearer token is missing or wrong", http.StatusUnauthorized)
		}
	})
}

// bearerToken returns the token of a request (RFC 6750, section 2.1). brought is true for
// any Authorization header, also for one of another scheme, whose token is "".
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

// sameToken compares in a time that depends neither on the tokens' lengths nor on where
// they differ.
func sameToken(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// proxyHeaders are added by proxies. A proxy on this machine passes on requests of other
// hosts.
var proxyHeaders = []string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"}

// isLocal reports whether a request was made on this machine: over the loopback interface
// or a Unix socket, and without a proxy.
func isLocal(r *http.Request) bool {
	if slices.ContainsFunc(proxyHeaders, func(name string) bool { return r.Header.Get(name) != "" }) {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return isUnix(r) || err == nil && peer.Addr().Unmap().IsLoopback()
}

// isUnix reports whether a request came over a Unix socket. The permissions of the
// socket's file decide which users can send one.
func isUnix(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && local.Network() == "unix"
}
