package listeners

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// material is all that was loaded at one moment. It never changes.
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
	digest := sha256.New()
	read := func(key string, s source) ([]byte, error) {
		text, err := s.read()
		if err != nil {
			return nil, fmt.Errorf("listeners: tls.%s: %w", key, err)
		}
		fmt.Fprintf(digest, "%s %d ", key, len(text))
		digest.Write(text)
		return text, nil
	}
	if c.EffectiveMode() != ModeSelfSigned {
		if err := m.loadPair(c, read); err != nil {
			return nil, err
		}
	}
	if c.ClientCA != "" {
		text, err := read("client_ca", source(c.ClientCA))
		if err != nil {
			return nil, err
		}
		if m.clientCA, err = parseCertPool(text); err != nil {
			return nil, fmt.Errorf("listeners: tls.client_ca: %s: %w", source(c.ClientCA), err)
		}
	}
	if c.TicketKeys != "" {
		text, err := read("ticket_keys", source(c.TicketKeys))
		if err != nil {
			return nil, err
		}
		if m.tickets, err = parseTicketKeys(text); err != nil {
			return nil, fmt.Errorf("listeners: tls.ticket_keys: %s: %w", source(c.TicketKeys), err)
		}
	}
	if auth, _ := c.clientAuth(); c.Optional && auth != tls.NoClientCert {
		m.warnings = append(m.warnings, "tls.optional: plaintext clients get past the client certificate that client_auth asks for")
	}
	digest.Sum(m.digest[:0])
	return m, nil
}

// loadPair reads certificate and key, which must belong together.
func (m *material) loadPair(c TLSConfig, read func(string, source) ([]byte, error)) error {
	certText, err := read("cert", source(c.Cert))
	if err != nil {
		return err
	}
	keyText, err := read("key", source(c.Key))
	if err != nil {
		return err
	}
	plainKey, encrypted, err := decryptKey(keyText, c.KeyPassphrase)
	if err != nil {
		return fmt.Errorf("listeners: tls.key: %s: %w", source(c.Key), err)
	}
	defer clear(plainKey)
	if c.KeyPassphrase != "" && !encrypted {
		m.warnings = append(m.warnings, "tls.key_passphrase: the key is not encrypted")
	}
	m.cert, err = tls.X509KeyPair(certText, plainKey)
	if err != nil {
		return fmt.Errorf("listeners: tls.cert and tls.key: %s, %s: %w", source(c.Cert), source(c.Key), err)
	}
	return nil
}

// warnValidity says whether clients refuse the certificate at now. It is served
// all the same: a clock may be wrong, and some clients do not look.
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
