package mux_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// sizedService answers with a payload of the size that is asked for: of zeros, or of bytes
// that gzip makes no shorter.
type sizedService struct {
	testpb.UnimplementedTestServiceServer
}

func (sizedService) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	body := make([]byte, r.GetResponseSize())
	if r.GetFillUsername() {
		for i := range body {
			body[i] = byte(i * i * 2654435761 >> 13)
		}
	}
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: body}}, nil
}

func (sizedService) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return s.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()})
}

// plainCodec sends bytes as they are, under the name of protobuf.
type plainCodec struct{}

func (plainCodec) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (plainCodec) Unmarshal(b []byte, v any) error    { *v.(*[]byte) = bytes.Clone(b); return nil }
func (plainCodec) Name() string                       { return "proto" }
func marshalled(t *testing.T, m proto.Message) []byte { t.Helper(); b, _ := proto.Marshal(m); return b }

// TestAnswersOfGRPC: calls that grpc-go answers itself are counted, once each, with the code
// that the client gets, on both transports. They have a line in the access log and count
// in the error rate as others do.
func TestAnswersOfGRPC(t *testing.T) {
	const (
		each  = 20
		bound = 4096
		unary = testpb.TestService_UnaryCall_FullMethodName
	)
	sized := func(r *testpb.SimpleRequest) []byte { return marshalled(t, r) }
	long := make([]byte, bound+1)
	tests := []struct {
		name, method, counted string
		request               []byte
		options               []grpc.CallOption
		code                  codes.Code
	}{
		{"an answer at all", unary, unary, nil, nil, codes.OK},
		{"unknown method", "/grpc.testing.TestService/Nowhere", "other", nil, nil, codes.Unimplemented},
		{"unknown service", "/nowhere.Service/Nowhere", "other", nil, nil, codes.Unimplemented},
		{"no method", "/nowhere", "other", nil, nil, codes.Unimplemented},
		{"message too long", unary, unary, sized(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: long}}), nil, codes.ResourceExhausted},
		{"message of no protobuf", unary, unary, []byte{0xff, 0xff, 0xff}, nil, codes.Internal},
		{"message of no protobuf, stream", testpb.TestService_StreamingOutputCall_FullMethodName, testpb.TestService_StreamingOutputCall_FullMethodName, []byte{0xff}, nil, codes.Internal},
		{"answer too long", unary, unary, sized(&testpb.SimpleRequest{ResponseSize: 2 * bound}), nil, codes.ResourceExhausted},
		{"answer too long, stream", testpb.TestService_StreamingOutputCall_FullMethodName, testpb.TestService_StreamingOutputCall_FullMethodName,
			marshalled(t, &testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: long[:bound-4]}}), nil, codes.ResourceExhausted},
		{"answer too long but for gzip", unary, unary, sized(&testpb.SimpleRequest{ResponseSize: 2 * bound}), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.OK},
		{"answer too long in spite of gzip", unary, unary, sized(&testpb.SimpleRequest{ResponseSize: 2 * bound, FillUsername: true}), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, codes.ResourceExhausted},
	}
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		for _, tt := range tests {
			t.Run(string(transport)+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				var log lines
				s := start(t, false,
					mux.WithHandler(nil), // So that grpc-go gets the calls to unknown services.
					mux.WithAccessLog(slog.New(slog.NewJSONHandler(&log, nil))),
					mux.Configure(func(c *mux.Config) {
						c.GRPC.Transport, c.GRPC.MaxRecvBytes, c.GRPC.MaxSendBytes = transport, bound, bound
						if strings.HasSuffix(tt.name, "stream") {
							c.GRPC.MaxSendBytes = bound - 8
						}
					}),
					mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, sizedService{}) }))
				cc := s.grpcClient(t)
				for range each {
					var answer []byte
					err := cc.Invoke(t.Context(), tt.method, tt.request, &answer, append(tt.options, grpc.ForceCodec(plainCodec{}))...)
					if status.Code(err) != tt.code {
						t.Fatalf("the client gets %v, want %v", err, tt.code)
					}
				}
				want := map[int]uint64{int(tt.code): each}
				eventually(t, "counted", func() bool { return s.Stats().Codes["grpc"][int(tt.code)] >= each })
				stats := s.Stats()
				if diff := cmp.Diff(want, stats.Codes["grpc"]); diff != "" {
					t.Errorf("codes (-want +got):\n%s", diff)
				}
				want[0] += 0
				if diff := cmp.Diff(want, stats.Calls[tt.counted]); diff != "" {
					t.Errorf("calls of %s (-want +got):\n%s", tt.counted, diff)
				}
				failed := 1.0
				if tt.code == codes.OK || tt.code == codes.Unimplemented {
					failed = 0
				}
				if got := stats.Requests["grpc"]; got.ErrorRate != failed || got.InFlight != 0 {
					t.Errorf("error rate %v, want %v; in flight %d", got.ErrorRate, failed, got.InFlight)
				}
				eventually(t, "lines", func() bool { return len(log.all(t)) >= each })
				all := log.all(t)
				if got := all[0]; len(all) != each || got["path"] != tt.method || got["code"] != float64(tt.code) || got["protocol"] != "grpc" {
					t.Errorf("%d lines, the first %v", len(all), got)
				}
			})
		}
	}
}

