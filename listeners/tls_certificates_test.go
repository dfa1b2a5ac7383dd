package listeners

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// certificateFor issues a certificate for names. Its subject is the first of them.
func (a *authority) certificateFor(t *testing.T, rsaKey bool, names ...string) *authority {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names}
	if !rsaKey {
		return issue(t, template, a)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, key, template, a)
}

// several returns the configuration of certificates in files below dir.
func several(t *testing.T, dir string, certificates ...*authority) TLSConfig {
	t.Helper()
	var c TLSConfig
	for i, one := range certificates {
		c.Certificates = append(c.Certificates, CertificateConfig{
			Cert: writeFile(t, dir, fmt.Sprint(i, ".pem"), one.pem),
			Key:  writeFile(t, dir, fmt.Sprint(i, ".key"), one.keyPEM(t)),
		})
	}
	return c
}

// chosen returns the certificate that a client gets for a name, and trusts nothing.
func chosen(t *testing.T, address, name string, suites ...uint16) *x509.Certificate {
	t.Helper()
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true, CipherSuites: suites}
	if suites != nil {
		config.MaxVersion = tls.VersionTLS12 // In 1.3 a suite says nothing about the key.
	}
	state, err := dialTLS(t, address, config)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return state.PeerCertificates[0]
}

// TestCertificateChoice has clients with their names and key types.
func TestCertificateChoice(t *testing.T) {
	const (
		forRSA   = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		forECDSA = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	)
	ca := newAuthority(t, "ca")
	certificates := []*authority{
		ca.certificateFor(t, true, "a.test", "www.a.test"), ca.certificateFor(t, false, "a.test"), ca.certificateFor(t, false, "*.b.test"),
	}
	material := mustTLS(t, several(t, t.TempDir(), certificates...))
	address := serveTLS(t, material.Config())
	tests := []struct {
		name   string
		suites []uint16
		want   int
		known  bool
	}{
		{"a.test", nil, 0, true},
		{"a.test", []uint16{forRSA}, 0, true},
		{"a.test", []uint16{forECDSA}, 1, true},
		{"a.test", []uint16{forECDSA, forRSA}, 0, true},
		{"A.TEST", []uint16{forECDSA}, 1, true},
		{"www.a.test", nil, 0, true},
		{"x.b.test", nil, 2, true},
		{"x.b.test", []uint16{forECDSA, forRSA}, 2, true},
		{"", nil, 0, false},
		{"", []uint16{forECDSA}, 1, false},
		{"c.test", nil, 0, false},
		{"b.test", []uint16{forECDSA, forRSA}, 0, false},
	}
	for _, tt := range tests {
		if got := chosen(t, address, tt.name, tt.suites...); !got.Equal(certificates[tt.want].cert) {
			t.Errorf("%q with suites %x: number %v, want that of number %d", tt.name, tt.suites, got.SerialNumber, tt.want)
		}
		if got := material.HasName(tt.name); got != tt.known {
			t.Errorf("HasName(%q) = %t", tt.name, got)
		}
	}
}

