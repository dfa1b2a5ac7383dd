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
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/youmark/pkcs8"
)

// material is what one load has read. It never changes.
type material struct {
	config   TLSConfig         // what names it
	digest   [sha256.Size]byte // of everything read, to tell a change
	certs    []tls.Certificate // at least one, in the order of the configuration
	clientCA *x509.CertPool
	tickets  [][32]byte
	warnings []string
}

// reader reads what a key names, and has parse take it. Its error names the key and the
// source. It does nothing for a key that is not set.
type reader func(key, value string, parse func(text []byte) error) error

// load reads what c names. Every error names its key and source, and no secret.
func load(c TLSConfig) (*material, error) {
	c.CipherSuites, c.Certificates = slices.Clone(c.CipherSuites), slices.Clone(c.Certificates)
	m := &material{config: c}
	digest := sha256.New()
	read := func(key, value string, parse func(text []byte) error) error {
		if value == "" {
			return nil
		}
		from := source(value)
		text, err := from.read()
		if err != nil {
			return fmt.Errorf("listeners: %s: %w", key, err)
		}
		fmt.Fprintf(digest, "%s %d ", key, len(text))
		digest.Write(text)
		if err := parse(text); err != nil {
			return fmt.Errorf("listeners: %s: %s: %w", key, from, err)
		}
		return nil
	}
	var errs []error
	if c.mode() != ModeSelfSigned {
		for _, p := range c.pairs() {
			cert, warnings, err := p.load(read)
			m.certs, m.warnings, errs = append(m.certs, cert), append(m.warnings, warnings...), append(errs, err)
		}
	}
	errs = append(errs,
		read("tls.client_ca", c.ClientCA, func(text []byte) (err error) {
			m.clientCA, err = parseCertPool(text)
			return err
		}),
		read("tls.ticket_keys", c.TicketKeys, func(text []byte) (err error) {
			m.tickets, err = parseTicketKeys(text)
			return err
		}))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if auth, _ := c.clientAuth(); c.Optional && auth != tls.NoClientCert {
		m.warnings = append(m.warnings, "tls.optional: plaintext clients get past the client certificate that client_auth asks for")
	}
	digest.Sum(m.digest[:0])
	return m, nil
}

// load reads a certificate and its key. Its error is one of the two.
func (p pair) load(read reader) (cert tls.Certificate, warnings []string, err error) {
	var chain, key []byte
	defer func() { clear(key) }()
	if err = read(p.path+".cert", p.Cert, func(text []byte) error {
		chain = text
		return nil
	}); err != nil {
		return cert, nil, err
	}
	if err = read(p.path+".key", p.Key, func(text []byte) error {
		passphrase, err := p.passphrase()
		if err != nil {
			return err
		}
		plain, encrypted, err := decryptKey(text, passphrase)
		if passphrase != "" && !encrypted {
			warnings = append(warnings, p.path+".key_passphrase: the key is not encrypted")
		}
		key = plain
		return err
	}); err != nil {
		return cert, nil, err
	}
	if cert, err = tls.X509KeyPair(chain, key); err != nil {
		return cert, nil, fmt.Errorf("listeners: %s.cert and %[1]s.key: %s, %s: %w", p.path, source(p.Cert), source(p.Key), err)
	}
	return cert, warnings, nil
}

// leaves returns the certificates without their chains.
func (m *material) leaves() []*x509.Certificate {
	leaves := make([]*x509.Certificate, len(m.certs))
	for i, c := range m.certs {
		leaves[i] = c.Leaf
	}
	return leaves
}

