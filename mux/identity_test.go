package mux_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
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
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// identity is what a handler sees of its connection's TLS.
type identity struct {
	Version, Cipher, ALPN, ServerName, ClientSubject string

	SPIFFEID string // calls alone have it
}

func identityOf(s *tls.ConnectionState) identity {
	if s == nil {
		return identity{}
	}
	return identity{tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.NegotiatedProtocol, s.ServerName, s.PeerCertificates[0].Subject.String(), ""}
}

// identityService answers a call with what grpc-go knows of the peer.
type identityService struct {
	testpb.UnimplementedTestServiceServer
}

func (identityService) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	p, _ := peer.FromContext(ctx)
	info, _ := p.AuthInfo.(credentials.TLSInfo)
	id := identityOf(&info.State)
	if info.SPIFFEID != nil {
		id.SPIFFEID = info.SPIFFEID.String()
	}
	b, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: b}}, nil
}

// aliceID is alice's SPIFFE ID.
var aliceID = &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/alice"}

func handleIdentity(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(identityOf(r.TLS))
}

// TestTLSIdentity (DESIGN §2 point 9): with mutual TLS, every protocol, both gRPC
// transports and the list of connections show version, cipher, ALPN, server name and
// client subject.
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
		return &tls.Config{RootCAs: ca.pool, ServerName: "server.test", Certificates: []tls.Certificate{ca.issue(t, "alice", aliceID)}, MaxVersion: tls.VersionTLS12}
	}
	want := identity{"TLS 1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "h2", "server.test", "CN=alice", ""}
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
	want.SPIFFEID = aliceID.String()
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

	// A client without a certificate does not get in.
	c := s.client(t, 1)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "server.test"
	if resp, err := c.Get("https://" + s.addr + "/identity"); err == nil {
		t.Errorf("without a client certificate: %s", resp.Status)
	}
	eventually(t, "counted", func() bool { return s.Stats().Rejected["sniffing"]["tls_handshake"] == 1 })
}

// viaProxy marks calls as a proxy does, so that they take the shared transport.
func viaProxy(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(metadata.AppendToOutgoingContext(ctx, "via", "2 proxy"), method, req, reply, cc, opts...)
}

// peerTypes notes of which type the peer's address is wherever code of the embedder sees it.
// All of its methods may be called concurrently.
type peerTypes struct {
	testpb.UnimplementedTestServiceServer

	mu   sync.Mutex
	seen map[string]string
}

func (p *peerTypes) note(ctx context.Context, place string, addrs ...net.Addr) {
	text := "no peer"
	if shown, ok := peer.FromContext(ctx); ok {
		text = fmt.Sprintf("%T", shown.Addr)
	}
	for _, a := range addrs {
		text += fmt.Sprintf(" %T", a)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[place] = text
}

func (p *peerTypes) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	p.note(ctx, "unary")
	return &testpb.SimpleResponse{}, nil
}

func (p *peerTypes) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, ss grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	p.note(ss.Context(), "stream")
	return nil
}

func (p *peerTypes) unaryInterceptor(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	p.note(ctx, "unary interceptor")
	return h(ctx, r)
}

func (p *peerTypes) streamInterceptor(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	p.note(ss.Context(), "stream interceptor")
	return h(srv, ss)
}

// peerStats is a stats.Handler.
type peerStats struct{ *peerTypes }

func (p peerStats) TagConn(ctx context.Context, tag *stats.ConnTagInfo) context.Context {
	p.note(context.Background(), "TagConn", tag.RemoteAddr)
	return ctx
}

func (p peerStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	p.note(ctx, "TagRPC")
	return ctx
}

func (p peerStats) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if header, ok := event.(*stats.InHeader); ok {
		p.note(ctx, "InHeader", header.RemoteAddr)
	}
}

func (peerStats) HandleConn(context.Context, stats.ConnStats) {}

