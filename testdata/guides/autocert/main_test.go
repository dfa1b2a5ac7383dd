package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

const domain = "program.example.com"

// TestAutocert: the program serves with the certificate of its cache. How it gets one is in
// testdata/transparency, with an ACME server.
func TestAutocert(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: domain},
		DNSNames:              []string{domain},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(60 * 24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir() // As autocert.DirCache has it: the key, then the chain.
	cached := append(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if err := os.WriteFile(filepath.Join(cache, domain), cached, 0o600); err != nil {
		t.Fatal(err)
	}
	p := guide.Start(t, "DOMAIN="+domain, "CACHE="+cache, "ACME_DIRECTORY=https://127.0.0.1:1/none")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cached) {
		t.Fatal("no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: domain}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	if status := p.StopDuring(&http.Client{Transport: transport}, "https://"+p.Addr+"/count"); status != http.StatusOK {
		t.Errorf("the request under way: %d", status)
	}
}
