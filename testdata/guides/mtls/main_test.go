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
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := issue(t, nil, nil, "CA")
	server, serverKey := issue(t, ca, caKey, "server")
	key, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	p := guide.Start(t,
		"CERT="+write(t, dir, "server.pem", "CERTIFICATE", server.Raw),
		"KEY="+write(t, dir, "server.key", "PRIVATE KEY", key),
		"CLIENT_CA="+write(t, dir, "ca.pem", "CERTIFICATE", ca.Raw))
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	client := func(name string) *tls.Config {
		cert, certKey := issue(t, ca, caKey, name)
		return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: certKey}}}
	}
	for name, want := range map[string]codes.Code{"alice": codes.OK, "bob": codes.PermissionDenied} {
		cc, err := grpc.NewClient(p.Addr, grpc.WithTransportCredentials(credentials.NewTLS(client(name))))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		answer, err := pb.NewTestServiceClient(cc).UnaryCall(t.Context(), &pb.SimpleRequest{})
		if status.Code(err) != want || err == nil && answer.GetUsername() != name {
			t.Errorf("gRPC as %s: %v, %v", name, answer, err)
		}
	}
	transport := &http.Transport{TLSClientConfig: client("bob"), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Post("https://"+p.Addr+"/whoami", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if got := guide.Body(t, resp); got != "bob bob" {
		t.Errorf("HTTP: %q", got)
	}
	stranger := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer stranger.CloseIdleConnections()
	if resp, err := (&http.Client{Transport: stranger}).Get("https://" + p.Addr + "/livez"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("a client without a certificate: %s", resp.Status)
	}
	if status := p.StopDuring(&http.Client{Transport: transport}, "https://"+p.Addr+"/whoami"); status != http.StatusOK {
		t.Errorf("the request under way: %d", status)
	}
}

// issue makes a certificate, of its own authority if parent is nil.
func issue(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  parent == nil,
		BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// write writes a PEM file and returns its path.
func write(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