func TestCertificatesValidate(t *testing.T) {
	pair := CertificateConfig{Cert: "c", Key: "k"}
	tests := []struct {
		name   string
		config TLSConfig
		want   []string
	}{
		{"auto", TLSConfig{Certificates: []CertificateConfig{pair, pair}}, nil},
		{"manual", TLSConfig{Mode: ModeManual, Certificates: []CertificateConfig{pair}}, nil},
		{"an empty list", TLSConfig{Mode: ModeSelfSigned, Certificates: []CertificateConfig{}}, nil},
		{"beside a pair", TLSConfig{Cert: "c", Key: "k", Certificates: []CertificateConfig{pair}}, []string{"tls.certificates: cert or key is set, too"}},
		{"no key", TLSConfig{Certificates: []CertificateConfig{pair, {Cert: "c"}}}, []string{"tls.certificates[1].key: needed in mode auto"}},
		{"no certificate", TLSConfig{Certificates: []CertificateConfig{{Key: "k"}}}, []string{"tls.certificates[0].cert: needed in mode auto"}},
		{
			"two passphrases",
			TLSConfig{Certificates: []CertificateConfig{{Cert: "c", Key: "k", KeyPassphrase: "p", KeyPassphraseFile: "f"}}},
			[]string{"tls.certificates[0].key_passphrase_file: key_passphrase is set, too"},
		},
		{"self-signed", TLSConfig{Mode: ModeSelfSigned, Certificates: []CertificateConfig{pair}}, []string{"tls.certificates: not allowed in mode self-signed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkError(t, Config{Address: ":0", TLS: tt.config}.Validate(), tt.want) })
	}
}

// TestCertificatesLoad has one fault in each of several certificates, and an encrypted key.
func TestCertificatesLoad(t *testing.T) {
	ca := newAuthority(t, "ca")
	one, other := ca.certificateFor(t, false, "a.test"), ca.certificateFor(t, true, "b.test")
	c := several(t, t.TempDir(), one, other, one, other)
	c.Certificates[1].Key = c.Certificates[0].Key
	c.Certificates[2].Cert = "/missing.pem"
	c.Certificates[3].Key = writeFile(t, t.TempDir(), "key", pkcs8Key(t, other, "right"))
	_, err := NewTLS(c)
	checkError(t, err, []string{
		"listeners: tls.certificates[1].cert and tls.certificates[1].key: ", "listeners: tls.certificates[2].cert: open /missing.pem",
		"listeners: tls.certificates[3].key: ", "key_passphrase is needed",
	})
	c.Certificates = c.Certificates[3:]
	c.Certificates[0].KeyPassphraseFile = passphraseFile(t, "right\n")
	address := serveTLS(t, mustTLS(t, c).Config())
	if got := chosen(t, address, "b.test"); !got.Equal(other.cert) {
		t.Errorf("got %v", got.Subject)
	}
	files := []string{c.Certificates[0].Cert, c.Certificates[0].Key, c.Certificates[0].KeyPassphraseFile}
	if diff := cmp.Diff(files, c.Files()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestCertificatesReload renews one of two certificates, after its files were bad.
func TestCertificatesReload(t *testing.T) {
	ca, dir := newAuthority(t, "ca"), t.TempDir()
	one, other := ca.certificateFor(t, true, "a.test"), ca.certificateFor(t, false, "a.test")
	material := mustTLS(t, several(t, dir, one, other))
	check := func(want ...*authority) {
		t.Helper()
		for i, got := range material.Certificates() {
			if !got.Equal(want[i].cert) {
				t.Errorf("certificate %d has number %v, want %v", i, got.SerialNumber, want[i].cert.SerialNumber)
			}
		}
	}
	renewed := ca.certificateFor(t, false, "a.test")
	writeFile(t, dir, "1.pem", renewed.pem)
	changed, err := reload(material)
	checkError(t, err, []string{"tls.certificates[1].cert and tls.certificates[1].key", "does not match"})
	if changed {
		t.Error("changed beside an error")
	}
	check(one, other)
	writeFile(t, dir, "1.key", renewed.keyPEM(t))
	if changed, err := reload(material); !changed || err != nil {
		t.Errorf("Reload = %v, %v; want a change", changed, err)
	}
	check(one, renewed)
	if err := os.Remove(filepath.Join(dir, "0.key")); err != nil {
		t.Fatal(err)
	}
	_, err = reload(material)
	checkError(t, err, []string{"tls.certificates[0].key"})
	check(one, renewed)
}

func TestCertificatesWarnings(t *testing.T) {
	ca := newAuthority(t, "ca")
	expired := issue(t, &x509.Certificate{
		DNSNames: []string{"a.test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	}, ca)
	c := several(t, t.TempDir(), ca.server(t), expired)
	c.Certificates[0].KeyPassphrase = "p"
	got := strings.Join(mustTLS(t, c).Warnings(), "\n")
	for _, want := range []string{"tls.certificates[0].key_passphrase: the key is not encrypted", "tls.certificates[1].cert: expired at"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}
