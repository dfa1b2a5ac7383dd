package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard lets in requests that name a host which no foreign web page can have
// made its own: an IP address, localhost, or the configured host. A page whose
// name was rebound to this address (DNS rebinding) would pass the browser's
// same-origin rule otherwise, and could read everything here.
//
// A request without a host comes from an HTTP/1.0 client, which is no browser.
func (p *Pages) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := bareHost(r.Host); host != "" && !trusted(host, *p.host.Load()) {
			http.Error(w, "muxserve: the admin pages answer to an IP address, to localhost or to the host of --admin, not to "+
				quoted(host), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
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
	// A browser resolves names below localhost to the loopback interface by
	// itself (RFC 6761, section 6.3).
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == strings.ToLower(configured)
}
