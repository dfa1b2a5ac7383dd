package listeners

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestTLSConfigMode(t *testing.T) {
	tests := []struct {
		config  TLSConfig
		mode    string
		enabled bool
	}{
		{TLSConfig{}, ModeOff, false},
		{TLSConfig{Cert: "c"}, ModeAuto, true},
		{TLSConfig{Mode: ModeOff, Cert: "c"}, ModeOff, false},
		{TLSConfig{Mode: ModeMutual}, ModeMutual, true},
		{TLSConfig{Mode: ModeSelfSigned}, ModeSelfSigned, true},
	}
	for _, tt := range tests {
		if got := tt.config.mode(); got != tt.mode {
			t.Errorf("%v: mode %q, want %q", tt.config, got, tt.mode)
		}
		if got := tt.config.Enabled(); got != tt.enabled {
			t.Errorf("%v: enabled %v, want %v", tt.config, got, tt.enabled)
		}
	}
}

func TestTLSConfigValidate(t *testing.T) {
	const suite = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	tests := []struct {
		name   string
		config TLSConfig
		want   []string // parts of the error; none means valid
	}{
		{name: "zero"},
		{name: "off overrides all", config: TLSConfig{Mode: ModeOff, Key: "k", Optional: true, MinVersion: "7"}},
		{name: "auto by certificate", config: TLSConfig{Cert: "c", Key: "k"}},
		{name: "self-signed", config: TLSConfig{Mode: ModeSelfSigned, Optional: true, MinVersion: "1.3"}},
		{name: "manual", config: TLSConfig{
			Mode: ModeManual, Cert: "c", Key: "k", KeyPassphrase: "p", ClientCA: "ca", ClientAuth: "verify-if-given",
			MinVersion: "1.2", MaxVersion: "1.3", CipherSuites: []string{suite}, Optional: true, TicketKeys: "t",
		}},
		{name: "manual request without a CA", config: TLSConfig{Mode: ModeManual, Cert: "c", Key: "k", ClientAuth: "request"}},
		{name: "mutual", config: TLSConfig{Mode: ModeMutual, Cert: "c", Key: "k", ClientCA: "ca"}},
		{name: "mutual relaxed", config: TLSConfig{Mode: ModeMutual, Cert: "c", Key: "k", ClientCA: "ca", ClientAuth: "verify-if-given"}},

		{name: "unknown mode", config: TLSConfig{Mode: "Auto"}, want: []string{`tls.mode: unknown "Auto"`}},
		{name: "keys without a mode", config: TLSConfig{Key: "k", ClientCA: "ca"}, want: []string{"tls.key: has no effect", "tls.client_ca: has no effect"}},
		{name: "auto without a pair", config: TLSConfig{Mode: ModeAuto}, want: []string{"tls.cert: needed in mode auto", "tls.key: needed in mode auto"}},
		{name: "mutual without all", config: TLSConfig{Mode: ModeMutual}, want: []string{"tls.cert: needed", "tls.key: needed", "tls.client_ca: needed in mode mutual"}},
		{
			name: "auto refuses the rest",
			config: TLSConfig{
				Cert: "c", Key: "k", KeyPassphrase: "p", ClientCA: "ca", ClientAuth: "require", MinVersion: "1.2",
				MaxVersion: "1.3", CipherSuites: []string{suite}, Optional: true, TicketKeys: "t",
			},
			want: []string{
				"tls.key_passphrase: not allowed in mode auto", "tls.client_ca: not allowed", "tls.client_auth: not allowed",
				"tls.min_version: not allowed", "tls.max_version: not allowed", "tls.cipher_suites: not allowed",
				"tls.optional: not allowed", "tls.ticket_keys: not allowed",
			},
		},
		{
			name:   "self-signed with a pair",
			config: TLSConfig{Mode: ModeSelfSigned, Cert: "c", Key: "k", KeyPassphrase: "p"},
			want:   []string{"tls.cert: not allowed", "tls.key: not allowed", "tls.key_passphrase: not allowed"},
		},
		{name: "versions", config: TLSConfig{Mode: ModeSelfSigned, MinVersion: "1.1", MaxVersion: "2"}, want: []string{"tls.min_version", "RFC 8996", `tls.max_version: unknown "2"`}},
		{name: "versions crossed", config: TLSConfig{Mode: ModeSelfSigned, MinVersion: "1.3", MaxVersion: "1.2"}, want: []string{`tls.min_version: "1.3" is above`}},
		{
			name:   "cipher suites",
			config: TLSConfig{Mode: ModeSelfSigned, CipherSuites: []string{suite, "TLS_RSA_WITH_RC4_128_SHA", "AES"}},
			want:   []string{`tls.cipher_suites: "TLS_RSA_WITH_RC4_128_SHA" is insecure`, `tls.cipher_suites: unknown "AES"`},
		},
		{name: "suites of 1.3 alone", config: TLSConfig{Mode: ModeSelfSigned, CipherSuites: []string{"TLS_AES_128_GCM_SHA256"}}, want: []string{"none of these serves TLS 1.2"}},
		{name: "suites without 1.2", config: TLSConfig{Mode: ModeSelfSigned, MinVersion: "1.3", CipherSuites: []string{suite}}, want: []string{"tls.cipher_suites: no effect"}},
		{name: "client auth", config: TLSConfig{Mode: ModeSelfSigned, ClientAuth: "yes"}, want: []string{`tls.client_auth: unknown "yes"`}},
		{name: "verify without a CA", config: TLSConfig{Mode: ModeManual, Cert: "c", Key: "k", ClientAuth: "verify-if-given"}, want: []string{"tls.client_ca: needed with client_auth verify-if-given"}},
		{name: "CA without effect", config: TLSConfig{Mode: ModeManual, Cert: "c", Key: "k", ClientCA: "ca"}, want: []string{"tls.client_ca: no effect while client_auth is none"}},
		{name: "mutual with none", config: TLSConfig{Mode: ModeMutual, Cert: "c", Key: "k", ClientCA: "ca", ClientAuth: "none"}, want: []string{"tls.client_auth: none"}},
		{name: "ticket key for a path", config: TLSConfig{Mode: ModeSelfSigned, TicketKeys: strings.Repeat("ab", 32)}, want: []string{"tls.ticket_keys: want the path"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkError(t, Config{Address: ":0", TLS: tt.config}.Validate(), tt.want) })
	}
}