// TestPeerAddr: a call's peer has the address of the connection, of the type that the socket
// gives it, for handlers, interceptors and stats handlers on both transports. A program may
// assert that type, as it may with grpc-go.
func TestPeerAddr(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options func(*peerTypes) []grpc.ServerOption
		places  []string
	}{
		"alone": {func(*peerTypes) []grpc.ServerOption { return nil }, []string{"unary", "stream"}},
		"chained interceptors": {func(p *peerTypes) []grpc.ServerOption {
			return []grpc.ServerOption{grpc.ChainUnaryInterceptor(p.unaryInterceptor), grpc.ChainStreamInterceptor(p.streamInterceptor)}
		}, []string{"unary", "stream", "unary interceptor", "stream interceptor"}},
		"first interceptors": {func(p *peerTypes) []grpc.ServerOption {
			return []grpc.ServerOption{grpc.UnaryInterceptor(p.unaryInterceptor), grpc.StreamInterceptor(p.streamInterceptor)}
		}, []string{"unary", "stream", "unary interceptor", "stream interceptor"}},
		"stats handler": {func(p *peerTypes) []grpc.ServerOption {
			return []grpc.ServerOption{grpc.StatsHandler(peerStats{p})}
		}, []string{"unary", "stream", "TagConn", "TagRPC", "InHeader"}},
	} {
		for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
			t.Run(name+", "+string(transport), func(t *testing.T) {
				t.Parallel()
				p := &peerTypes{seen: make(map[string]string)}
				s := start(t, false, mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, p) }, tt.options(p)...),
					mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }))
				c := testpb.NewTestServiceClient(s.grpcClient(t))
				if _, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
					t.Fatal(err)
				}
				stream, err := c.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				want := make(map[string]string)
				for _, place := range tt.places {
					want[place] = "*net.TCPAddr"
				}
				if slices.Contains(tt.places, "TagConn") {
					want["TagConn"], want["InHeader"] = "no peer *net.TCPAddr", "*net.TCPAddr *net.TCPAddr"
				}
				if diff := cmp.Diff(want, p.seen); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestGRPCSecurity: a gRPC client is served only where its transport security matches the
// server's.
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

// TestNativeConnsAreForgotten: the table that traces native gRPC calls over TLS to their
// connections forgets closed connections. Calls without TLS need no table.
func TestNativeConnsAreForgotten(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		const connections = 5
		for range connections {
			cc := s.grpcClient(t)
			if _, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			if found := s.NativeConns() != 0; found != (s.roots != nil) {
				t.Errorf("an address leads to the connection: %t", found)
			}
			_ = cc.Close()
		}
		eventually(t, "all closed", func() bool { return s.Stats().Pools["grpc"].Closed == connections })
		eventually(t, "all forgotten", func() bool { return s.NativeConns() == 0 })
	})
}

// oneAddrConn has the same remote address as all others.
type oneAddrConn struct {
	net.Conn
	addr *net.TCPAddr
}

func (c oneAddrConn) RemoteAddr() net.Addr { return c.addr }

// idService answers with the connection's number.
type idService struct {
	testpb.UnimplementedTestServiceServer
}

func (idService) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	info, _ := mux.ConnOf(ctx)
	return &testpb.SimpleResponse{Username: info.RemoteAddr.String(), OauthScope: string(rune('0' + info.ID))}, nil
}

// TestSharedAddressValue: two native connections are told apart even where the listener
// gives both the same *net.TCPAddr.
func TestSharedAddressValue(t *testing.T) {
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1234}
	s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, idService{}) })),
		wrapListener{listen(t), func(conn net.Conn) net.Conn { return oneAddrConn{conn, addr} }})
	first, second := s.grpcClient(t), s.grpcClient(t)
	var got []string
	for _, cc := range []*grpc.ClientConn{first, second, first, second} {
		resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, resp.GetOauthScope()+" "+resp.GetUsername())
	}
	want := []string{"1 192.0.2.1:1234", "2 192.0.2.1:1234", "1 192.0.2.1:1234", "2 192.0.2.1:1234"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
}

// TestFromContextInInterceptors: the embedder's interceptors of every kind find the
// connection, on both transports.
func TestFromContextInInterceptors(t *testing.T) {
	for transport, protocol := range map[protocols.GRPCTransport]string{
		protocols.TransportNative: "grpc",
		protocols.TransportShared: "http2",
	} {
		t.Run(string(transport), func(t *testing.T) {
			found := make(chan string, 4)
			note := func(ctx context.Context, interceptor string) {
				info, ok := mux.ConnOf(ctx)
				if !ok {
					found <- interceptor + ": none"
					return
				}
				found <- interceptor + ": " + info.Protocol
			}
			unary := func(name string) grpc.UnaryServerInterceptor {
				return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
					note(ctx, name)
					return h(ctx, req)
				}
			}
			stream := func(name string) grpc.StreamServerInterceptor {
				return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
					note(ss.Context(), name)
					return h(srv, ss)
				}
			}
			s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }),
				mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) },
					grpc.UnaryInterceptor(unary("unary")), grpc.ChainUnaryInterceptor(unary("chained unary")),
					grpc.StreamInterceptor(stream("stream")), grpc.ChainStreamInterceptor(stream("chained stream"))))
			c := testpb.NewTestServiceClient(s.grpcClient(t))
			if _, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			duplex, err := c.FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := duplex.CloseSend(); err != nil {
				t.Fatal(err)
			}
			for _, interceptor := range []string{"unary", "chained unary", "stream", "chained stream"} {
				if got, want := within(t, interceptor, found), interceptor+": "+protocol; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}
