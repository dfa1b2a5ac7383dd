package mux_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// identity is what a handler sees of its connection's TLS.
type identity struct {
	Version, Cipher, ALPN, ServerName, ClientSubject string
}

func identityOf(s *tls.ConnectionState) identity {
	if s == nil {
		return identity{}
	}
	return identity{tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.NegotiatedProtocol, s.ServerName, s.PeerCertificates[0].Subject.String()}
}

// identityService answers a call with what grpc-go knows of the peer.
type identityService struct {
	testpb.UnimplementedTestServiceServer
}

func (identityService) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	p, _ := peer.FromContext(ctx)
	info, _ := p.AuthInfo.(credentials.TLSInfo)
	b, err := json.Marshal(identityOf(&info.State))
	if err != nil {
		return nil, err
	}
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: b}}, nil
}

func handleIdentity(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(identityOf(r.TLS))
}

// TestTLSIdentity (DESIGN §2 point 9): with mutual TLS every protocol, on both gRPC transports, and the
// list of connections show version, cipher, ALPN, server name and client subject.
func TestTLSIdentity(t *testing.T) {
	ca := newAuthority(t)
	routes := http.NewServeMux()
	routes.HandleFunc("/identity", handleIdentity)
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
		b, err := json.Marshal(identityOf(r.TLS))
		if err != nil {
			return err
		}
		return c.Write(ctx, websocket.MessageText, b)
	}))
	s := start(t, false,
		mux.WithHandler(routes),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, identityService{}) }),
		mux.WithTLS(&tls.Config{
			Certificates: []tls.Certificate{ca.issue(t, "server.test")},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    ca.pool,
		}))
	s.roots = ca.pool
	clientConfig := func() *tls.Config {
		return &tls.Config{RootCAs: ca.pool, ServerName: "server.test", Certificates: []tls.Certificate{ca.issue(t, "alice")}, MaxVersion: tls.VersionTLS12}
	}
	want := identity{"TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "h2", "server.test", "CN=alice"}
	check := func(name, alpn string, b []byte) {
		t.Helper()
		var got identity
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %q: %v", name, b, err)
		}
		want := want
		want.ALPN = alpn
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}

	for version, alpn := range map[int]string{1: "http/1.1", 2: "h2"} {
		c := s.client(t, version)
		config := clientConfig()
		config.NextProtos = []string{alpn}
		c.Transport.(*http.Transport).TLSClientConfig = config
		resp, err := c.Get("https://" + s.addr + "/identity")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		check(resp.Proto, alpn, b)
		if version == 1 {
			ws, _, err := websocket.Dial(t.Context(), "wss://"+s.addr+"/ws", &websocket.DialOptions{HTTPClient: c})
			if err != nil {
				t.Fatal(err)
			}
			_, b, err = ws.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			check("WebSocket", "", b) // net/http's client offers no ALPN for an upgrade.
			_ = ws.CloseNow()
		}
	}
	for name, via := range map[string][]grpc.DialOption{
		"native gRPC": nil,
		"shared gRPC": {grpc.WithUnaryInterceptor(viaProxy)},
	} {
		cc, err := grpc.NewClient(s.addr, append(via, grpc.WithTransportCredentials(credentials.NewTLS(clientConfig())))...)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(name, "h2", resp.GetPayload().GetBody())
		want := &pool.TLSInfo{Version: want.Version, Cipher: want.Cipher, ALPN: "h2", ServerName: want.ServerName, ClientSubject: want.ClientSubject}
		conns := s.Connections()
		if diff := cmp.Diff(want, conns[len(conns)-1].TLS); diff != "" {
			t.Errorf("%s in the list of connections (-want +got):\n%s", name, diff)
		}
		_ = cc.Close()
	}

	// Without a certificate nobody gets in.
	c := s.client(t, 1)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "server.test"
	if resp, err := c.Get("https://" + s.addr + "/identity"); err == nil {
		t.Errorf("without a client certificate: %s", resp.Status)
	}
	eventually(t, "counted", func() bool { return s.Stats().Rejected["sniffing"]["tls_handshake"] == 1 })
}

// viaProxy marks calls as a proxy does, so that the connection is shared.
func viaProxy(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(metadata.AppendToOutgoingContext(ctx, "via", "2 proxy"), method, req, reply, cc, opts...)
}

// TestGRPCSecurity: a gRPC client gets in where its security fits the server's, and nowhere else.
func TestGRPCSecurity(t *testing.T) {
	ca := newAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}
	mutual := server.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool
	servers := map[string]*tls.Config{"plaintext": nil, "one-way": server, "mutual": mutual}

	client := &tls.Config{RootCAs: ca.pool, ServerName: "server.test"}
	known, stranger := client.Clone(), client.Clone()
	known.Certificates = []tls.Certificate{ca.issue(t, "alice")}
	stranger.Certificates = []tls.Certificate{newAuthority(t).issue(t, "mallory")}
	clients := map[string]credentials.TransportCredentials{
		"insecure":       insecure.NewCredentials(),
		"no certificate": credentials.NewTLS(client),
		"known":          credentials.NewTLS(known),
		"unknown":        credentials.NewTLS(stranger),
	}
	fits := map[string][]string{
		"plaintext": {"insecure"},
		"one-way":   {"no certificate", "known", "unknown"},
		"mutual":    {"known"},
	}
	for form, config := range servers {
		t.Run(form, func(t *testing.T) {
			s := start(t, false, mux.WithTLS(config))
			for name, creds := range clients {
				cc, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(creds))
				if err != nil {
					t.Fatal(err)
				}
				_, err = testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{})
				want := codes.Unavailable
				if slices.Contains(fits[form], name) {
					want = codes.OK
				}
				if got := status.Code(err); got != want {
					t.Errorf("client %q: %v, want %v", name, err, want)
				}
				_ = cc.Close()
			}
		})
	}
}