func TestTLSConfigHidesSecrets(t *testing.T) {
	ticketKey := strings.Repeat("5e", 32)
	c := TLSConfig{
		Cert: "/etc/cert.pem", Key: inlineMarker + "PRIVATE KEY-----\nS3CRET\n", KeyPassphrase: "S3CRET", TicketKeys: ticketKey,
	}
	one := CertificateConfig{Cert: c.Cert, Key: c.Key, KeyPassphrase: c.KeyPassphrase}
	several := TLSConfig{Certificates: []CertificateConfig{one}}
	var logged bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&logged, nil))
	logger.Info("x", "tls", c)
	logger.Info("x", "config", Config{TLS: c})
	logger.Info("x", "tls", several)
	logger.Info("x", "one", one)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "one", one)
	shown, err := json.Marshal(Config{TLS: several}.Shown())
	if err != nil {
		t.Fatal(err)
	}
	outputs := map[string]string{
		"%v":       fmt.Sprintf("%v", c),
		"%+v":      fmt.Sprintf("%+v", Config{TLS: c}),
		"%#v":      fmt.Sprintf("%#v", Config{TLS: c}),
		"pointer":  fmt.Sprint(&c),
		"validate": fmt.Sprint(Config{TLS: c}.Validate()),
		"slog":     logged.String(),

		"several":     fmt.Sprintf("%v", several),
		"several %#v": fmt.Sprintf("%#v", Config{TLS: several}),
		"one":         fmt.Sprintf("%+v", one),
		"one %#v":     fmt.Sprintf("%#v", one),
		"shown":       string(shown),
	}
	for name, out := range outputs {
		if strings.Contains(out, "S3CRET") || strings.Contains(out, ticketKey) {
			t.Errorf("%s shows a secret: %s", name, out)
		}
		if name != "validate" && !strings.Contains(out, "/etc/cert.pem") {
			t.Errorf("%s lacks the certificate's path: %s", name, out)
		}
	}
}

// TestErrorsHideSecrets gives broken values, whose errors must not repeat them.
func TestErrorsHideSecrets(t *testing.T) {
	server := newAuthority(t, "ca").server(t)
	dir := t.TempDir()
	tests := map[string]TLSConfig{
		"broken inline key":  {Cert: server.pem, Key: "S3CRET\nS3CRET\n"},
		"marker without PEM": {Cert: server.pem, Key: inlineMarker + "S3CRET"},
		"key without frame":  {Cert: server.pem, Key: base64.StdEncoding.EncodeToString(append([]byte{0x30, 6}, "S3CRET"...))},
		"wrong passphrase":   {Mode: ModeManual, Cert: server.pem, Key: legacyKey(t, server, "right"), KeyPassphrase: "S3CRET"},
		"broken ticket key":  {Mode: ModeSelfSigned, TicketKeys: writeFile(t, dir, "keys", "S3CRET\n")},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewTLS(c)
			checkError(t, err, []string{"listeners: tls."})
			if err != nil && (strings.Contains(err.Error(), "S3CRET") || name == "key without frame" && strings.Contains(err.Error(), c.Key)) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}
