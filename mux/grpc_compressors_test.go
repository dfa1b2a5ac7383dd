package mux_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/experimental"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// compress sets the compressor of the call's metadata, if the call asks for it in this place,
// and has the client see what it learns.
func compress(ctx context.Context, place string) {
	md, _ := metadata.FromIncomingContext(ctx)
	if md["place"][0] != place {
		return
	}
	names, err := grpc.ClientSupportedCompressors(ctx)
	seen := fmt.Sprintf("%q %v, %v", names, err, grpc.SetSendCompressor(ctx, md["compressor"][0]))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("seen", seen))
}

// compressingService answers compressed, or by an error that the call asks for.
type compressingService struct {
	testpb.UnimplementedTestServiceServer
}

func (compressingService) answer(ctx context.Context) error {
	compress(ctx, "handler")
	if md, _ := metadata.FromIncomingContext(ctx); len(md["fail"]) > 0 {
		return status.Error(codes.Aborted, "as asked")
	}
	return nil
}

func (s compressingService) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, 1000)}}, s.answer(ctx)
}

func (s compressingService) FullDuplexCall(ss grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	return s.stream(ss)
}

func (s compressingService) StreamingInputCall(ss grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	return s.stream(ss)
}

func (s compressingService) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, ss grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return s.stream(ss)
}

func (s compressingService) unknown(_ any, ss grpc.ServerStream) error { return s.stream(ss) }

func (s compressingService) stream(ss grpc.ServerStream) error {
	if err := s.answer(ss.Context()); err != nil {
		return err
	}
	return ss.SendMsg(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, 1000)}})
}

// copying is a compressor that changes nothing.
type copying struct{}

func init() { encoding.RegisterCompressor(copying{}) } //nolint:gochecknoinits // grpc-go allows it in no other place.

func (copying) Name() string                                 { return "copying" }
func (copying) Compress(w io.Writer) (io.WriteCloser, error) { return copyWriter{w}, nil }
func (copying) Decompress(r io.Reader) (io.Reader, error)    { return r, nil }

type copyWriter struct{ io.Writer }

func (copyWriter) Close() error { return nil }

// compressions notes how the answers of a client's calls are compressed.
type compressions struct{ seen string }

func (*compressions) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*compressions) HandleConn(context.Context, stats.ConnStats)                       {}
func (*compressions) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }

func (c *compressions) HandleRPC(_ context.Context, event stats.RPCStats) {
	switch e := event.(type) {
	case *stats.InHeader:
		c.seen += fmt.Sprintf(" encoding %q", e.Compression)
	case *stats.InPayload:
		c.seen += fmt.Sprintf(" %d of %d bytes", e.CompressedLength, e.Length)
	}
}

// TestCompressors: handlers and interceptors see the client's compressors and choose one,
// whatever serves the call.
func TestCompressors(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	serverTLS := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "server.test")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
	}
	clientTLS := &tls.Config{RootCAs: ca.pool, ServerName: "server.test", Certificates: []tls.Certificate{ca.issue(t, "alice", aliceID)}}
	options := []grpc.ServerOption{
		grpc.UnknownServiceHandler(compressingService{}.unknown),
		grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			compress(ctx, "interceptor")
			return h(ctx, r)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			compress(ss.Context(), "interceptor")
			return h(srv, ss)
		}),
	}
	// It stands before all others, and itself sees no compressors.
	first := grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return h(srv, ss)
	})
	for name, tt := range map[string]struct {
		options []grpc.ServerOption
		places  []string
		tls     bool
	}{
		"plaintext":          {options, []string{"handler", "interceptor"}, false},
		"SPIFFE ID":          {options, []string{"handler", "interceptor"}, true},
		"no interceptor":     {options[:1:1], []string{"handler"}, false},
		"stream interceptor": {append(options[:3:3], first), []string{"handler", "interceptor"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			creds := insecure.NewCredentials()
			muxed := []mux.Option{mux.WithHandler(nil), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, compressingService{}) }, tt.options...)}
			alone := tt.options
			if tt.tls {
				creds = credentials.NewTLS(clientTLS)
				muxed = append(muxed, mux.WithTLS(serverTLS))
				alone = append(slices.Clip(alone), grpc.Creds(credentials.NewTLS(serverTLS)))
			}
			want := viewCompressed(t, plainService(t, compressingService{}, alone...), creds, tt.places)
			for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
				s := start(t, false, append(slices.Clip(muxed), mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }))...)
				for asked, got := range viewCompressed(t, s, creds, tt.places) {
					if got != want[asked] {
						t.Errorf("%s, %s: the client sees %s, and %s of grpc-go alone", transport, asked, got, want[asked])
					}
				}
			}
		})
	}
}

