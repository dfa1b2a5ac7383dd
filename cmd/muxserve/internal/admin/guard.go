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

	"github.com/muxserve/muxserve/protocols"
)

// Access says who may do what. The zero value is the default.
type Access struct {
	// Token is the bearer token that a request needs in order to change something. Where it
	// is empty, only requests of this machine may.
	Token string
	// ProtectAll asks for the token for everything but the page and the probes.
	ProtectAll bool
	// Hosts are more names by which the listener is asked for; see [Pages.guard].
	Hosts []string
}

// access returns the access rules in force.
func (p *Pages) access() Access {
	if p.configuration == nil {
		return Access{}
	}
	return p.configuration.Access()
}

// guard lets in requests whose host is an IP address, localhost, the configured host or one
// of [Access].Hosts. A foreign web page can point its own name at this address (DNS
// rebinding). Its requests would pass the browser's same-origin rule, and the page could
// read everything here.
//
// Browsers reach this machine by the unspecified addresses as well, and by IPv4 addresses
// that are mapped to IPv6. They do not say then which site asks, so they are refused.
//
// A request without a host comes from an HTTP/1.0 client, which is not a browser.
// isAnyName names the requests for which every name will do.
func (p *Pages) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A click in a frame would come from a page of ours.
		w.Header().Set("Content-Security-Policy", "frame-ancestors 'none'")
		access := p.access()
		host := bareHost(r.Host)
		switch {
		case host == "" || isAnyName(r):
		case isDetour(host) && isBrowser(r):
			http.Error(w, "muxserve: browsers get the admin pages by localhost, a loopback address or the machine's own, not by "+host, http.StatusForbidden)
			return
		case !trusted(host, append(access.Hosts, *p.host.Load())):
			http.Error(w, "muxserve: the admin pages answer to an IP address, to localhost, to the host of admin.address and to the names in admin.hosts, not to "+
				strconv.Quote(protocols.Shorten(host, protocols.MaxText)), http.StatusForbidden)
			return
		}
		switch from := siteOf(r); {
		case from == foreignSite:
			http.Error(w, "muxserve: the admin pages do not answer to pages of other sites, nor to links on them", http.StatusForbidden)
			return
		case from == unknownSite && isProfile(r) && isBrowser(r):
			http.Error(w, "muxserve: a page of another site may have sent this; follow the links of "+pprofRoot+", or use a program such as curl",
				http.StatusForbidden)
			return
		}
		if access.ProtectAll && !isFree(r.URL.Path) && !hasToken(r, access.Token) {
			askForToken(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isFree reports whether [Access].ProtectAll asks no token for a path: those of probes, and
// of the page, which has no data of its own.
func isFree(path string) bool {
	return path == "/" || path == "/livez" || path == "/readyz" || strings.HasPrefix(path, "/page/")
}

// isAnyName reports whether a request is answered by whatever name it comes. Balancers and
// Prometheus ask by names that the server does not know. The answers to probes say next to
// nothing. The metrics are for programs alone: a page that has rebound its name does not
// get them, because its browser sends headers that the page cannot take out.
func isAnyName(r *http.Request) bool {
	switch r.URL.Path {
	case "/livez", "/readyz":
		return true
	case "/metrics":
		format, _ := metricsFormat(r)
		return format == formatPrometheus && !isBrowser(r)
	default:
		return false
	}
}

// isBrowser reports whether a request has a header that browsers send. They send
// Accept-Language with each request, and a script can change it but not take it out.
func isBrowser(r *http.Request) bool {
	for name := range r.Header {
		switch {
		case name == "Accept-Language", name == "Origin", name == "Referer", name == "Cookie", strings.HasPrefix(name, "Sec-"):
			return true
		}
	}
	return false
}

// A site is where the page is from that has sent a request, or has a link to it.
type site int

const (
	unknownSite site = iota // the client does not say it; programs do not
	ownSite                 // or the user has entered the address
	foreignSite
)

// siteOf returns what a request says of its site. A page of a foreign one cannot read the
// answer, but a profile costs time, and a change is a change. Browsers tell it by
// Sec-Fetch-Site, but only to hosts whose connection they trust (https, localhost), and
// otherwise by Origin or Referer, which a page can have left out of reads.
func siteOf(r *http.Request) site {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return ownSite
	case "":
	default:
		return foreignSite
	}
	for _, name := range []string{"Origin", "Referer"} {
		if from := r.Header.Get(name); from != "" {
			if u, err := url.Parse(from); err != nil || !strings.EqualFold(u.Host, r.Host) {
				return foreignSite
			}
			return ownSite
		}
	}
	return unknownSite
}

// isProfile reports whether a request is for a profile, and not for the list of them.
func isProfile(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, pprofRoot) && r.URL.Path != pprofRoot
}

// isDetour reports whether a host is an address that leads to this machine and that no
// listener is asked for by.
func isDetour(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.Is4In6() || addr.IsUnspecified())
}

// bareHost returns the host of a Host header, without port and brackets.
func bareHost(header string) string {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = header
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func trusted(host string, names []string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	// Browsers resolve names below localhost to the loopback interface (RFC 6761, section
	// 6.3).
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, host) })
}

// authorized passes on requests that may change something: by this method, and with the
// token. Where no token is configured, they have to come from this machine and bring none.
func (p *Pages) authorized(method string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			http.Error(w, "muxserve: this takes "+method+" alone", http.StatusMethodNotAllowed)
			return
		}
		want := p.access().Token
		_, brought := bearerToken(r)
		switch {
		case hasToken(r, want), want == "" && !brought && isLocal(r):
			next.ServeHTTP(w, r)
		case !brought && want == "":
			http.Error(w, "muxserve: without a token, only requests of this machine change anything; set admin.token or admin.token_file, "+
				"and send the token as Authorization: Bearer TOKEN", http.StatusForbidden)
		default:
			askForToken(w)
		}
	})
}

// askForToken refuses a request without the token.
func askForToken(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="muxserve"`)
	http.Error(w, "muxserve: the bearer token is missing or wrong; send the value of admin.token as Authorization: Bearer TOKEN",
		http.StatusUnauthorized)
}

// hasToken reports whether a request brings the token that is wanted; never where that is
// empty.
func hasToken(r *http.Request, want string) bool {
	given, brought := bearerToken(r)
	return want != "" && brought && sameToken(given, want)
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
