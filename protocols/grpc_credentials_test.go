package protocols

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// A stateConn has had this TLS handshake.
type stateConn struct {
	*net.TCPConn
	state *tls.ConnectionState
}

func (stateConn) ReadOnReady(int, mem.BufferPool) (*[]byte, int, error) { return nil, 0, io.EOF }

func (c stateConn) TLSState() *tls.ConnectionState { return c.state }

// TestHandshaken: grpc-go learns of a connection what its own credentials would say, and the way back to it.
func TestHandshaken(t *testing.T) {
	_, socket := wiretest.TCPPair(t)
	plain := stateConn{socket, nil}
	creds := &handshaken{TransportCredentials: insecure.NewCredentials()}
	_, theirs, err := creds.TransportCredentials.ServerHandshake(plain)
	if err != nil {
		t.Fatal(err)
	}
	conn, info, err := creds.Clone().ServerHandshake(plain)
	if err != nil {
		t.Fatal(err)
	}
	if info.AuthType() != theirs.AuthType() {
		t.Errorf("AuthType is %q, want %q", info.AuthType(), theirs.AuthType())
	}
	if err := credentials.CheckSecurityLevel(info, credentials.IntegrityOnly); err == nil {
		t.Error("it counts as secure")
	}
	if p, ok := info.(Plaintext); !ok || p.NetConn() != net.Conn(plain) {
		t.Errorf("AuthInfo is %#v", info)
	}
	if _, ok := conn.(syscall.Conn); ok {
		t.Error("grpc-go sees the socket")
	}
	if _, ok := conn.(readyConn); !ok {
		t.Error("grpc-go cannot read when there is something to read")
	}

	conn, info, err = creds.ServerHandshake(stateConn{plain.TCPConn, &tls.ConnectionState{ServerName: "example.org"}})
	if ti, ok := info.(credentials.TLSInfo); err != nil || !ok || ti.State.ServerName != "example.org" {
		t.Errorf("with TLS: %T, AuthInfo %#v, %v", conn, info, err)
	}
}

// TestSocketsAreSeen where the credentials are told so, as they are for channelz.
func TestSocketsAreSeen(t *testing.T) {
	_, socket := wiretest.TCPPair(t)
	for _, sees := range []bool{false, true} {
		creds := &handshaken{TransportCredentials: insecure.NewCredentials(), sockets: sees}
		conn, _, err := creds.ServerHandshake(stateConn{socket, nil})
		if _, got := conn.(syscall.Conn); err != nil || got != sees {
			t.Errorf("grpc-go sees the socket: %t, want %t, %v", got, sees, err)
		}
	}
}

// TestSPIFFEID: the ID of a client's certificate is what grpc-go's own credentials find.
func TestSPIFFEID(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := wiretest.Certificate(t)
	for _, tt := range []struct {
		uris  []string
		valid bool
	}{
		{nil, false},
		{[]string{"spiffe://example.org/workload"}, true},
		{[]string{"spiffe://example.org/workload", "spiffe://example.org/other"}, false},
		{[]string{"https://example.org/", "spiffe://example.org/workload"}, false},
		{[]string{"https://example.org/"}, false},
		{[]string{"spiffe://example.org"}, false},
		{[]string{"spiffe:///workload"}, false},
		{[]string{"spiffe:workload"}, false},
		{[]string{"spiffe://user@example.org/workload"}, false},
		{[]string{"spiffe://example.org/" + strings.Repeat("w", 2048)}, false},
		{[]string{"spiffe://" + strings.Repeat("d", 255) + "/workload"}, true},
		{[]string{"spiffe://" + strings.Repeat("d", 256) + "/workload"}, false},
	} {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		for _, uri := range tt.uris {
			u, err := url.Parse(uri)
			if err != nil {
				t.Fatal(err)
			}
			template.URIs = append(template.URIs, u)
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		client := tls.Client(near, &tls.Config{
			InsecureSkipVerify: true, // It is the server that looks.
			Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			NextProtos:         []string{"h2"},
		})
		go func() { _ = client.Handshake() }()
		own := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert})
		_, info, err := own.ServerHandshake(far)
		if err != nil {
			t.Fatal(err)
		}
		want := info.(credentials.TLSInfo)
		_ = near.Close()
		_ = far.Close()
		_, info, err = (&handshaken{}).ServerHandshake(stateConn{nil, &want.State})
		if err != nil {
			t.Fatal(err)
		}
		got := info.(credentials.TLSInfo).SPIFFEID
		if diff := cmp.Diff(want.SPIFFEID, got); diff != "" || (got != nil) != tt.valid {
			t.Errorf("%.80q: %v, valid %t (-grpc-go +got):\n%s", tt.uris, got, tt.valid, diff)
		}
	}
}
