package listeners

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSelfSigned trusts nothing but the certificate itself.
func TestSelfSigned(t *testing.T) {
	material := mustTLS(t, TLSConfig{Mode: ModeSelfSigned})
	address := serveTLS(t, material.Config())
	ca := &authority{cert: material.Certificates()[0]}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		config := clientConfig(ca)
		config.ServerName = name
		if _, err := dialTLS(t, address, config); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	config := clientConfig(ca)
	config.ServerName = "example.com"
	if _, err := dialTLS(t, address, config); err == nil {
		t.Error("the certificate passes for example.com")
	}
	leaf := material.Certificates()[0]
	if d := time.Until(leaf.NotAfter); d < 364*24*time.Hour || d > 366*24*time.Hour {
		t.Errorf("lifetime %v, want a year", d)
	}
	if changed, err := reload(material); changed || err != nil {
		t.Errorf("Reload = %v, %v; want no change", changed, err)
	}
}

func TestPairByPathAndInline(t *testing.T) {
	ca := newAuthority(t, "ca")
	server := ca.server(t)
	dir := t.TempDir()
	cert := writeFile(t, dir, "cert.pem", server.pem)
	key := writeFile(t, dir, "key.pem", server.keyPEM(t))
	both := writeFile(t, dir, "both.pem", server.pem+server.keyPEM(t))
	encrypted := pkcs8Key(t, server, "right")
	tests := []struct {
		name   string
		config TLSConfig
	}{
		{"auto paths", TLSConfig{Cert: cert, Key: key}},
		{"auto inline", TLSConfig{Mode: ModeAuto, Cert: server.pem, Key: server.keyPEM(t)}},
		{"auto mixed", TLSConfig{Cert: cert, Key: server.keyPEM(t)}},
		{"auto one file", TLSConfig{Cert: both, Key: both}},
		{"manual", TLSConfig{Mode: ModeManual, Cert: cert, Key: key}},
		{"manual pkcs8", TLSConfig{Mode: ModeManual, Cert: cert, Key: encrypted, KeyPassphrase: "right"}},
		{"passphrase in a file", TLSConfig{Mode: ModeManual, Cert: cert, Key: encrypted, KeyPassphraseFile: passphraseFile(t, "right\n")}},
		{"manual legacy", TLSConfig{Mode: ModeManual, Cert: cert, Key: legacyKey(t, server, "right"), KeyPassphrase: "right"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			material := mustTLS(t, tt.config)
			if _, err := dialTLS(t, serveTLS(t, material.Config()), clientConfig(ca)); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]string(nil), material.Warnings()); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNewTLSRefuses(t *testing.T) {
	ca := newAuthority(t, "ca")
	server, other := ca.server(t), ca.server(t)
	dir := t.TempDir()
	tests := []struct {
		name   string
		config TLSConfig
		want   []string
	}{
		{"off", TLSConfig{}, []string{"tls.mode: off"}},
		{"invalid", TLSConfig{Mode: ModeAuto}, []string{"tls.cert: needed"}},
		{"no such file", TLSConfig{Cert: dir + "/none", Key: server.keyPEM(t)}, []string{"tls.cert", dir + "/none"}},
		{"a directory", TLSConfig{Cert: server.pem, Key: dir}, []string{"tls.key", dir}},
		{"mismatch", TLSConfig{Cert: server.pem, Key: other.keyPEM(t)}, []string{"tls.cert and tls.key", "does not match"}},
		{"no certificate", TLSConfig{Cert: server.keyPEM(t), Key: server.keyPEM(t)}, []string{"tls.cert"}},
		{"wrong passphrase", TLSConfig{Mode: ModeManual, Cert: server.pem, Key: pkcs8Key(t, server, "a"), KeyPassphrase: "b"}, []string{"tls.key", "wrong passphrase"}},
		{"missing passphrase", TLSConfig{Cert: server.pem, Key: pkcs8Key(t, server, "a")}, []string{"tls.key", "key_passphrase is needed"}},
		{
			"CA without certificates",
			TLSConfig{Mode: ModeMutual, Cert: server.pem, Key: server.keyPEM(t), ClientCA: server.keyPEM(t)},
			[]string{"tls.client_ca", "no certificate"},
		},
		{
			"broken CA behind a good one",
			TLSConfig{Mode: ModeMutual, Cert: server.pem, Key: server.keyPEM(t), ClientCA: ca.pem + encode("CERTIFICATE", []byte("x"))},
			[]string{"tls.client_ca", "certificate 2"},
		},
		{"no ticket file", TLSConfig{Mode: ModeSelfSigned, TicketKeys: dir + "/none"}, []string{"tls.ticket_keys", dir + "/none"}},
		{"empty ticket file", TLSConfig{Mode: ModeSelfSigned, TicketKeys: writeFile(t, dir, "t", "")}, []string{"tls.ticket_keys", "no key"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			material, err := NewTLS(tt.config)
			checkError(t, err, append([]string{"listeners: "}, tt.want...))
			if material != nil {
				t.Error("material beside an error")
			}
		})
	}
}

func TestClientAuth(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	server := ca.server(t)
	const (
		nobody = iota
		known
		unknown
	)
	tests := []struct {
		mode, auth string
		want       [3]bool // whether nobody, known, unknown get in
	}{
		{ModeMutual, "", [3]bool{false, true, false}},
		{ModeMutual, "require-and-verify", [3]bool{false, true, false}},
		{ModeMutual, "verify-if-given", [3]bool{true, true, false}},
		{ModeMutual, "require", [3]bool{false, true, true}},
		{ModeManual, "request", [3]bool{true, true, true}},
		{ModeManual, "require-and-verify", [3]bool{false, true, false}},
		{ModeManual, "none", [3]bool{true, true, true}},
	}
	for _, tt := range tests {
		t.Run(tt.mode+" "+tt.auth, func(t *testing.T) {
			c := TLSConfig{Mode: tt.mode, Cert: server.pem, Key: server.keyPEM(t), ClientAuth: tt.auth}
			if tt.auth != "none" {
				c.ClientCA = ca.pem
			}
			address := serveTLS(t, mustTLS(t, c).Config())
			var got [3]bool
			for who, issuer := range []*authority{nobody: nil, known: ca, unknown: stranger} {
				config := clientConfig(ca)
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if issuer == nil {
						return new(tls.Certificate), nil
					}
					cert := issuer.client(t).tlsCertificate()
					return &cert, nil
				}
				_, err := dialTLS(t, address, config)
				got[who] = err == nil
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("nobody, known, unknown get in (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVersionsAndCipherSuites(t *testing.T) {
	const suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
	tests := []struct {
		name   string
		config TLSConfig
		client *tls.Config
		want   uint16 // version; 0 means refused
		suite  string
	}{
		{name: "default", want: tls.VersionTLS13},
		{name: "default at 1.2", client: &tls.Config{MaxVersion: tls.VersionTLS12}, want: tls.VersionTLS12},
		{name: "default at 1.1", client: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}},
		{name: "minimum", config: TLSConfig{MinVersion: "1.3"}, client: &tls.Config{MaxVersion: tls.VersionTLS12}},
		{name: "maximum", config: TLSConfig{MaxVersion: "1.2"}, want: tls.VersionTLS12},
		{name: "maximum refuses", config: TLSConfig{MaxVersion: "1.2"}, client: &tls.Config{MinVersion: tls.VersionTLS13}},
		{name: "suite", config: TLSConfig{MaxVersion: "1.2", CipherSuites: []string{suite}}, want: tls.VersionTLS12, suite: suite},
		{
			name:   "suite refuses",
			config: TLSConfig{MaxVersion: "1.2", CipherSuites: []string{suite}},
			client: &tls.Config{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Mode = ModeSelfSigned
			material := mustTLS(t, tt.config)
			client := tt.client.Clone()
			if client == nil {
				client = new(tls.Config)
			}
			client.RootCAs, client.ServerName = (&authority{cert: material.Certificates()[0]}).pool(), "localhost"
			state, err := dialTLS(t, serveTLS(t, material.Config()), client)
			if (err == nil) != (tt.want != 0) || err == nil && state.Version != tt.want {
				t.Fatalf("version %s, error %v; want %s", tls.VersionName(state.Version), err, tls.VersionName(tt.want))
			}
			if tt.suite != "" && tls.CipherSuiteName(state.CipherSuite) != tt.suite {
				t.Errorf("suite %s, want %s", tls.CipherSuiteName(state.CipherSuite), tt.suite)
			}
		})
	}
}

func TestALPN(t *testing.T) {
	material := mustTLS(t, TLSConfig{Mode: ModeSelfSigned})
	standard, single := serveTLS(t, material.Config()), serveTLS(t, material.Config("http/1.1"))
	tests := []struct {
		name    string
		address string
		offer   []string
		want    string
		refused bool
	}{
		{name: "prefers h2", address: standard, offer: []string{"http/1.1", "h2"}, want: "h2"},
		{name: "http/1.1", address: standard, offer: []string{"http/1.1"}, want: "http/1.1"},
		{name: "no offer", address: standard},
		{name: "no overlap", address: standard, offer: []string{"spdy/3"}, refused: true},
		{name: "own list", address: single, offer: []string{"h2", "http/1.1"}, want: "http/1.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := clientConfig(&authority{cert: material.Certificates()[0]})
			config.NextProtos = tt.offer
			state, err := dialTLS(t, tt.address, config)
			if (err != nil) != tt.refused || state.NegotiatedProtocol != tt.want {
				t.Errorf("protocol %q, error %v; want %q, refused %v", state.NegotiatedProtocol, err, tt.want, tt.refused)
			}
		})
	}
}

// TestNeverPlaintext speaks HTTP to the TLS port.
func TestNeverPlaintext(t *testing.T) {
	address := serveTLS(t, mustTLS(t, TLSConfig{Mode: ModeSelfSigned}).Config())
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	n, _ := conn.Read(answer)
	if strings.Contains(string(answer[:n]), "!") {
		t.Errorf("plaintext was answered: %q", answer[:n])
	}
}

// passphraseFile writes a passphrase to a file.
func passphraseFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
