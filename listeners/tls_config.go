package listeners

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// The values of TLSConfig.Mode.
const (
	ModeOff        = "off"         // plaintext
	ModeSelfSigned = "self-signed" // a certificate made in memory, for development
	ModeAuto       = "auto"        // certificate and key, safe defaults for the rest
	ModeManual     = "manual"      // every key may be set
	ModeMutual     = "mutual"      // as manual, with verified client certificates
)

// TLSConfig describes the TLS side of a listener. The zero value is off. It is
// plain data; [NewTLS] loads what it names.
//
// Cert, Key and ClientCA are each the path of a PEM file or the PEM text itself.
// A passphrase or an inline key shows up neither in fmt's output nor in slog's
// text form; use [TLSConfig.Redacted] before handing a TLSConfig to an encoder.
type TLSConfig struct {
	// Mode is one of the Mode constants. Empty means auto where Cert is set,
	// and off otherwise.
	Mode string `apply:"restart" yaml:"mode"`

	// Cert is the certificate chain, leaf first. Key is its private key.
	// Both are needed in auto, manual and mutual.
	Cert string `apply:"runtime" yaml:"cert"`
	Key  string `apply:"runtime" yaml:"key"`

	// KeyPassphrase decrypts Key: PKCS#8 (PBES2) or the legacy encrypted PEM
	// form of RFC 1421.
	KeyPassphrase string `apply:"runtime" yaml:"key_passphrase"`

	// ClientCA holds the certificates that client certificates must lead to.
	ClientCA string `apply:"restart" yaml:"client_ca"`

	// MinVersion and MaxVersion are "1.2" or "1.3", which are the defaults.
	MinVersion string `apply:"restart" yaml:"min_version"`
	MaxVersion string `apply:"restart" yaml:"max_version"`

	// CipherSuites are names as in crypto/tls; empty means Go's choice. They
	// bear on TLS 1.2 alone: those of TLS 1.3 cannot be chosen.
	CipherSuites []string `apply:"restart" yaml:"cipher_suites"`

	// ClientAuth is none, request, require, verify-if-given or
	// require-and-verify. The default is require-and-verify in mutual and none
	// elsewhere; request and require do not verify.
	ClientAuth string `apply:"restart" yaml:"client_auth"`

	// Optional lets plaintext connections onto the same port.
	Optional bool `apply:"restart" yaml:"optional"`

	// TicketKeys is the path of a file with one 32-byte session ticket key a
	// line, in hex or base64. The first encrypts, all decrypt; replicas that
	// share the file resume each other's sessions. Empty means keys of this
	// process's own, rotated daily.
	TicketKeys string `apply:"runtime" yaml:"ticket_keys"`
}

// EffectiveMode returns Mode with its default resolved.
func (c TLSConfig) EffectiveMode() string {
	switch {
	case c.Mode != "":
		return c.Mode
	case c.Cert != "":
		return ModeAuto
	default:
		return ModeOff
	}
}

// Enabled reports whether the listener speaks TLS.
func (c TLSConfig) Enabled() bool { return c.EffectiveMode() != ModeOff }

// Validate reports every fault that shows without reading a file, each naming
// its key. A key that the mode would ignore is a fault, except in an explicit
// "off", which switches TLS off whatever else is set.
func (c TLSConfig) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("listeners: tls.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	switch mode := c.EffectiveMode(); mode {
	case ModeOff:
		if c.Mode == "" {
			refuse(fault, "has no effect without a certificate; set cert and key, or mode", c.setKeys())
		}
		return errors.Join(faults...)
	case ModeSelfSigned:
		refuse(fault, "not allowed in mode self-signed, which makes its own certificate", c.setKeys("cert", "key", "key_passphrase"))
	case ModeAuto:
		c.requirePair(fault)
		refuse(fault, "not allowed in mode auto; set mode: manual or mode: mutual", c.setKeys(autoRefused...))
	case ModeManual, ModeMutual:
		c.requirePair(fault)
	default:
		fault("mode", "unknown %q; want off, self-signed, auto, manual or mutual", mode)
	}
	c.validateVersions(fault)
	c.validateClientAuth(fault)
	if holdsTicketKeys(c.TicketKeys) {
		fault("ticket_keys", "want the path of a file, not the keys")
	}
	return errors.Join(faults...)
}

// faultFunc records a fault of one key.
type faultFunc func(key, format string, args ...any)

// autoRefused are the keys that mode auto does without.
var autoRefused = []string{
	"key_passphrase", "client_ca", "min_version", "max_version",
	"cipher_suites", "client_auth", "optional", "ticket_keys",
}