// viewCompressed makes calls of all kinds, and returns what their client sees, by what the
// client asks for.
func viewCompressed(t *testing.T, s *server, creds credentials.TransportCredentials, places []string) map[string]string {
	t.Helper()
	var c compressions
	cc, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(creds), grpc.WithStatsHandler(&c))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	accepted := map[string][]grpc.CallOption{
		"gzip":         {experimental.AcceptCompressors("gzip")},
		"copying":      {experimental.AcceptCompressors("copying")},
		"both":         {grpc.UseCompressor(gzip.Name)},
		"more of them": {experimental.AcceptCompressors("gzip")},
	}
	views := make(map[string]string)
	for _, method := range []string{"/grpc.testing.TestService/UnaryCall", "/grpc.testing.TestService/FullDuplexCall", "/grpc.testing.TestService/StreamingInputCall", "/grpc.testing.TestService/StreamingOutputCall", "/un.Known/Call"} {
		for _, place := range places {
			for taken, callOptions := range accepted {
				for _, compressor := range []string{"gzip", "identity", "nosuch"} {
					for _, fail := range []bool{false, true} {
						md := []string{"place", place, "compressor", compressor}
						if taken == "more of them" {
							md = append(md, "grpc-accept-encoding", "zz, yy", "grpc-accept-encoding", "")
						}
						if fail {
							md = append(md, "fail", "yes")
						}
						c.seen = ""
						text := askCompressed(metadata.AppendToOutgoingContext(t.Context(), md...), cc, method, callOptions)
						views[fmt.Sprint(method, " ", place, ", takes ", taken, ", ", compressor, ", fails: ", fail)] = text + c.seen
					}
				}
			}
		}
	}
	if creds.Info().SecurityProtocol == "insecure" {
		views["no field"] = askByHTTP(t, s, nil)
		views["no message"] = askByHTTP(t, s, http.Header{"Grpc-Accept-Encoding": {"gzip"}, "Fail": {"yes"}})
	}
	return views
}

// askByHTTP makes a call by net/http, which shows all fields and sends none of its own.
func askByHTTP(t *testing.T, s *server, fields http.Header) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+"/grpc.testing.TestService/UnaryCall", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Place": {"handler"}, "Compressor": {"gzip"}}
	maps.Copy(req.Header, fields)
	resp, err := s.client(t, 2).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	maps.Copy(resp.Header, resp.Trailer)
	delete(resp.Header, "Date")
	return fmt.Sprint(resp.Header, len(b), err)
}

// askCompressed makes a call of one message, and returns what comes.
func askCompressed(ctx context.Context, cc *grpc.ClientConn, method string, options []grpc.CallOption) string {
	ss, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, options...)
	if err != nil {
		return err.Error()
	}
	_ = ss.SendMsg(&testpb.SimpleRequest{}) // What fails, RecvMsg returns.
	_ = ss.CloseSend()
	for err == nil {
		err = ss.RecvMsg(new(testpb.SimpleResponse))
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return fmt.Sprintf("%v; seen %q;", err, ss.Trailer()["seen"])
}
