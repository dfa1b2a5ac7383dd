package listeners

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// source is a configured value that is a file's path or the PEM text itself.
type source string

// inlineMarker begins every PEM block (RFC 7468, section 2), and no path that
// anybody would choose.
const inlineMarker = "-----BEGIN "

// inline reports whether the value is text rather than a path. A value of
// several lines is text too, if broken: taken for a path, it would end up, key
// and all, in an error message.
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

// path returns the file to watch, or "" for inline text.
func (s source) path() string {
	if s.inline() {
		return ""
	}
	return string(s)
}

// String names the source without showing inline text.
func (s source) String() string {
	if s.inline() {
		return "[inline PEM]"
	}
	return string(s)
}

// parseCertPool returns a pool of every certificate in text. Unlike
// x509.CertPool.AppendCertsFromPEM it passes over no broken one: an authority
// that is silently missing locks clients out.
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
