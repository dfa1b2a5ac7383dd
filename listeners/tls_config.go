package listeners

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
)

// The values of TLSConfig.Mode.
const (
	ModeOff        = "off"         // plaintext
	ModeSelfSigned = "self-signed" // a certificate made in memory, for development
	ModeAuto       = "auto"        // certificate and key, safe defaults for the rest
	ModeManual     = "manual"      // every key may be set
	ModeMutual     = "mutual"      // as manual, with verified client certificates
)

// TLSConfig describes the TLS side of a listener. The zero value is off. It is plain
// data; [NewTLS] loads what it names.
//
// Cert, Key and ClientCA are each the path of a PEM file or the PEM text itself. Package
// fmt and slog's text form show neither a passphrase nor an inline key. Call
// [Config.Shown] before handing a Config to an encoder.
type TLSConfig struct {
	// Mode is one of the Mode constants. Empty means auto where Cert is set, and off
	// otherwise.
	Mode string `apply:"restart" yaml:"mode"`

	// Cert is the certificate chain, leaf first, and Key its private key. Both are needed
	// in auto, manual and mutual.
	Cert string `apply:"runtime" yaml:"cert"`
	Key  string `apply:"runtime" yaml:"key"`

	// KeyPassphrase decrypts Key: PKCS#8 (PBES2) or the encrypted PEM form of RFC 1421.
	KeyPassphrase string `apply:"runtime" yaml:"key_passphrase"`
	// KeyPassphraseFile is the path of a file with the passphrase, without the end of its
	// last line. It takes the place of KeyPassphrase.
	KeyPassphraseFile string `apply:"runtime" yaml:"key_passphrase_file"`

	// Certificates are several certificates, in place of Cert and Key: for several names, or
	// with an RSA and an ECDSA key for one. A client gets the first that is for its server
	// name and has a key of a type that it supports, or else the first of all.
	Certificates []CertificateConfig `apply:"runtime" yaml:"certificates"`

	// ClientCA holds the certificates that client certificates must lead to.
	ClientCA string `apply:"restart" yaml:"client_ca"`

	// MinVersion and MaxVersion are "1.2" or "1.3", which are the defaults.
	MinVersion string `apply:"restart" yaml:"min_version"`
	MaxVersion string `apply:"restart" yaml:"max_version"`

	// CipherSuites are IANA's names, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, for TLS 1.2
	// alone; empty means Go's choice.
	CipherSuites []string `apply:"restart" yaml:"cipher_suites"`

	// ClientAuth is none, request, require, verify-if-given or require-and-verify. The
	// default is require-and-verify in mutual and none elsewhere; request and require do
	// not verify.
	ClientAuth string `apply:"restart" yaml:"client_auth"`

	// Optional lets plaintext connections onto the same port.
	Optional bool `apply:"restart" yaml:"optional"`

	// TicketKeys is the path of a file with one 32-byte session ticket key a line, in hex
	// or base64. The first encrypts, all decrypt; replicas that share the file resume each
	// other's sessions. Empty means keys of this process, rotated daily.
	TicketKeys string `apply:"runtime" yaml:"ticket_keys"`
}

// CertificateConfig names one certificate of [TLSConfig].Certificates. Packages fmt and
// slog show neither its passphrase nor an inline key.
type CertificateConfig struct {
	// Cert is the certificate chain, leaf first, and Key its private key: each the path of a
	// PEM file or the PEM text itself.
	Cert string `apply:"runtime" yaml:"cert"`
	Key  string `apply:"runtime" yaml:"key"`

	// KeyPassphrase decrypts Key: PKCS#8 (PBES2) or the encrypted PEM form of RFC 1421.
	KeyPassphrase string `apply:"runtime" yaml:"key_passphrase"`
	// KeyPassphraseFile is the path of a file with the passphrase, without the end of its
	// last line. It takes the place of KeyPassphrase.
	KeyPassphraseFile string `apply:"runtime" yaml:"key_passphrase_file"`
}

// String returns the sources of the certificate and its key.
func (c CertificateConfig) String() string {
	return fmt.Sprintf("{cert: %s, key: %s}", source(c.Cert), source(c.Key))
}

// GoString is String, without the secrets that %#v would show.
func (c CertificateConfig) GoString() string { return c.String() }

// LogValue implements [slog.LogValuer], without the secrets.
func (c CertificateConfig) LogValue() slog.Value { return slog.StringValue(c.String()) }

// redacted returns a copy without secrets.
func (c CertificateConfig) redacted() CertificateConfig {
	if c.KeyPassphrase != "" {
		c.KeyPassphrase = redacted
	}
	c.Cert, c.Key = source(c.Cert).String(), source(c.Key).String()
	return c
}

// redacted stands for a secret.
const redacted = "[redacted]"

