package listeners

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  string
}

var testSerial atomic.Int64

// issue makes a certificate from template, signed by parent or by itself.
func issue(t *testing.T, template *x509.Certificate, parent *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, key, template, parent)
}

// issueFor is issue for a key.
func issueFor(t *testing.T, key crypto.Signer, template *x509.Certificate, parent *authority) *authority {
	t.Helper()
	template.SerialNumber = big.NewInt(testSerial.Add(1))
	if template.NotAfter.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
		template.NotAfter = time.Now().Add(time.Hour)
	}
	signer := &authority{cert: template, key: key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: encode("CERTIFICATE", der)}
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return issue(t, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, nil)
}

func (a *authority) server(t *testing.T) *authority {
	t.Helper()
	return issue(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "server"},
		DNSNames:    []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a)
}

func (a *authority) client(t *testing.T) *authority {
	t.Helper()
	return issue(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "client"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// keyPEM returns the private key as unencrypted PKCS#8.
func (a *authority) keyPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	return encode(pemPlainKey, der)
}

func (a *authority) tlsCertificate() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key, Leaf: a.cert}
}

func encode(blockType string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

// writeFile writes into dir and returns the path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustTLS(t *testing.T, c TLSConfig) *TLS {
	t.Helper()
	material, err := NewTLS(c)
	if err != nil {
		t.Fatal(err)
	}
	return material
}

// serveTLS answers each connection with one byte once its handshake is done, and
// returns the address.
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			conn.Write([]byte{'!'}) // Fails where the handshake does: the client sees it.
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// dialTLS makes a handshake and reads the server's byte, without which a TLS 1.3
// client does not know that its certificate was refused, nor gets a ticket.
func dialTLS(t *testing.T, address string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, config)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = io.ReadFull(conn, make([]byte, 1))
	return conn.ConnectionState(), err
}

// clientConfig trusts ca for localhost.
func clientConfig(ca *authority) *tls.Config {
	return &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}
}

// reload puts the files' new content in use, as a server's reload does, and reports
// whether anything differs.
func reload(material *TLS) (changed bool, err error) {
	_, use, err := material.Prepare(material.current.Load().config)
	if use == nil {
		return false, err
	}
	use()
	return true, err
}
