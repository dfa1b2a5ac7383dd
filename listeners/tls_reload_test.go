package listeners

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pairFiles keeps a certificate and its key in files.
type pairFiles struct{ dir string }

func (p pairFiles) config() TLSConfig {
	return TLSConfig{Cert: filepath.Join(p.dir, "cert.pem"), Key: filepath.Join(p.dir, "key.pem")}
}

func (p pairFiles) write(t *testing.T, a *authority) {
	t.Helper()
	writeFile(t, p.dir, "cert.pem", a.pem)
	writeFile(t, p.dir, "key.pem", a.keyPEM(t))
}

func TestReload(t *testing.T) {
	ca := newAuthority(t, "ca")
	first, second := ca.server(t), ca.server(t)
	files := pairFiles{t.TempDir()}
	files.write(t, first)
	material := mustTLS(t, files.config())
	address := serveTLS(t, material.Config())

	served := func() *x509.Certificate {
		t.Helper()
		state, err := dialTLS(t, address, clientConfig(ca))
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0]
	}
	if changed, err := reload(material); changed || err != nil {
		t.Errorf("Reload of the same = %v, %v; want no change", changed, err)
	}
	files.write(t, second)
	if !served().Equal(first.cert) {
		t.Error("the new certificate is served before a reload")
	}
	if changed, err := reload(material); !changed || err != nil {
		t.Fatalf("Reload = %v, %v; want a change", changed, err)
	}
	if !served().Equal(second.cert) || !material.Certificates()[0].Equal(second.cert) {
		t.Error("the new certificate is not served after a reload")
	}
}

// TestPrepareOtherFiles puts the material of other files in use.
func TestPrepareOtherFiles(t *testing.T) {
	ca := newAuthority(t, "ca")
	first, second := ca.server(t), issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	}, ca)
	one, two := pairFiles{t.TempDir()}, pairFiles{t.TempDir()}
	one.write(t, first)
	two.write(t, second)
	material := mustTLS(t, one.config())
	prepare := func(c TLSConfig, renews, differs bool) {
		t.Helper()
		next, use, err := material.Prepare(c)
		if (next != nil) != renews || (use != nil) != differs || err != nil {
			t.Fatalf("%d certificates, to be used %t, %v", len(next), use != nil, err)
		}
		if use != nil {
			use()
		}
	}
	prepare(one.config(), false, false)
	prepare(two.config(), true, true)
	if !material.Certificates()[0].Equal(second.cert) {
		t.Error("the certificate of the first files is in use")
	}
	listed := two.config()
	listed.Certificates = []CertificateConfig{listed.single()}
	listed.Cert, listed.Key = "", ""
	prepare(listed, true, true)
	if w := material.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], "tls.certificates[0].cert: expired") {
		t.Errorf("warnings %q", w)
	}
	two.write(t, first)
	prepare(listed, true, true)
	one.write(t, first)
	listed.Certificates = []CertificateConfig{one.config().single()}
	prepare(listed, false, true)
	prepare(listed, false, false)
}

// TestReloadKeepsOld has a bad file each time, which must change nothing.
func TestReloadKeepsOld(t *testing.T) {
	ca := newAuthority(t, "ca")
	first, second := ca.server(t), ca.server(t)
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"no certificate", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "cert.pem")) }, "tls.cert"},
		{"half a pair", func(t *testing.T, dir string) { writeFile(t, dir, "cert.pem", second.pem) }, "does not match"},
		{"empty key", func(t *testing.T, dir string) { writeFile(t, dir, "key.pem", "") }, "tls.key"},
		{"cut key", func(t *testing.T, dir string) { writeFile(t, dir, "key.pem", first.keyPEM(t)[:80]) }, "tls.key"},
		{"bad CA beside a good pair", func(t *testing.T, dir string) {
			pairFiles{dir}.write(t, second)
			writeFile(t, dir, "ca.pem", "x")
		}, "tls.client_ca"},
		{"bad ticket keys beside a good pair", func(t *testing.T, dir string) {
			pairFiles{dir}.write(t, second)
			writeFile(t, dir, "tickets", "x")
		}, "tls.ticket_keys"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := pairFiles{t.TempDir()}
			files.write(t, first)
			c := files.config()
			c.Mode, c.ClientAuth = ModeManual, "verify-if-given"
			c.ClientCA = writeFile(t, files.dir, "ca.pem", ca.pem)
			c.TicketKeys = writeFile(t, files.dir, "tickets", hexKey(1))
			material := mustTLS(t, c)
			address := serveTLS(t, material.Config())

			tt.spoil(t, files.dir)
			changed, err := reload(material)
			checkError(t, err, []string{"listeners: ", tt.want})
			if changed {
				t.Error("changed beside an error")
			}
			state, err := dialTLS(t, address, clientConfig(ca))
			if err != nil || !state.PeerCertificates[0].Equal(first.cert) {
				t.Errorf("the old certificate is not served: %v", err)
			}

			files.write(t, second)
			writeFile(t, files.dir, "ca.pem", ca.pem)
			writeFile(t, files.dir, "tickets", hexKey(1))
			if changed, err := reload(material); !changed || err != nil {
				t.Errorf("Reload of good files = %v, %v; want a change", changed, err)
			}
		})
	}
}