// TestMethodsAreBounded: strange methods do not make the list of calls longer, also where
// grpc-go serves them, and each method that there is stands in it from the start.
func TestMethodsAreBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		code   codes.Code
		server []grpc.ServerOption
	}{
		"nobody's":         {code: codes.Unimplemented},
		"unknown services": {codes.OK, []grpc.ServerOption{grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error { return ss.SendMsg(new(emptypb.Empty)) })}},
	} {
		t.Run(name, func(t *testing.T) { testMethodsAreBounded(t, tt.code, tt.server...) })
	}
}

func testMethodsAreBounded(t *testing.T, code codes.Code, options ...grpc.ServerOption) {
	t.Helper()
	s := start(t, false, mux.WithHandler(nil), mux.WithGRPC(nil, options...))
	_, _ = s.ServerOf("grpc")
	before := s.Stats().Calls
	if counts, ok := before[testpb.TestService_UnaryCall_FullMethodName]; !ok || counts[0] != 0 {
		t.Errorf("at the start: %v", before)
	}
	cc := s.grpcClient(t)
	for _, method := range []string{"/a/b", "/a/c", "/grpc.testing.TestService/" + strings.Repeat("D", 5000)} {
		_, _ = call(t.Context(), cc, method)
	}
	eventually(t, "counted", func() bool { return s.Stats().Calls["other"][int(code)] == 3 })
	if got := len(s.Stats().Calls); got > len(before)+1 {
		t.Errorf("%d methods, %d before", got, len(before))
	}
}

// TestRefusedRequestsAreBooked: a request on a connection that is refused counts with the
// code of its answer, and has a line in the access log.
func TestRefusedRequestsAreBooked(t *testing.T) {
	httpGet := func(version int) func(*testing.T, *server) {
		return func(t *testing.T, s *server) {
			t.Helper()
			<-get(s.client(t, version), s.scheme()+"://"+s.addr+"/echo")
		}
	}
	shake := func(t *testing.T, s *server) {
		t.Helper()
		conn := s.dial(t)
		send(t, conn, handshake)
		_ = answered(conn)
	}
	tests := []struct {
		name     string
		client   func(*testing.T, *server)
		only     []string // protocols of the listener
		protocol string
		path     string
		code     int
	}{
		{"HTTP/1.1", httpGet(1), nil, "http1", "/echo", http.StatusServiceUnavailable},
		{"WebSocket", shake, nil, "websocket", "/ws", http.StatusServiceUnavailable},
		{"HTTP/2", httpGet(2), nil, "http2", "/echo", http.StatusServiceUnavailable},
		{"gRPC", func(t *testing.T, s *server) {
			t.Helper()
			cc := s.grpcClient(t)
			_ = cc.Invoke(t.Context(), "/grpc.testing.TestService/EmptyCall", &testpb.Empty{}, &testpb.Empty{})
		}, nil, "grpc", "/grpc.testing.TestService/EmptyCall", int(codes.Unavailable)},
		{"HTTP/1.1 is not served", httpGet(1), []string{"http2"}, "http1", "/echo", http.StatusHTTPVersionNotSupported},
		{"WebSocket is not served", shake, []string{"http2"}, "websocket", "/ws", http.StatusHTTPVersionNotSupported},
	}
	for _, tt := range tests {
		for _, withTLS := range []bool{false, true} {
			name := tt.name
			if withTLS {
				name += ", TLS"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var log lines
				options := []mux.Option{mux.WithAccessLog(slog.New(slog.NewJSONHandler(&log, nil)))}
				switch {
				case tt.protocol == "grpc": // Above the limit of all connections, its client is not greeted.
					options = append(options, limits(func(c *mux.Config) { c.GRPC.MaxConnections = 1 }))
				case tt.only == nil:
					options = append(options, limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }))
				}
				s := startOn(t, withTLS, []mux.ListenerConfig{{Protocols: tt.only}}, options...)[0]
				if tt.protocol == "grpc" {
					_, echo := s.echoCall(t)
					echo("the only one")
				} else if tt.only == nil {
					s.busy(t)
				}
				tt.client(t, s)
				eventually(t, "counted", func() bool { return s.Stats().Codes[tt.protocol][tt.code] > 0 })
				n := s.Stats().Codes[tt.protocol][tt.code]
				eventually(t, "lines", func() bool { return uint64(len(log.all(t))) >= n })
				first := log.all(t)[0]
				if first["protocol"] != tt.protocol || first["path"] != tt.path || first["code"] != float64(tt.code) || first["conn_id"] == nil {
					t.Errorf("line %v", first)
				}
				if got := s.Stats().Requests[tt.protocol]; got.ErrorRate != 1 {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}
