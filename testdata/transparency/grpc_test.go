package transparency_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/muxserve/muxserve/mux"
)

// testService is grpc-go's test service. The request's user field says what a unary call is
// to do.
type testService struct {
	testpb.UnimplementedTestServiceServer
	notes *notes
}

func (testService) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

// UnaryCall does what the status message of the request says.
func (s testService) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	out := &testpb.SimpleResponse{Payload: in.GetPayload()}
	if n := in.GetResponseSize(); n > 0 {
		out.Payload = &testpb.Payload{Body: bytes.Repeat([]byte("r"), int(n))}
	}
	switch what := in.GetResponseStatus().GetMessage(); what {
	case "mirror":
		out.Username = callText(ctx)
	case "metadata":
		_ = grpc.SetHeader(ctx, metadata.Pairs("early", "1", "early-bin", "\x00\xff"))
		_ = grpc.SendHeader(ctx, metadata.Pairs("early", "2"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("late", "a", "late", "b", "late-bin", "\x01\x02"))
		if err := grpc.SetHeader(ctx, metadata.Pairs("too", "late")); err != nil {
			out.Username = err.Error()
		}
	case "error with metadata":
		_ = grpc.SetHeader(ctx, metadata.Pairs("early", "1"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("late", "a"))
		return nil, status.Error(codes.NotFound, "no such thing: 100 % ä\n")
	case "details":
		st, _ := status.New(codes.ResourceExhausted, "later").WithDetails(durationpb.New(time.Minute))
		return nil, st.Err()
	case "plain error":
		return nil, errors.New("of the program")
	case "context":
		return nil, context.Canceled
	case "wait":
		s.notes.add("began")
		<-ctx.Done()
		s.notes.add("context: %v", ctx.Err())
		return nil, status.FromContextError(ctx.Err()).Err()
	case "slow":
		s.notes.add("began")
		time.Sleep(200 * time.Millisecond)
		s.notes.add("ended")
	case "deaf":
		<-ctx.Done() // As a handler that looks at nothing else.
		time.Sleep(100 * time.Millisecond)
		return out, nil
	}
	if code := in.GetResponseStatus().GetCode(); code != 0 {
		return nil, status.Error(codes.Code(code), "code of the program")
	}
	return out, nil
}

func (s testService) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	out.SetTrailer(metadata.Pairs("late", "1"))
	for _, p := range in.GetResponseParameters() {
		if err := out.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: bytes.Repeat([]byte("s"), int(p.GetSize()))}}); err != nil {
			s.notes.add("output: %v", err)
			return err
		}
	}
	if st := in.GetResponseStatus(); st != nil {
		return status.Error(codes.Code(st.GetCode()), st.GetMessage())
	}
	return nil
}

func (testService) StreamingInputCall(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	sum := int32(0)
	for {
		m, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: sum})
		}
		if err != nil {
			return err
		}
		if sum += int32(len(m.GetPayload().GetBody())); m.GetExpectCompressed().GetValue() {
			return status.Error(codes.FailedPrecondition, "enough")
		}
	}
}

func (s testService) FullDuplexCall(both grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	_ = both.SendHeader(metadata.Pairs("early", "1"))
	for {
		m, err := both.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			s.notes.add("duplex: %v", status.Code(err))
			return err
		}
		if st := m.GetResponseStatus(); st != nil {
			return status.Error(codes.Code(st.GetCode()), st.GetMessage())
		}
		if err := both.Send(&testpb.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
			return err
		}
	}
}

