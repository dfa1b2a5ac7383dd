package admin

import (
	"crypto/x509"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
)

// listenerView is a listener in the answer of /servers.
type listenerView struct {
	Address       string   `json:"address"`    // that is open
	Configured    string   `json:"configured"` // in the configuration
	TLS           string   `json:"tls"`        // its mode
	TLSOptional   bool     `json:"tls_optional"`
	ProxyProtocol string   `json:"proxy_protocol"` // its mode
	Protocols     []string `json:"protocols"`
}

// listeners describes the configured listeners.
func (p *Pages) listeners() []listenerView {
	views := []listenerView{}
	for address, c := range p.server.Listeners() {
		views = append(views, listenerView{
			Address: address.String(), Configured: c.Address, TLS: c.TLS.Mode, TLSOptional: c.TLS.Optional,
			ProxyProtocol: c.ProxyProtocol.Mode, Protocols: c.Protocols,
		})
	}
	return views
}

// certificateView is an element of the answer of /certificates.
type certificateView struct {
	Listener  string    `json:"listener"`
	Subject   string    `json:"subject"`
	Names     []string  `json:"names"` // DNS names and IP addresses
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // in hexadecimal
	KeyType   string    `json:"key_type"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// RemainingSeconds is negative where it has expired.
	RemainingSeconds float64 `json:"remaining_seconds"`
}

// serveCertificates lists the certificates in use, for each listener in the order of its
// configuration.
func (p *Pages) serveCertificates(w http.ResponseWriter, _ *http.Request) {
	all, now := p.server.Certificates(), time.Now()
	views := []certificateView{}
	for _, listener := range slices.Sorted(maps.Keys(all)) {
		for _, c := range all[listener] {
			views = append(views, newCertificateView(listener, c, now))
		}
	}
	page.JSON(w, http.StatusOK, map[string]any{"certificates": views})
}

func newCertificateView(listener string, c *x509.Certificate, now time.Time) certificateView {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return certificateView{
		Listener: listener, Subject: c.Subject.String(), Names: names, Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		KeyType: c.PublicKeyAlgorithm.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter, RemainingSeconds: c.NotAfter.Sub(now).Seconds(),
	}
}
