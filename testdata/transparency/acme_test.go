package transparency_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

const domain = "program.example.com"

// TestAutocert: x/crypto's autocert gets a certificate from pebble, which connects to the
// site with the protocol acme-tls/1.
func TestAutocert(t *testing.T) {
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	start := func() program {
		m := &autocert.Manager{Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(domain)}
		p := program{handler: http.HandlerFunc(mirror), tls: m.TLSConfig()}
		p.ready = func(t *testing.T, s *site) {
			url, client, roots := pebble(t, s.http)
			m.Client = &acme.Client{DirectoryURL: url, HTTPClient: client}
			s.client = &tls.Config{RootCAs: roots, ServerName: domain, MinVersion: tls.VersionTLS12}
		}
		return p
	}
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP%d", version), func(t *testing.T) {
			alike(t, start, version, func(t *testing.T, s *site) string {
				text := get("/")(t, s) + get("/")(t, s)
				s.client.ServerName = "other.example.com"
				return text + get("/")(t, s)
			})
		})
	}
}

// pebble starts the ACME server for one that is served at addr. Its DNS has that address for
// every name.
func pebble(t *testing.T, addr string) (directory string, client *http.Client, roots *x509.CertPool) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1),
			})
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = names.ActivateAndServe() }()
	t.Cleanup(func() { _ = names.Shutdown() })

	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	logger := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default"}})
	validation := va.New(logger, port, port, false, pc.LocalAddr().String(), store)
	front := wfe.New(logger, store, validation, authority, []string{"pebble.example"}, false, false, 0, 0)
	srv := httptest.NewTLSServer(front.Handler())
	t.Cleanup(srv.Close)
	roots = x509.NewCertPool()
	roots.AddCert(authority.GetRootCert(0).Cert)
	return srv.URL + wfe.DirectoryPath, srv.Client(), roots
}