// callText is all that a handler sees of its call.
func callText(ctx context.Context) string {
	method, _ := grpc.Method(ctx)
	_, hasDeadline := ctx.Deadline()
	p, _ := peer.FromContext(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	auth := "none"
	if p.AuthInfo != nil {
		auth = p.AuthInfo.AuthType()
	}
	if info, ok := p.AuthInfo.(interface{ GetCommonAuthInfo() any }); ok {
		auth += fmt.Sprint(info.GetCommonAuthInfo())
	}
	return fmt.Sprintf("%s deadline %v peer %v %T local %v %T auth %s\n%s", method, hasDeadline, p.Addr, p.Addr, p.LocalAddr, p.LocalAddr, auth, metadataText(md))
}

// metadataText lists metadata by name.
func metadataText(md metadata.MD) string {
	var lines []string
	for name, values := range md {
		if name == "date" && len(values) == 1 {
			values = []string{"now"}
		}
		lines = append(lines, fmt.Sprintf("%s: %q", name, values))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// netGRPC is a program of grpc-go alone.
func netGRPC() program {
	seen := new(notes)
	return program{
		handler: http.NotFoundHandler(),
		register: func(r grpc.ServiceRegistrar) {
			testpb.RegisterTestServiceServer(r, testService{notes: seen})
			h := health.NewServer()
			h.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_SERVING)
			healthpb.RegisterHealthServer(r, h)
			if s, ok := r.(reflection.GRPCServer); ok {
				reflection.Register(s)
			}
		},
		seen: seen.text,
	}
}

// A call makes calls on a client and returns what came of them.
type call func(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, seen func() string) string

// over has grpc-go's client make calls.
func over(do call, options ...grpc.DialOption) scenario {
	return func(t *testing.T, s *site) string {
		return do(t, requestContext(t), s.grpcClient(t, options...), s.seen)
	}
}

// unary makes a unary call.
func unary(what string, in *testpb.SimpleRequest, options ...grpc.CallOption) call {
	return func(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
		in := proto.CloneOf(in)
		if what != "" {
			in.ResponseStatus = &testpb.EchoStatus{Message: what}
		}
		var header, trailer metadata.MD
		out, err := testpb.NewTestServiceClient(c).UnaryCall(ctx, in, append(options[:len(options):len(options)], grpc.Header(&header), grpc.Trailer(&trailer))...)
		return out.GetUsername() + " " + digest(out.GetPayload().GetBody()) + "\n" + outcome(err, header, trailer)
	}
}

// outcome is what a client knows at the end of a call.
func outcome(err error, header, trailer metadata.MD) string {
	st, _ := status.FromError(err)
	return fmt.Sprintf("%v %q %v\nheader:\n%s\ntrailer:\n%s\n", st.Code(), st.Message(), st.Proto().GetDetails(), metadataText(header), metadataText(trailer))
}

func payload(size int) *testpb.Payload { return &testpb.Payload{Body: bytes.Repeat([]byte("p"), size)} }

func within(d time.Duration, do call) call {
	return func(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, seen func() string) string {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return do(t, ctx, c, seen)
	}
}

// onlyCode leaves out what depends on which of client and server is first.
func onlyCode(do call) call {
	return func(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, seen func() string) string {
		return strings.SplitN(do(t, ctx, c, seen), "\"", 2)[0]
	}
}

// with adds metadata.
func with(do call, pairs ...string) call {
	return func(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, seen func() string) string {
		return do(t, metadata.AppendToOutgoingContext(ctx, pairs...), c, seen)
	}
}

// grpcScenarios are calls of each kind and end.
func grpcScenarios() map[string]scenario {
	scenarios := map[string]scenario{
		"EmptyCall": over(func(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
			_, err := testpb.NewTestServiceClient(c).EmptyCall(ctx, &testpb.Empty{})
			return errText(err)
		}),
		"mirror":              over(with(unary("mirror", &testpb.SimpleRequest{}), "a", "1", "a", "2", "b-bin", "\x00\xfe")),
		"metadata":            over(unary("metadata", &testpb.SimpleRequest{})),
		"error with metadata": over(unary("error with metadata", &testpb.SimpleRequest{})),
		"details":             over(unary("details", &testpb.SimpleRequest{})),
		"plain error":         over(unary("plain error", &testpb.SimpleRequest{})),
		"context error":       over(unary("context", &testpb.SimpleRequest{})),
		"deadline":            over(onlyCode(within(20*time.Millisecond, unary("deaf", &testpb.SimpleRequest{})))),
		"large":               over(unary("", &testpb.SimpleRequest{Payload: payload(3 << 20)})),
		"too large":           over(unary("", &testpb.SimpleRequest{Payload: payload(5 << 20)})),
		"large answer":        over(unary("", &testpb.SimpleRequest{ResponseSize: 8 << 20}), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20))),
		"too large for me":    over(unary("", &testpb.SimpleRequest{ResponseSize: 5 << 20})),
		"gzip":                over(unary("mirror", &testpb.SimpleRequest{Payload: payload(1 << 20)}, grpc.UseCompressor(gzip.Name))),
		"much metadata":       over(with(unary("mirror", &testpb.SimpleRequest{}), "much", strings.Repeat("m", 10_000))),
		"too much metadata":   over(with(unary("", &testpb.SimpleRequest{}), "much", strings.Repeat("m", 100_000))),
		"no method":           over(invoke("/grpc.testing.TestService/Nothing")),
		"no service":          over(invoke("/some.other.Service/Nothing")),
		"no path":             over(invoke("/nothing")),
		"agent":               over(unary("mirror", &testpb.SimpleRequest{}), grpc.WithUserAgent("program/1.0")),
		"authority":           over(unary("mirror", &testpb.SimpleRequest{}), grpc.WithAuthority("localhost")),
		"cancel":              over(cancelled),
		"output":              over(output(nil, 10, 100_000, 0)),
		"output, error":       over(output(&testpb.EchoStatus{Code: 8, Message: "enough"}, 10)),
		"output, only error":  over(output(&testpb.EchoStatus{Code: 7, Message: "no"})),
		"output, none":        over(output(nil)),
		"output, long":        over(output(nil, slices.Repeat([]int32{100_000}, 50)...)),
		"output, left":        over(outputLeft),
		"input":               over(input(10, 0, 100_000)),
		"input, none":         over(input()),
		"input, ended":        over(inputEnded),
		"duplex":              over(duplex),
		"duplex, error":       over(duplexError),
		"duplex, left":        over(duplexLeft),
		"health":              over(checkHealth("")),
		"health of service":   over(checkHealth("grpc.testing.TestService")),
		"health of nothing":   over(checkHealth("nothing")),
		"reflection":          over(listServices),
		"many":                over(many),
		"keepalive":           over(unary("", &testpb.SimpleRequest{}), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: time.Minute, PermitWithoutStream: true})),
		"wait for ready":      over(unary("", &testpb.SimpleRequest{}, grpc.WaitForReady(true))),
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		scenarios["code "+code.String()] = over(unary("", &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(code)}}))
	}
	return scenarios
}