// pair is a configured certificate, and the path of the section that names it.
type pair struct {
	CertificateConfig

	path string
}

// pairs returns the configured certificates.
func (c TLSConfig) pairs() []pair {
	if len(c.Certificates) == 0 {
		return []pair{{c.single(), "tls"}}
	}
	all := make([]pair, len(c.Certificates))
	for i, one := range c.Certificates {
		all[i] = pair{one, fmt.Sprintf("tls.certificates[%d]", i)}
	}
	return all
}

// single returns the certificate that stands outside of the list.
func (c TLSConfig) single() CertificateConfig {
	return CertificateConfig{c.Cert, c.Key, c.KeyPassphrase, c.KeyPassphraseFile}
}

// Files returns the names of all files that c names.
func (c TLSConfig) Files() []string {
	var names []string
	for _, p := range c.pairs() {
		names = append(names, p.Cert, p.Key, p.KeyPassphraseFile)
	}
	names = append(names, c.ClientCA, c.TicketKeys)
	return slices.DeleteFunc(names, func(name string) bool { return name == "" || source(name).inline() })
}

// mode returns Mode with its default filled in.
func (c TLSConfig) mode() string {
	switch {
	case c.Mode != "":
		return c.Mode
	case c.Cert != "" || len(c.Certificates) > 0:
		return ModeAuto
	default:
		return ModeOff
	}
}

// Enabled reports whether the listener speaks TLS.
func (c TLSConfig) Enabled() bool { return c.mode() != ModeOff }

// check finds the faults that show without reading a file. A key that the mode would
// ignore is a fault, except in an explicit "off".
func (c TLSConfig) check(f *faults) {
	switch mode := c.mode(); mode {
	case ModeOff:
		if c.Mode == "" {
			c.refuse(f, "has no effect without a certificate; set cert and key, or mode", func(string) bool { return true })
		}
		return
	case ModeSelfSigned:
		c.refuse(f, "not allowed in mode self-signed, which makes its own certificate", func(name string) bool {
			return strings.HasPrefix(name, "cert") || strings.HasPrefix(name, "key")
		})
	case ModeAuto:
		c.requirePairs(f)
		c.refuse(f, "not allowed in mode auto; set mode: manual or mode: mutual", func(name string) bool {
			return name != "cert" && name != "key" && name != "certificates"
		})
	case ModeManual, ModeMutual:
		c.requirePairs(f)
	default:
		f.addf("tls.mode", "unknown %q; want off, self-signed, auto, manual or mutual", mode)
	}
	c.checkVersions(f)
	c.checkClientAuth(f)
	if holdsTicketKeys(c.TicketKeys) {
		f.addf("tls.ticket_keys", "want the path of a file, not the keys")
	}
}

// refuse makes a fault of each key but mode that is set and unwanted. An empty list counts
// as not set.
func (c TLSConfig) refuse(f *faults, reason string, unwanted func(name string) bool) {
	for field, value := range reflect.ValueOf(c).Fields() {
		name := field.Tag.Get("yaml")
		isSet := !value.IsZero() && (value.Kind() != reflect.Slice || value.Len() > 0)
		if name != "mode" && isSet && unwanted(name) {
			f.addf("tls."+name, "%s", reason)
		}
	}
}

func (c TLSConfig) requirePairs(f *faults) {
	if len(c.Certificates) > 0 && c.single() != (CertificateConfig{}) {
		f.addf("tls.certificates", "cert or key is set, too; move them into the list, or leave the list out")
	}
	for _, p := range c.pairs() {
		if p.Cert == "" {
			f.addf(p.path+".cert", "needed in mode %s", c.mode())
		}
		if p.Key == "" {
			f.addf(p.path+".key", "needed in mode %s", c.mode())
		}
		if p.KeyPassphrase != "" && p.KeyPassphraseFile != "" {
			f.addf(p.path+".key_passphrase_file", "key_passphrase is set, too; leave one of them out")
		}
	}
}

func (c TLSConfig) checkVersions(f *faults) {
	minimum, err := parseVersion(c.MinVersion, tls.VersionTLS12)
	if err != nil {
		f.addf("tls.min_version", "%w", err)
	}
	maximum, maxErr := parseVersion(c.MaxVersion, tls.VersionTLS13)
	if maxErr != nil {
		f.addf("tls.max_version", "%w", maxErr)
	}
	if err == nil && maxErr == nil && minimum > maximum {
		f.addf("tls.min_version", "%q is above max_version %q", c.MinVersion, c.MaxVersion)
	}
	suites, errs := parseCipherSuites(c.CipherSuites)
	for _, err := range errs {
		f.addf("tls.cipher_suites", "%w", err)
	}
	forTLS12 := func(s *tls.CipherSuite) bool { return slices.Contains(s.SupportedVersions, tls.VersionTLS12) }
	switch {
	case len(c.CipherSuites) == 0 || len(errs) > 0:
	case minimum >= tls.VersionTLS13:
		f.addf("tls.cipher_suites", "no effect with min_version 1.3, whose suites cannot be chosen")
	case !slices.ContainsFunc(suites, forTLS12):
		f.addf("tls.cipher_suites", "none of these serves TLS 1.2; add one, or set min_version 1.3 and leave them out")
	}
}