func TestReloadUnderHandshakes(t *testing.T) {
	ca := newAuthority(t, "ca")
	servers := []*authority{ca.server(t), ca.server(t)}
	files := pairFiles{t.TempDir()}
	files.write(t, servers[0])
	material := mustTLS(t, files.config())
	address := serveTLS(t, material.Config())

	const clients, handshakes = 4, 25
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range handshakes {
				if _, err := dialTLS(t, address, clientConfig(ca)); err != nil {
					t.Errorf("handshake: %v", err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	for i := 1; !isClosed(done); i++ {
		files.write(t, servers[i%2])
		if _, err := reload(material); err != nil {
			t.Errorf("Reload: %v", err)
		}
	}
}

// TestTicketsOwnKeys resumes without a ticket_keys file, across a reload of the
// certificate.
func TestTicketsOwnKeys(t *testing.T) {
	ca := newAuthority(t, "ca")
	for _, version := range []string{"1.2", "1.3"} {
		t.Run(version, func(t *testing.T) {
			files := pairFiles{t.TempDir()}
			files.write(t, ca.server(t))
			c := files.config()
			c.Mode, c.MaxVersion = ModeManual, version
			material := mustTLS(t, c)
			address := serveTLS(t, material.Config())
			resumes := newResumer(t, ca, nil)
			resumes.check(address, false)
			resumes.check(address, true)
			files.write(t, ca.server(t))
			if changed, err := reload(material); !changed || err != nil {
				t.Fatalf("Reload = %v, %v; want a change", changed, err)
			}
			resumes.check(address, true)
		})
	}
}

// TestReloadSelfSigned keeps the certificate, which clients may have pinned, when
// something beside it changes.
func TestReloadSelfSigned(t *testing.T) {
	tickets := writeFile(t, t.TempDir(), "tickets", hexKey(1))
	material := mustTLS(t, TLSConfig{Mode: ModeSelfSigned, TicketKeys: tickets, Optional: true})
	before := material.Certificates()[0]
	writeFile(t, filepath.Dir(tickets), "tickets", hexKey(2))
	if changed, err := reload(material); !changed || err != nil {
		t.Errorf("Reload = %v, %v; want a change", changed, err)
	}
	if !material.Certificates()[0].Equal(before) {
		t.Error("another certificate")
	}
}

// TestTicketsSharedKeys resumes on another replica and across rotations.
func TestTicketsSharedKeys(t *testing.T) {
	ca := newAuthority(t, "ca")
	server := ca.server(t)
	for _, version := range []string{"1.2", "1.3"} {
		t.Run(version, func(t *testing.T) {
			dir := t.TempDir()
			config := func(name string, keys ...byte) TLSConfig {
				return TLSConfig{
					Mode: ModeManual, Cert: server.pem, Key: server.keyPEM(t), MaxVersion: version,
					TicketKeys: writeFile(t, dir, name, ticketLines(keys...)),
				}
			}
			material := mustTLS(t, config("one", 1))
			one := serveTLS(t, material.Config())
			two := serveTLS(t, mustTLS(t, config("two", 2, 1)).Config())
			three := serveTLS(t, mustTLS(t, config("three", 3)).Config())

			newResumer(t, ca, nil).check(one, false).check(one, true).check(two, true)
			newResumer(t, ca, nil).check(one, false).check(three, false)

			held := newResumer(t, ca, nil).check(one, false)
			lost := newResumer(t, ca, nil).check(one, false)
			writeFile(t, dir, "one", ticketLines(4, 1))
			if changed, err := reload(material); !changed || err != nil {
				t.Fatalf("Reload = %v, %v; want a change", changed, err)
			}
			held.check(one, true)
			writeFile(t, dir, "one", ticketLines(4))
			if changed, err := reload(material); !changed || err != nil {
				t.Fatalf("Reload = %v, %v; want a change", changed, err)
			}
			held.check(one, true) // By the ticket of key 4 that it got in between.
			lost.check(one, false)
		})
	}
}

// TestTicketsFollowClientCA takes away the authority of a client that holds a
// ticket: the ticket must not let it in.
func TestTicketsFollowClientCA(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	server := ca.server(t)
	dir := t.TempDir()
	material := mustTLS(t, TLSConfig{
		Mode: ModeMutual, Cert: server.pem, Key: server.keyPEM(t),
		ClientCA: writeFile(t, dir, "ca.pem", ca.pem), TicketKeys: writeFile(t, dir, "tickets", hexKey(1)),
	})
	address := serveTLS(t, material.Config())
	client := ca.client(t).tlsCertificate()
	resumes := newResumer(t, ca, &client).check(address, false).check(address, true)
	writeFile(t, dir, "ca.pem", stranger.pem)
	if changed, err := reload(material); !changed || err != nil {
		t.Fatalf("Reload = %v, %v; want a change", changed, err)
	}
	if state, err := dialTLS(t, address, resumes.config); err == nil {
		t.Errorf("let in without an authority, resumed %v", state.DidResume)
	}
}

// resumer is a client that keeps its tickets.
type resumer struct {
	t      *testing.T
	config *tls.Config
}

func newResumer(t *testing.T, ca *authority, cert *tls.Certificate) *resumer {
	config := clientConfig(ca)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return &resumer{t, config}
}

func (r *resumer) check(address string, want bool) *resumer {
	r.t.Helper()
	state, err := dialTLS(r.t, address, r.config)
	if err != nil || state.DidResume != want {
		r.t.Errorf("resumed %v, error %v; want %v", state.DidResume, err, want)
	}
	return r
}

func ticketLines(keys ...byte) string {
	var lines strings.Builder
	for _, key := range keys {
		lines.WriteString(hexKey(key) + "\n")
	}
	return lines.String()
}

func TestWarnings(t *testing.T) {
	ca := newAuthority(t, "ca")
	outOfTime := func(notBefore, notAfter time.Duration) *authority {
		return issue(t, &x509.Certificate{
			Subject:   pkix.Name{CommonName: "server"},
			NotBefore: time.Now().Add(notBefore), NotAfter: time.Now().Add(notAfter),
		}, ca)
	}
	tests := []struct {
		name   string
		server *authority
		change func(*TLSConfig)
		want   []string // the beginnings
	}{
		{"none", ca.server(t), func(*TLSConfig) {}, nil},
		{"expired", outOfTime(-2*time.Hour, -time.Hour), func(*TLSConfig) {}, []string{"tls.cert: expired at"}},
		{"early", outOfTime(time.Hour, 2*time.Hour), func(*TLSConfig) {}, []string{"tls.cert: not valid before"}},
		{"passphrase", ca.server(t), func(c *TLSConfig) { c.KeyPassphrase = "p" }, []string{"tls.key_passphrase: the key is not encrypted"}},
		{
			"optional", ca.server(t),
			func(c *TLSConfig) { c.Optional, c.ClientAuth = true, "require" },
			[]string{"tls.optional: plaintext clients"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := TLSConfig{Mode: ModeManual, Cert: tt.server.pem, Key: tt.server.keyPEM(t)}
			tt.change(&c)
			got := mustTLS(t, c).Warnings()
			for i := range min(len(got), len(tt.want)) {
				got[i] = got[i][:min(len(got[i]), len(tt.want[i]))]
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}
