package protocols

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"testing"

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