func invoke(method string) call {
	return func(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
		var header, trailer metadata.MD
		err := c.Invoke(ctx, method, &testpb.Empty{}, &testpb.Empty{}, grpc.Header(&header), grpc.Trailer(&trailer))
		return outcome(err, header, trailer)
	}
}

// cancelled leaves while the handler runs.
func cancelled(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, seen func() string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := make(chan string, 1)
	go func() { got <- unary("wait", &testpb.SimpleRequest{})(t, ctx, c, seen) }()
	var program string
	eventually(t, "beginning of the call", func() bool { program += seen(); return program != "" })
	cancel()
	eventually(t, "end of the handler's context", func() bool { program += seen(); return strings.Contains(program, "context:") })
	return <-got + program
}

func output(end *testpb.EchoStatus, sizes ...int32) call {
	return func(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
		in := &testpb.StreamingOutputCallRequest{ResponseStatus: end}
		for _, size := range sizes {
			in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: size})
		}
		stream, err := testpb.NewTestServiceClient(c).StreamingOutputCall(ctx, in)
		if err != nil {
			return outcome(err, nil, nil)
		}
		var b strings.Builder
		for {
			m, err := stream.Recv()
			if err != nil {
				header, _ := stream.Header()
				return b.String() + outcome(eof(err), header, stream.Trailer())
			}
			fmt.Fprint(&b, len(m.GetPayload().GetBody()), " ")
		}
	}
}