// setKeys returns those of the named keys that are set, of all but mode where
// none is named.
func (c TLSConfig) setKeys(names ...string) []string {
	keys := []struct {
		name string
		set  bool
	}{
		{"cert", c.Cert != ""},
		{"key", c.Key != ""},
		{"key_passphrase", c.KeyPassphrase != ""},
		{"client_ca", c.ClientCA != ""},
		{"min_version", c.MinVersion != ""},
		{"max_version", c.MaxVersion != ""},
		{"cipher_suites", len(c.CipherSuites) > 0},
		{"client_auth", c.ClientAuth != ""},
		{"optional", c.Optional},
		{"ticket_keys", c.TicketKeys != ""},
	}
	var set []string
	for _, key := range keys {
		if key.set && (len(names) == 0 || slices.Contains(names, key.name)) {
			set = append(set, key.name)
		}
	}
	return set
}

func refuse(fault faultFunc, reason string, keys []string) {
	for _, key := range keys {
		fault(key, "%s", reason)
	}
}

func (c TLSConfig) requirePair(fault faultFunc) {
	if c.Cert == "" {
		fault("cert", "needed in mode %s", c.EffectiveMode())
	}
	if c.Key == "" {
		fault("key", "needed in mode %s", c.EffectiveMode())
	}
}

func (c TLSConfig) validateVersions(fault faultFunc) {
	minimum, err := parseVersion(c.MinVersion, tls.VersionTLS12)
	if err != nil {
		fault("min_version", "%v", err)
	}
	maximum, maxErr := parseVersion(c.MaxVersion, tls.VersionTLS13)
	if maxErr != nil {
		fault("max_version", "%v", maxErr)
	}
	if err == nil && maxErr == nil && minimum > maximum {
		fault("min_version", "%q is above max_version %q", c.MinVersion, c.MaxVersion)
	}
	suites, errs := parseCipherSuites(c.CipherSuites)
	for _, err := range errs {
		fault("cipher_suites", "%v", err)
	}
	if len(c.CipherSuites) == 0 || len(errs) > 0 {
		return
	}
	switch {
	case minimum >= tls.VersionTLS13:
		fault("cipher_suites", "no effect with min_version 1.3, whose suites cannot be chosen")
	case !anyForTLS12(suites):
		fault("cipher_suites", "none of these serves TLS 1.2; add one, or set min_version 1.3 and leave them out")
	}
}

func (c TLSConfig) validateClientAuth(fault faultFunc) {
	auth, err := c.clientAuth()
	if err != nil {
		fault("client_auth", "%v", err)
		return
	}
	mode := c.EffectiveMode()
	verifies := auth == tls.VerifyClientCertIfGiven || auth == tls.RequireAndVerifyClientCert
	switch {
	case mode == ModeAuto: // Both keys are refused as a whole.
	case mode == ModeMutual && auth == tls.NoClientCert:
		fault("client_auth", "none asks for no certificate, so mode mutual would not be mutual; set mode: manual")
	case mode == ModeMutual && c.ClientCA == "":
		fault("client_ca", "needed in mode mutual")
	case verifies && c.ClientCA == "":
		// crypto/tls would fall back to the system's roots, and so admit
		// whoever has a certificate from any public authority.
		fault("client_ca", "needed with client_auth %s", c.ClientAuth)
	case auth == tls.NoClientCert && c.ClientCA != "":
		fault("client_ca", "no effect while client_auth is none")
	}
}

// Redacted returns a copy without secrets: the passphrase, and a key that is
// not a path.
func (c TLSConfig) Redacted() TLSConfig {
	if c.KeyPassphrase != "" {
		c.KeyPassphrase = "[redacted]"
	}
	c.Cert, c.Key, c.ClientCA = source(c.Cert).String(), source(c.Key).String(), source(c.ClientCA).String()
	if holdsTicketKeys(c.TicketKeys) {
		c.TicketKeys = "[redacted]"
	}
	return c
}

// String formats the configuration without its secrets.
func (c TLSConfig) String() string {
	type plain TLSConfig // Without the methods, so that fmt does not come back here.
	return fmt.Sprintf("%+v", plain(c.Redacted()))
}

// GoString is String: the %#v verb must not print secrets either.
func (c TLSConfig) GoString() string { return c.String() }

// LogValue formats the configuration for slog without its secrets.
func (c TLSConfig) LogValue() slog.Value { return slog.StringValue(c.String()) }

// clientAuth returns the policy that ClientAuth and the mode ask for.
func (c TLSConfig) clientAuth() (tls.ClientAuthType, error) {
	if c.ClientAuth == "" && c.EffectiveMode() == ModeMutual {
		return tls.RequireAndVerifyClientCert, nil
	}
	return parseClientAuth(c.ClientAuth)
}
