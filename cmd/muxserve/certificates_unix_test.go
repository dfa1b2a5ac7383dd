//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificates are an RSA and an ECDSA certificate for a.test, and an ECDSA certificate for
// b.test. The serial number of each is its position.
type certificates struct{ dir string }

// file returns the name of a file of a certificate.
func (c certificates) file(position int, kind string) string {
	return filepath.Join(c.dir, fmt.Sprint(position, kind))
}

// write writes one of them.
func (c certificates) write(t *testing.T, position int, expires time.Time) {
	t.Helper()
	var key crypto.Signer
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if position == 0 {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	name := []string{"a.test", "a.test", "b.test"}[position]
	writeCertificate(t, c.file(position, ".pem"), c.file(position, ".key"), key, &x509.Certificate{
		SerialNumber: big.NewInt(int64(position)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: expires,
	})
}

// config returns a configuration with all of them.
func (c certificates) config() string {
	text := "admin: {address: \"127.0.0.1:0\"}\nwatch: true\nlisteners:\n  - address: 127.0.0.1:0\n    tls:\n      certificates:\n"
	for i := range 3 {
		text += fmt.Sprintf("        - {cert: %q, key: %q}\n", c.file(i, ".pem"), c.file(i, ".key"))
	}
	return text
}

// serialFor returns the serial number of the certificate that a client gets.
func (p *running) serialFor(t *testing.T, config *tls.Config) int64 {
	t.Helper()
	config.InsecureSkipVerify = true
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", p.service.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secure, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatalf("a TLS dialer returned a %T", conn)
	}
	return secure.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// opensslSerialFor is serialFor for OpenSSL, which can limit the signatures of TLS 1.3.
func (p *running) opensslSerialFor(t *testing.T, signatures string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "openssl", "s_client", "-connect", p.service.Host, "-servername", "a.test", "-tls1_3", "-sigalgs", signatures).Output()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	_, text, _ := bytes.Cut(out, []byte("-----BEGIN"))
	block, _ := pem.Decode(append([]byte("-----BEGIN"), text...))
	if block == nil {
		t.Fatalf("no certificate in\n%s", out)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate.SerialNumber.Int64()
}

// metric returns the lines of a metric.
func (r *reloadable) metric(t *testing.T, name string) []string {
	t.Helper()
	_, data, err := fetch(t.Context(), r.client, http.MethodGet, r.admin.JoinPath("metrics"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, name) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// TestSeveralCertificates has clients of every kind ask one listener.
func TestSeveralCertificates(t *testing.T) {
	t.Parallel()
	files, expires := certificates{t.TempDir()}, time.Now().Add(time.Hour)
	for i := range 3 {
		files.write(t, i, expires)
	}
	r := startReloadable(t, files.config())
	unknown := func() string { return strings.Join(r.metric(t, "mux_tls_unknown_names_total"), "\n") }
	if got := unknown(); got != "mux_tls_unknown_names_total 0" {
		t.Errorf("at the start: %q", got)
	}
	if got := r.metric(t, "mux_tls_certificate_not_after_timestamp_seconds{"); len(got) != 3 ||
		!strings.Contains(got[0], `key="ECDSA",position="1",subject="CN=a.test"`) || !strings.Contains(got[2], `key="RSA",position="0",subject="CN=a.test"`) {
		t.Errorf("expiry of the certificates:\n%s", strings.Join(got, "\n"))
	}
	const (
		forRSA   = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		forECDSA = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	)
	for _, tt := range []struct {
		config *tls.Config
		want   int64
	}{
		{&tls.Config{ServerName: "a.test"}, 0},
		{&tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{forRSA}}, 0},
		{&tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{forECDSA}}, 1},
		{&tls.Config{ServerName: "b.test"}, 2},
		{new(tls.Config), 0},
	} {
		if got := r.serialFor(t, tt.config); got != tt.want {
			t.Errorf("%q with suites %x: certificate %d, want %d", tt.config.ServerName, tt.config.CipherSuites, got, tt.want)
		}
	}
	if got := unknown(); got != "mux_tls_unknown_names_total 0" {
		t.Errorf("after known names: %q", got)
	}
	if got := r.serialFor(t, &tls.Config{ServerName: "c.test"}); got != 0 {
		t.Errorf("certificate %d for an unknown name, want the first", got)
	}
	eventually(t, "the unknown name is counted", func() bool { return unknown() == "mux_tls_unknown_names_total 1" })
	t.Run("openssl", func(t *testing.T) {
		if _, err := exec.LookPath("openssl"); err != nil {
			t.Skipf("CI installs it: %v", err)
		}
		for signatures, want := range map[string]int64{"ecdsa_secp256r1_sha256": 1, "rsa_pss_rsae_sha256": 0} {
			if got := r.opensslSerialFor(t, signatures); got != want {
				t.Errorf("%s: certificate %d, want %d", signatures, got, want)
			}
		}
	})
}

// TestWatchSeveralCertificates renews one of several certificates, and spoils another.
func TestWatchSeveralCertificates(t *testing.T) {
	t.Parallel()
	files, expires := certificates{t.TempDir()}, time.Now().Add(time.Hour)
	for i := range 3 {
		files.write(t, i, expires)
	}
	r := startReloadable(t, files.config())
	describe := func(expires time.Time) string {
		return "CN=a.test (ECDSA), expires " + expires.UTC().Format(time.RFC3339)
	}
	files.write(t, 1, expires.Add(time.Hour))
	r.logged(t, "[certificates: "+describe(expires)+" -> "+describe(expires.Add(time.Hour))+"]", 1)
	failed := strings.Count(r.stderr.String(), logFailed) // The watcher may have seen half of the pair.
	if err := os.WriteFile(files.file(2, ".key"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.logged(t, logFailed, failed+1)
	r.logged(t, "listeners[0].tls.certificates[2].key: "+files.file(2, ".key"), 1)
	if got := r.serialFor(t, &tls.Config{ServerName: "b.test"}); got != 2 {
		t.Errorf("certificate %d after a reload that failed, want 2", got)
	}
	files.write(t, 2, expires.Add(2*time.Hour))
	r.logged(t, "CN=b.test (ECDSA), expires "+expires.Add(2*time.Hour).UTC().Format(time.RFC3339)+"]", 1)
}

// TestCheckSeveralCertificates checks lists with faults, and prints one.
func TestCheckSeveralCertificates(t *testing.T) {
	t.Parallel()
	files := certificates{t.TempDir()}
	for i := range 3 {
		files.write(t, i, time.Now().Add(time.Hour))
	}
	good := files.config()
	tests := []struct{ name, text, want string }{
		{"both forms", good + "      cert: c.pem\n", ":6: listeners[0].tls.certificates: cert or key is set, too; move them into the list, or leave the list out"},
		{"no key", good + "        - {cert: c.pem}\n", ":10: listeners[0].tls.certificates[3].key: needed in mode auto"},
		{"no file", good + "        - {cert: /missing.pem, key: k}\n", ":10: listeners[0].tls.certificates[3].cert: open /missing.pem"},
		{"a secret of the wrong type", good + "        - {cert: c.pem, key: k, key_passphrase: 12345}\n", ":10: listeners[0].tls.certificates[3].key_passphrase: want a text, which is put in quotes here, not what stands there"},
		{"unknown key", good + "        - {cret: c.pem}\n", ":10: listeners[0].tls.certificates[3].cret: unknown key; did you mean cert?"},
	}
	for _, tt := range tests {
		file := filepath.Join(t.TempDir(), "muxserve.yaml")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, stderr := runBinary(t, "check", "--config", file); code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, want %q in\n%s", tt.name, code, tt.want, stderr)
		}
	}
	file := filepath.Join(t.TempDir(), "muxserve.yaml")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "check", "--config", file, "--listen=127.0.0.1:1", "--listen=127.0.0.1:2").Output()
	want := fmt.Sprintf("        - cert: %s  # %s:7\n          key: %s  # %[2]s:7\n", files.file(0, ".pem"), file, files.file(0, ".key"))
	if err != nil || strings.Count(string(out), want) != 2 {
		t.Errorf("%v, want twice\n%s in\n%s", err, want, out)
	}
}
