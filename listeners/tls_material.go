package listeners

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

// material is what one load has read. It never changes.
type material struct {
	digest   [sha256.Size]byte // of everything read, to tell a change
	cert     tls.Certificate
	clientCA *x509.CertPool
	tickets  [][32]byte
	warnings []string
}

// load reads what c names. Every error names its key and source, and no secret.
func load(c TLSConfig) (*material, error) {
	m := new(material)
	var certText, plainKey []byte
	defer func() { clear(plainKey) }()
	digest := sha256.New()
	for _, part := range []struct {
		key, value string
		parse      func(text []byte) error
	}{
		{"cert", c.Cert, func(text []byte) error {
			certText = text
			return nil
		}},
		{"key", c.Key, func(text []byte) error {
			plain, encrypted, err := decryptKey(text, c.KeyPassphrase)
			if c.KeyPassphrase != "" && !encrypted {
				m.warnings = append(m.warnings, "tls.key_passphrase: the key is not encrypted")
			}
			plainKey = plain
			return err
		}},
		{"client_ca", c.ClientCA, func(text []byte) (err error) {
			m.clientCA, err = parseCertPool(text)
			return err
		}},
		{"ticket_keys", c.TicketKeys, func(text []byte) (err error) {
			m.tickets, err = parseTicketKeys(text)
			return err
		}},
	} {
		if part.value == "" {
			continue
		}
		from := source(part.value)
		text, err := from.read()
		if err != nil {
			return nil, fmt.Errorf("listeners: tls.%s: %w", part.key, err)
		}
		fmt.Fprintf(digest, "%s %d ", part.key, len(text))
		digest.Write(text)
		if err := part.parse(text); err != nil {
			return nil, fmt.Errorf("listeners: tls.%s: %s: %w", part.key, from, err)
		}
	}
	if c.mode() != ModeSelfSigned {
		var err error
		if m.cert, err = tls.X509KeyPair(certText, plainKey); err != nil {
			return nil, fmt.Errorf("listeners: tls.cert and tls.key: %s, %s: %w", source(c.Cert), source(c.Key), err)
		}
	}
	if auth, _ := c.clientAuth(); c.Optional && auth != tls.NoClientCert {
		m.warnings = append(m.warnings, "tls.optional: plaintext clients get past the client certificate that client_auth asks for")
	}
	digest.Sum(m.digest[:0])
	return m, nil
}

// warnValidity warns of a certificate that clients refuse at now. It is served all the
// same: a clock may be wrong, and some clients do not look.
func (m *material) warnValidity(now time.Time) []string {
	leaf := m.cert.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return []string{"tls.cert: expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)}
	case now.Before(leaf.NotBefore):
		return []string{"tls.cert: not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339)}
	default:
		return nil
	}
}

// sameAs reports whether both were read from the same bytes.
func (m *material) sameAs(other *material) bool {
	return bytes.Equal(m.digest[:], other.digest[:])
}

// source is a configured value: a file's path or the PEM text itself.
type source string

// inlineMarker begins every PEM block (RFC 7468, section 2), and no sensible path.
const inlineMarker = "-----BEGIN "

// inline reports whether the value is text rather than a path. A value of several lines
// is broken text: taken for a path, it would show the key in an error message.
func (s source) inline() bool {
	return strings.Contains(string(s), inlineMarker) || strings.ContainsAny(string(s), "\r\n")
}

// read returns the PEM text.
func (s source) read() ([]byte, error) {
	if s.inline() {
		return []byte(s), nil
	}
	return os.ReadFile(string(s))
}

// String names the source without showing inline text.
func (s source) String() string {
	if s.inline() {
		return "[inline PEM]"
	}
	return string(s)
}

// parseCertPool returns a pool of every certificate in text. Unlike
// x509.CertPool.AppendCertsFromPEM it fails for a broken one: a missing authority would
// lock clients out.
func parseCertPool(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	count := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		count++
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", count, err)
		}
		pool.AddCert(cert)
	}
	if count == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return pool, nil
}

const (
	// selfSignedLifetime is below the 398 days above which clients refuse a certificate.
	selfSignedLifetime = 365 * 24 * time.Hour

	// clockSkew is how far a client's clock may be behind.
	clockSkew = time.Hour

	// serialBits is the length of a serial number (RFC 5280, section 4.1.2.2): 20 octets, of
	// which the first bit is a sign.
	serialBits = 159
)

// newSelfSigned makes an ECDSA P-256 certificate for this host's loopback names.
func newSelfSigned(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "muxserve self-signed"},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(selfSignedLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