// warnValidity warns of a certificate that clients refuse at now. It is served all the
// same: a clock may be wrong, and some clients do not look.
func (p pair) warnValidity(leaf *x509.Certificate, now time.Time) []string {
	switch {
	case now.After(leaf.NotAfter):
		return []string{p.path + ".cert: expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)}
	case now.Before(leaf.NotBefore):
		return []string{p.path + ".cert: not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339)}
	default:
		return nil
	}
}

// source is a configured value: a file's path or the PEM text itself.
type source string

// inlineMarker begins every PEM block (RFC 7468, section 2), and no sensible path.
const inlineMarker = "-----BEGIN "

// inline reports whether the value is text rather than a path. A value of several lines,
// and the base64 of PEM without its frame, are broken text: taken for a path, they would
// show the key in an error message.
func (s source) inline() bool {
	der, err := base64.StdEncoding.DecodeString(string(s))
	return strings.Contains(string(s), inlineMarker) || strings.ContainsAny(string(s), "\r\n") || err == nil && isSequence(der)
}

// isSequence reports whether der is as long as its first bytes say that a sequence of ASN.1
// is, which a key is.
func isSequence(der []byte) bool {
	var whole asn1.RawValue
	rest, err := asn1.Unmarshal(der, &whole)
	return err == nil && len(rest) == 0 && whole.Tag == asn1.TagSequence
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
)

// newSelfSigned makes an ECDSA P-256 certificate for this host's loopback names.
func newSelfSigned(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed key: %w", err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "muxserve self-signed"},
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    now.Add(selfSignedLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
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

// The types of PEM blocks with a private key.
const (
	pemEncryptedKey = "ENCRYPTED PRIVATE KEY" // PKCS#8, RFC 7468, section 11
	pemPlainKey     = "PRIVATE KEY"           // PKCS#8, RFC 7468, section 10
	pemRSAKey       = "RSA PRIVATE KEY"       // PKCS#1
	pemECKey        = "EC PRIVATE KEY"        // SEC 1, RFC 5915
)

var (
	errNoKey           = errors.New("no private key in PEM form")
	errNeedPassphrase  = errors.New("the key is encrypted: key_passphrase is needed")
	errWrongPassphrase = errors.New("cannot decrypt the key: wrong passphrase, or damaged")
)

// decryptKey returns the first private key of text as unencrypted PEM, and whether it was
// encrypted. Errors never show key or passphrase.
func decryptKey(text []byte, passphrase string) (plain []byte, encrypted bool, err error) {
	block := firstKeyBlock(text)
	if block == nil {
		return nil, false, errNoKey
	}
	decrypt := decryptPKCS8
	if x509.IsEncryptedPEMBlock(block) { //nolint:staticcheck // The legacy form is insecure but in use; refusing it would not change the file.
		decrypt = decryptLegacy
	} else if block.Type != pemEncryptedKey {
		return pem.EncodeToMemory(block), false, nil
	}
	if passphrase == "" {
		return nil, true, errNeedPassphrase
	}
	plain, err = decrypt(block, passphrase)
	return plain, true, err
}

// firstKeyBlock skips certificates and EC parameters, which many tools put in front.
func firstKeyBlock(text []byte) *pem.Block {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemPlainKey || strings.HasSuffix(block.Type, " "+pemPlainKey) {
			return block
		}
	}
	return nil
}

// decryptPKCS8 decrypts a PBES2 key (RFC 8018, section 6.2). The parser panics on some
// damaged files; a file that is being replaced must not end the process.
func decryptPKCS8(block *pem.Block, passphrase string) (plain []byte, err error) {
	defer func() {
		if recover() != nil {
			plain, err = nil, errWrongPassphrase
		}
	}()
	key, _, err := pkcs8.ParsePrivateKey(block.Bytes, []byte(passphrase))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errWrongPassphrase, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPlainKey, Bytes: der}), nil
}

// decryptLegacy decrypts the form of RFC 1421. Its padding is no checksum: one wrong
// passphrase in 256 passes it, so the result must also parse as a key.
func decryptLegacy(block *pem.Block, passphrase string) ([]byte, error) {
	der, err := x509.DecryptPEMBlock(block, []byte(passphrase)) //nolint:staticcheck // See decryptKey.
	if err != nil || !isKey(block.Type, der) {
		return nil, errWrongPassphrase
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
}

func isKey(blockType string, der []byte) bool {
	var err error
	switch blockType {
	case pemRSAKey:
		_, err = x509.ParsePKCS1PrivateKey(der)
	case pemECKey:
		_, err = x509.ParseECPrivateKey(der)
	default:
		_, err = x509.ParsePKCS8PrivateKey(der)
	}
	return err == nil
}

// maxTicketKeys bounds the file: crypto/tls tries every key on an unknown ticket, and a
// rotation needs two or three.
const maxTicketKeys = 32

// errTicketKey says what a line must be. It does not repeat the line, which is secret
// even where it is wrong.
var errTicketKey = errors.New("want 32 bytes in hex or base64")

// parseTicketKeys reads one key a line. It skips empty lines and lines that begin with
// "#".
func parseTicketKeys(text []byte) ([][32]byte, error) {
	var keys [][32]byte
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if len(keys) == maxTicketKeys {
			return nil, fmt.Errorf("line %d: more than %d keys", number, maxTicketKeys)
		}
		key, err := parseTicketKey(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key")
	}
	return keys, nil
}

// parseTicketKey tells hex from base64 by the length: 32 bytes are 64 hex digits, or 44
// base64 characters, 43 without padding.
func parseTicketKey(line string) (key [32]byte, err error) {
	var decoded []byte
	switch len(line) {
	case hex.EncodedLen(len(key)):
		decoded, err = hex.DecodeString(line)
	case base64.StdEncoding.EncodedLen(len(key)):
		decoded, err = base64.StdEncoding.Strict().DecodeString(line)
	case base64.RawStdEncoding.EncodedLen(len(key)):
		decoded, err = base64.RawStdEncoding.Strict().DecodeString(line)
	}
	if err != nil || len(decoded) != len(key) {
		return key, errTicketKey
	}
	copy(key[:], decoded)
	if key == [32]byte{} {
		return key, errors.New("all zeros is no secret")
	}
	return key, nil
}

// holdsTicketKeys reports whether a value that should be a path is the keys themselves,
// which would otherwise appear in an error about a missing file.
func holdsTicketKeys(value string) bool {
	_, err := parseTicketKeys([]byte(value))
	return err == nil || source(value).inline()
}

// passphrase returns the passphrase of the key; empty where there is none.
func (c CertificateConfig) passphrase() (string, error) {
	if c.KeyPassphraseFile == "" {
		return c.KeyPassphrase, nil
	}
	text, err := source(c.KeyPassphraseFile).read()
	if err != nil {
		return "", fmt.Errorf("key_passphrase_file: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