// outputLeft leaves while the handler waits to send more.
func outputLeft(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, seen func() string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := &testpb.StreamingOutputCallRequest{ResponseParameters: slices.Repeat([]*testpb.ResponseParameters{{Size: 100_000}}, 1000)}
	stream, err := testpb.NewTestServiceClient(c).StreamingOutputCall(ctx, in)
	if err != nil {
		return outcome(err, nil, nil)
	}
	_, err = stream.Recv()
	cancel()
	var program string
	eventually(t, "end of the handler", func() bool { program += seen(); return program != "" })
	return errText(err) + program
}

// eof is nil for io.EOF, which is the end of a stream without an error.
func eof(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func input(sizes ...int) call {
	return func(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
		stream, err := testpb.NewTestServiceClient(c).StreamingInputCall(ctx)
		if err != nil {
			return outcome(err, nil, nil)
		}
		for _, size := range sizes {
			if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: payload(size)}); err != nil {
				return outcome(err, nil, nil)
			}
		}
		out, err := stream.CloseAndRecv()
		header, _ := stream.Header()
		return fmt.Sprint(out.GetAggregatedPayloadSize()) + outcome(err, header, stream.Trailer())
	}
}

// inputEnded sends until the server has ended the call.
func inputEnded(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
	stream, err := testpb.NewTestServiceClient(c).StreamingInputCall(ctx)
	for err == nil {
		err = stream.Send(&testpb.StreamingInputCallRequest{Payload: payload(1000), ExpectCompressed: &testpb.BoolValue{Value: true}})
	}
	_, last := stream.CloseAndRecv()
	return fmt.Sprint(err) + outcome(last, nil, stream.Trailer())
}

func duplex(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
	stream, err := testpb.NewTestServiceClient(c).FullDuplexCall(ctx)
	if err != nil {
		return outcome(err, nil, nil)
	}
	header, err := stream.Header()
	text := metadataText(header) + errText(err)
	for n := range 20 {
		err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(n * 1000)})
		m, recvErr := stream.Recv()
		text += fmt.Sprint(errText(err), len(m.GetPayload().GetBody()), errText(recvErr), " ")
	}
	_ = stream.CloseSend()
	_, err = stream.Recv()
	return text + outcome(eof(err), nil, stream.Trailer())
}

func duplexError(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
	stream, err := testpb.NewTestServiceClient(c).FullDuplexCall(ctx)
	if err != nil {
		return outcome(err, nil, nil)
	}
	_ = stream.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: 10, Message: "of the program"}})
	_, err = stream.Recv()
	header, _ := stream.Header()
	return outcome(err, header, stream.Trailer())
}

func duplexLeft(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, seen func() string) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := testpb.NewTestServiceClient(c).FullDuplexCall(ctx)
	if err != nil {
		return outcome(err, nil, nil)
	}
	_ = stream.Send(&testpb.StreamingOutputCallRequest{})
	_, err = stream.Recv()
	text := errText(err)
	cancel()
	_, err = stream.Recv()
	var program string
	eventually(t, "end of the handler", func() bool { program += seen(); return program != "" })
	return text + outcome(err, nil, nil) + program
}

func checkHealth(service string) call {
	return func(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
		out, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		return out.GetStatus().String() + outcome(err, nil, nil)
	}
}

func listServices(_ *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
	stream, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
	if err != nil {
		return outcome(err, nil, nil)
	}
	_ = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	m, err := stream.Recv()
	var names []string
	for _, s := range m.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return strings.Join(names, " ") + errText(err)
}

// many has calls under way at one time: as many as no server bounds to fewer.
func many(t *testing.T, ctx context.Context, c grpc.ClientConnInterface, _ func() string) string {
	results := make(chan string)
	const calls = 200
	for range calls {
		go func() { results <- unary("", &testpb.SimpleRequest{Payload: payload(1000)})(t, ctx, c, nil) }()
	}
	first, same := <-results, 1
	for range calls - 1 {
		if <-results == first {
			same++
		}
	}
	return fmt.Sprint(same, first)
}

