package mux_test

import (
	"context"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestNativeConnsAreForgotten: what native gRPC calls over TLS are traced to their
// connections by does not outlive the connections. Those without TLS need nothing of the kind.
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

// oneAddrConn says that its peer is where all the others' are.
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

// TestSharedAddressValue: two native connections are told apart even where the
// listener gives both the same *net.TCPAddr.
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

// TestFromContextInInterceptors: the embedder's own interceptors know the
// connection, whichever kind they are and whichever server runs them.
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
