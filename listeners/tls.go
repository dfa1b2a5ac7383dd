package listeners

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"reflect"
	"slices"
	"sync/atomic"
	"time"
)

// defaultNextProtos is the default of ALPN: HTTP/2 (RFC 9113, section 3.2) before
// HTTP/1.1 (RFC 7301, section 6).
var defaultNextProtos = []string{"h2", "http/1.1"}

// TLS is the loaded material of a TLSConfig, made by [NewTLS]. All methods may be called
// concurrently, also during handshakes.
type TLS struct {
	base    *tls.Config // the settings that Prepare does not change; never handed out itself
	current atomic.Pointer[material]
}

// NewTLS loads what c names. It falls back to nothing: it fails for a configuration that
// is invalid or off, and for material that cannot be read, decrypted or paired. An
// expired certificate loads with a warning.
func NewTLS(c TLSConfig) (*TLS, error) {
	var f faults
	c.check(&f)
	if err := errors.Join(f...); err != nil {
		return nil, err
	}
	if !c.Enabled() {
		return nil, errors.New("listeners: tls.mode: off, nothing to load")
	}
	m, err := load(c)
	if err != nil {
		return nil, err
	}
	if c.mode() == ModeSelfSigned {
		cert, err := newSelfSigned(time.Now())
		if err != nil {
			return nil, err
		}
		m.certs = []tls.Certificate{cert}
	}
	t := &TLS{base: baseConfig(c)}
	t.current.Store(m)
	return t, nil
}

// baseConfig translates a valid configuration.
func baseConfig(c TLSConfig) *tls.Config {
	minimum, _ := parseVersion(c.MinVersion, tls.VersionTLS12)
	maximum, _ := parseVersion(c.MaxVersion, tls.VersionTLS13)
	auth, _ := c.clientAuth()
	base := &tls.Config{MinVersion: minimum, MaxVersion: maximum, ClientAuth: auth}
	suites, _ := parseCipherSuites(c.CipherSuites)
	for _, suite := range suites {
		base.CipherSuites = append(base.CipherSuites, suite.ID)
	}
	return base
}

// Config returns a new configuration for a server. Its certificates, client CA and ticket
// keys follow what Prepare puts in use. Of several certificates crypto/tls chooses one, see
// [tls.ClientHelloInfo.SupportsCertificate]. ALPN offers nextProtos, or h2 and http/1.1 where
// none is given.
//
// Call it once for a listener, not for each connection: without a ticket_keys file, the
// session ticket keys live in the configuration that the listener gives to crypto/tls.
// Its other fields take no part in a handshake, because GetConfigForClient answers each.
func (t *TLS) Config(nextProtos ...string) *tls.Config {
	if len(nextProtos) == 0 {
		nextProtos = defaultNextProtos
	}
	outer := t.base.Clone()
	nextProtos = slices.Clone(nextProtos)
	outer.NextProtos = nextProtos
	// One configuration is made for each material, so that a handshake costs two loads.
	type made struct {
		from   *material
		config *tls.Config
	}
	var last atomic.Pointer[made]
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := t.current.Load()
		if m := last.Load(); m != nil && m.from == current {
			return m.config, nil
		}
		c := t.base.Clone()
		c.NextProtos = nextProtos
		c.Certificates = current.certs
		c.ClientCAs = current.clientCA
		if len(current.tickets) > 0 {
			// Without keys of its own, crypto/tls takes the outer configuration's, which
			// outlives reloads and rotates them.
			c.SetSessionTicketKeys(current.tickets)
		}
		last.Store(&made{from: current, config: c})
		return c, nil
	}
	return outer
}

// Prepare reads the files that c names, and returns the certificates that new handshakes are
// to get and a function that puts the new material in use. c differs from the configuration in
// use in nothing but the certificates, their keys and the ticket keys; the rest has no effect.
// The certificates are nil where no file's content differs, and the function where nothing
// does. Both are nil where Prepare has failed, also where only one file is bad or the two of a
// pair do not match yet.
//
// After use, new handshakes get the new material as a whole. Established connections keep
// theirs. Tickets stay good while their key, and the client CA of a verified client, are
// still there. Of two calls at a time, the later use wins.
func (t *TLS) Prepare(c TLSConfig) (next []*x509.Certificate, use func(), err error) {
	old := t.current.Load()
	m, err := load(c)
	if err != nil {
		return nil, nil, err
	}
	if c.mode() == ModeSelfSigned {
		m.certs = old.certs
	}
	use = func() { t.current.Store(m) }
	switch {
	case m.digest != old.digest:
		return m.leaves(), use, nil
	case !reflect.DeepEqual(m.config, old.config):
		return nil, use, nil // Warnings name the new paths.
	default:
		return nil, nil, nil
	}
}

// Certificates returns the leaves that new handshakes get, in the order of the
// configuration. Do not modify them.
func (t *TLS) Certificates() []*x509.Certificate { return t.current.Load().leaves() }

// HasName reports whether one of the certificates is for a server name. A client that asks
// for another name gets the first certificate.
func (t *TLS) HasName(name string) bool {
	return slices.ContainsFunc(t.current.Load().certs, func(c tls.Certificate) bool { return c.Leaf.VerifyHostname(name) == nil })
}

// Warnings returns what is odd about the material in use now, but no error: a certificate
// that is not valid now, a passphrase for a plain key, client certificates that plaintext
// gets past.
func (t *TLS) Warnings() []string {
	m := t.current.Load()
	var warnings []string
	for i, p := range m.config.pairs() {
		warnings = append(warnings, p.warnValidity(m.certs[i].Leaf, time.Now())...)
	}
	return append(warnings, m.warnings...)
}