// TestNetGRPC: calls of grpc-go's client to grpc-go's services.
func TestNetGRPC(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"plaintext", "TLS", "one server"} {
		t.Run(form, func(t *testing.T) {
			alikeEach(t, func() program {
				p := netGRPC()
				switch form {
				case "TLS":
					p.tls = serverTLS()
				case "one server": // Below net/http's HTTP/2, for the mux.
					p.settings = sharedTransport
				}
				return p
			}, 2, grpcScenarios())
		})
	}
}

// TestMutualTLS: what a handler sees of a client's certificate.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	start := func() program {
		p := netGRPC()
		p.handler = http.HandlerFunc(mirror)
		p.tls = serverTLS()
		p.tls.ClientAuth, p.tls.ClientCAs = tls.RequireAndVerifyClientCert, clientTLS(p.tls).RootCAs
		return p
	}
	for name, do := range map[string]scenario{
		"gRPC": over(unary("mirror", &testpb.SimpleRequest{})),
		"HTTP": get("/"),
	} {
		for _, has := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", name, has), func(t *testing.T) {
				alike(t, start, 2, func(t *testing.T, s *site) string {
					if has {
						s.client.Certificates = []tls.Certificate{certificate()}
					}
					text := do(t, s)
					if !has {
						return strings.SplitN(text, "\"", 2)[0] // How TLS's refusal reaches a client is a race.
					}
					return text
				})
			})
		}
	}
}

// TestGRPCOptions: interceptors, a stats handler and a handler of unknown services.
func TestGRPCOptions(t *testing.T) {
	t.Parallel()
	start := func() program {
		p := netGRPC()
		seen := new(notes)
		own := p.seen
		p.seen = func() string { return own() + seen.text() }
		p.handler = nil
		p.options = []grpc.ServerOption{
			grpc.ChainUnaryInterceptor(func(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				out, err := next(ctx, in)
				seen.add("unary %s %v", info.FullMethod, status.Code(err))
				return out, err
			}),
			grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
				err := next(srv, stream)
				seen.add("stream %s %v %v %v", info.FullMethod, info.IsClientStream, info.IsServerStream, status.Code(err))
				return err
			}),
			grpc.StatsHandler(recorded{seen}),
			grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				method, _ := grpc.MethodFromServerStream(stream)
				return status.Error(codes.OutOfRange, "unknown "+method)
			}),
			grpc.MaxRecvMsgSize(1 << 20),
		}
		return p
	}
	settle := func(do scenario) scenario { // The end of a call is booked after the client has it.
		return func(t *testing.T, s *site) string {
			text := do(t, s)
			_ = s.shutdown(requestContext(t))
			return text
		}
	}
	for name, do := range map[string]scenario{
		"unary": over(unary("metadata", &testpb.SimpleRequest{})), "error": over(unary("details", &testpb.SimpleRequest{})),
		"output": over(output(nil, 1, 2)), "input": over(input(1, 2)), "unknown": over(invoke("/some.Service/Method")),
		"too large": over(unary("", &testpb.SimpleRequest{Payload: payload(2 << 20)})), "gzip": over(unary("", &testpb.SimpleRequest{Payload: payload(2000)}, grpc.UseCompressor(gzip.Name))),
	} {
		t.Run(name, func(t *testing.T) { alike(t, start, 2, settle(do)) })
	}
}

// recorded is a stats handler that notes the events of calls.
type recorded struct{ seen *notes }

func (recorded) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (recorded) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r recorded) HandleConn(_ context.Context, s stats.ConnStats)                 { r.seen.add("conn %T", s) }
func (r recorded) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.InHeader:
		r.seen.add("in header %s %s", s.FullMethod, s.Compression)
	case *stats.InPayload:
		r.seen.add("in payload %d %d", s.Length, s.WireLength)
	case *stats.OutHeader:
		r.seen.add("out header %s %s", s.Compression, metadataText(s.Header))
	case *stats.OutPayload:
		r.seen.add("out payload %d", s.Length)
	case *stats.OutTrailer:
		r.seen.add("out trailer %s", metadataText(s.Trailer))
	case *stats.End:
		r.seen.add("end %v", status.Code(s.Error))
	default:
		r.seen.add("%T", s)
	}
}