func (c TLSConfig) checkClientAuth(f *faults) {
	auth, err := c.clientAuth()
	if err != nil {
		f.addf("tls.client_auth", "%w", err)
		return
	}
	mode := c.mode()
	verifies := auth == tls.VerifyClientCertIfGiven || auth == tls.RequireAndVerifyClientCert
	switch {
	case mode == ModeAuto: // Both keys are refused as a whole.
	case mode == ModeMutual && auth == tls.NoClientCert:
		f.addf("tls.client_auth", "none asks for no certificate, so mode mutual would not be mutual; set mode: manual")
	case mode == ModeMutual && c.ClientCA == "":
		f.addf("tls.client_ca", "needed in mode mutual")
	case verifies && c.ClientCA == "":
		// crypto/tls would fall back to the system's roots, and so admit every client with a
		// certificate of a public authority.
		f.addf("tls.client_ca", "needed with client_auth %s", c.ClientAuth)
	case auth == tls.NoClientCert && c.ClientCA != "":
		f.addf("tls.client_ca", "no effect while client_auth is none")
	}
}

// redacted returns a copy without secrets: the passphrase, and a key that is not a path.
func (c TLSConfig) redacted() TLSConfig {
	one := c.single().redacted()
	c.Cert, c.Key, c.KeyPassphrase = one.Cert, one.Key, one.KeyPassphrase
	c.Certificates = slices.Clone(c.Certificates)
	for i := range c.Certificates {
		c.Certificates[i] = c.Certificates[i].redacted()
	}
	c.ClientCA = source(c.ClientCA).String()
	if holdsTicketKeys(c.TicketKeys) {
		c.TicketKeys = redacted
	}
	return c
}

// Format implements [fmt.Formatter], without the secrets.
func (c TLSConfig) Format(f fmt.State, verb rune) {
	type plain TLSConfig // Without this method, so that fmt does not come back here.
	fmt.Fprintf(f, fmt.FormatString(f, verb), plain(c.redacted()))
}

// LogValue implements [slog.LogValuer], without the secrets.
func (c TLSConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", c)) }

// clientAuth returns the policy that ClientAuth and the mode ask for.
func (c TLSConfig) clientAuth() (tls.ClientAuthType, error) {
	if c.ClientAuth == "" && c.mode() == ModeMutual {
		return tls.RequireAndVerifyClientCert, nil
	}
	auth, ok := clientAuthNames[c.ClientAuth]
	if !ok {
		return 0, fmt.Errorf("unknown %q; want none, request, require, verify-if-given or require-and-verify", c.ClientAuth)
	}
	return auth, nil
}

// clientAuthNames are the values of TLSConfig.ClientAuth.
var clientAuthNames = map[string]tls.ClientAuthType{
	"":                   tls.NoClientCert,
	"none":               tls.NoClientCert,
	"request":            tls.RequestClientCert,
	"require":            tls.RequireAnyClientCert,
	"verify-if-given":    tls.VerifyClientCertIfGiven,
	"require-and-verify": tls.RequireAndVerifyClientCert,
}

// parseVersion returns the number of a TLS version, or unset for "".
func parseVersion(name string, unset uint16) (uint16, error) {
	switch name {
	case "":
		return unset, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	case "1.0", "1.1":
		return 0, fmt.Errorf("%q is not offered: RFC 8996 forbids it, and HTTP/2 needs 1.2 (RFC 9113, section 9.2)", name)
	default:
		return 0, fmt.Errorf(`unknown %q; want "1.2" or "1.3"`, name)
	}
}

// parseCipherSuites returns the suites of the valid names, and an error for each other.
func parseCipherSuites(names []string) (suites []*tls.CipherSuite, errs []error) {
	for _, name := range names {
		named := func(s *tls.CipherSuite) bool { return s.Name == name }
		if i := slices.IndexFunc(tls.CipherSuites(), named); i >= 0 {
			suites = append(suites, tls.CipherSuites()[i])
		} else if slices.ContainsFunc(tls.InsecureCipherSuites(), named) {
			errs = append(errs, fmt.Errorf("%q is insecure", name))
		} else {
			errs = append(errs, fmt.Errorf("unknown %q; names are those of Go's crypto/tls", name))
		}
	}
	return suites, errs
}