// sharedTransport has the mux serve each call below net/http's HTTP/2.
func sharedTransport(c *mux.Config) { c.GRPC.Transport = "shared" }

// TestCallsByHTTP: gRPC calls that an HTTP client writes, as proxies do. What they see is the
// bytes of the header, the body and the trailer.
func TestCallsByHTTP(t *testing.T) {
	t.Parallel()
	message := func(m proto.Message) string {
		p, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(p)))) + string(p)
	}
	const method = "/grpc.testing.TestService/UnaryCall"
	hello := message(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte("hello")}})
	on := func(do scenario) scenario { // the gRPC port
		return func(t *testing.T, s *site) string {
			other := *s
			other.http = s.grpc
			return do(t, &other)
		}
	}
	headers := []edit{field("Content-Type", "application/grpc"), field("Te", "trailers"), unsized}
	and := func(e ...edit) []edit { return append(headers[:len(headers):len(headers)], e...) }
	scenarios := map[string]scenario{
		"unary":           on(request("POST", method, hello, headers...)),
		"content-type":    on(request("POST", method, hello, and(field("Content-Type", "application/grpc+proto"))...)),
		"subtype":         on(request("POST", method, hello, and(field("Content-Type", "application/grpc+unknown"))...)),
		"error":           on(request("POST", method, message(&testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: 5}}), headers...)),
		"metadata":        on(request("POST", method, message(&testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Message: "metadata"}}), headers...)),
		"no method":       on(request("POST", "/grpc.testing.TestService/Nothing", hello, headers...)),
		"no service":      on(request("POST", "/some.other.Service/Nothing", hello, headers...)),
		"no te":           on(request("POST", method, hello, field("Content-Type", "application/grpc"), unsized)),
		"bad timeout":     on(request("POST", method, hello, and(field("Grpc-Timeout", "soon"))...)),
		"timeout":         on(request("POST", method, message(&testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Message: "deaf"}}), and(field("Grpc-Timeout", "20m"))...)),
		"bad message":     on(request("POST", method, "\x00\x00\x00\x00\x01\xff", headers...)),
		"short message":   on(request("POST", method, "\x00\x00\x00\x00\x09\xff", headers...)),
		"no message":      on(request("POST", method, "", headers...)),
		"bad compression": on(request("POST", method, hello, and(field("Grpc-Encoding", "zip"))...)),
		"bad metadata":    on(request("POST", method, hello, and(field("A-Bin", "***"))...)),
	}
	alikeEach(t, netGRPC, 2, scenarios)
}

// underWay begins a request, ends the site while its handler runs, and returns what came of
// both.
func underWay(do scenario) scenario {
	return func(t *testing.T, s *site) string {
		got := make(chan string, 1)
		go func() { got <- do(t, s) }()
		program := ""
		eventually(t, "beginning of the request", func() bool { program += s.seen(); return program != "" })
		err := s.shutdown(requestContext(t))
		program += s.seen()
		return <-got + errText(err) + program + newcomer(s)
	}
}

// newcomer is what a client hears that comes after the end.
func newcomer(s *site) string {
	c, err := net.Dial("tcp", s.http)
	if err == nil {
		_ = c.Close()
	}
	return fmt.Sprintf("newcomer refused: %v", err != nil)
}

// TestShutdown: requests and calls that are under way at the end.
func TestShutdown(t *testing.T) {
	t.Parallel()
	slow := &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Message: "slow"}}
	start := func() program {
		p := netGRPC()
		seen := p.seen
		var own notes
		p.seen = func() string { return seen() + own.text() }
		routes := connectService(&own)
		routes.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
			own.add("began")
			time.Sleep(200 * time.Millisecond)
			own.add("ended")
			fmt.Fprint(w, "complete ", r.Context().Err())
		})
		p.handler = routes
		return p
	}
	for name, do := range map[string]scenario{"gRPC": over(unary("slow", slow)), "HTTP": get("/slow")} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s %d", name, version), func(t *testing.T) { alike(t, start, version, underWay(do)) })
		}
	}
}
