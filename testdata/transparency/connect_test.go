package transparency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"connectrpc.com/vanguard/vanguardgrpc"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/types/known/durationpb"
)

const testServicePath = "/grpc.testing.TestService/"

type (
	outputRequest  = testpb.StreamingOutputCallRequest
	outputResponse = testpb.StreamingOutputCallResponse
	inputRequest   = testpb.StreamingInputCallRequest
	inputResponse  = testpb.StreamingInputCallResponse
)

// connectService is grpc-go's test service by connect-go's handlers.
func connectService(seen *notes) *http.ServeMux {
	routes := http.NewServeMux()
	routes.Handle(testServicePath+"UnaryCall", connect.NewUnaryHandler(testServicePath+"UnaryCall",
		func(ctx context.Context, in *connect.Request[testpb.SimpleRequest]) (*connect.Response[testpb.SimpleResponse], error) {
			out := connect.NewResponse(&testpb.SimpleResponse{Payload: in.Msg.GetPayload()})
			out.Header().Set("Early", "1")
			out.Trailer().Set("Late", "2")
			switch in.Msg.GetResponseStatus().GetMessage() {
			case "mirror":
				_, hasDeadline := ctx.Deadline()
				h := in.Header().Clone()
				h.Del("Connect-Timeout-Ms")
				h.Del("Grpc-Timeout")
				out.Msg.Username = fmt.Sprint(in.Peer().Protocol, in.Spec(), in.HTTPMethod(), hasDeadline, h)
			case "error":
				err := connect.NewError(connect.CodeNotFound, errors.New("no such thing: 100 % ä"))
				err.Meta().Set("Meta", "3")
				if d, detailErr := connect.NewErrorDetail(durationpb.New(time.Minute)); detailErr == nil {
					err.AddDetail(d)
				}
				return nil, err
			case "plain error":
				return nil, errors.New("of the program")
			case "panic":
				panic("of the program")
			case "wait":
				seen.add("began")
				<-ctx.Done()
				seen.add("context: %v", ctx.Err())
				return nil, ctx.Err()
			}
			return out, nil
		}, connect.WithIdempotency(connect.IdempotencyNoSideEffects), connect.WithReadMaxBytes(1<<20)))
	routes.Handle(testServicePath+"StreamingOutputCall", connect.NewServerStreamHandler(testServicePath+"StreamingOutputCall",
		func(_ context.Context, in *connect.Request[outputRequest], out *connect.ServerStream[outputResponse]) error {
			out.ResponseHeader().Set("Early", "1")
			out.ResponseTrailer().Set("Late", "2")
			for _, p := range in.Msg.GetResponseParameters() {
				if err := out.Send(&outputResponse{Payload: payload(int(p.GetSize()))}); err != nil {
					return err
				}
			}
			if in.Msg.GetResponseStatus().GetMessage() == "panic" {
				panic("of the program")
			}
			if code := in.Msg.GetResponseStatus().GetCode(); code != 0 {
				return connect.NewError(connect.Code(code), errors.New("of the program"))
			}
			return nil
		}))
	routes.Handle(testServicePath+"StreamingInputCall", connect.NewClientStreamHandler(testServicePath+"StreamingInputCall",
		func(_ context.Context, in *connect.ClientStream[inputRequest]) (*connect.Response[inputResponse], error) {
			sum := 0
			for in.Receive() {
				sum += len(in.Msg().GetPayload().GetBody())
			}
			return connect.NewResponse(&inputResponse{AggregatedPayloadSize: int32(sum)}), in.Err()
		}))
	routes.Handle(testServicePath+"FullDuplexCall", connect.NewBidiStreamHandler(testServicePath+"FullDuplexCall",
		func(_ context.Context, both *connect.BidiStream[outputRequest, outputResponse]) error {
			for {
				m, err := both.Receive()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := both.Send(&outputResponse{Payload: m.GetPayload()}); err != nil {
					return err
				}
			}
		}))
	return routes
}

func connectProgram() program {
	var seen notes
	return program{handler: connectService(&seen), seen: seen.text}
}

// connectProtocols are what connect-go's client speaks.
var connectProtocols = map[string][]connect.ClientOption{
	"Connect":  nil,
	"JSON":     {connect.WithProtoJSON()},
	"GET":      {connect.WithHTTPGet()},
	"gzip":     {connect.WithSendGzip()},
	"gRPC":     {connect.WithGRPC()},
	"gRPC-Web": {connect.WithGRPCWeb()},
}

// connectError is all of an error.
func connectError(err error) string {
	var e *connect.Error
	if !errors.As(err, &e) {
		return errText(err)
	}
	text := fmt.Sprintf("%v %s %v ", e.Code(), streamID.ReplaceAllString(e.Message(), "stream ID N"), connect.IsWireError(err))
	for _, d := range e.Details() {
		text += d.Type() + string(d.Bytes())
	}
	return text + headerText(e.Meta())
}

func headerText(h http.Header) string {
	var b strings.Builder
	h = h.Clone()
	h.Del("Date")
	_ = h.Write(&b)
	return b.String()
}

func connectUnary(what string, size int, options []connect.ClientOption) scenario {
	return func(t *testing.T, s *site) string {
		ctx := requestContext(t)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		c := connect.NewClient[testpb.SimpleRequest, testpb.SimpleResponse](s.httpClient(t), s.url(testServicePath+"UnaryCall"),
			append(options[:len(options):len(options)], connect.WithIdempotency(connect.IdempotencyNoSideEffects))...)
		if what == "wait" {
			go func() {
				var program string
				for end := time.Now().Add(timeout); program == "" && time.Now().Before(end); time.Sleep(time.Millisecond) {
					program = s.seen()
				}
				cancel()
			}()
		}
		out, err := c.CallUnary(ctx, connect.NewRequest(&testpb.SimpleRequest{Payload: payload(size), ResponseStatus: &testpb.EchoStatus{Message: what}}))
		if what == "wait" {
			program := ""
			eventually(t, "end of the handler's context", func() bool { program += s.seen(); return strings.Contains(program, "context:") })
			return program + connectError(err)
		}
		if err != nil {
			return connectError(err)
		}
		if what == "mirror" {
			out.Header().Del("Content-Length") // It depends on the digits of the address.
		}
		return out.Msg.GetUsername() + digest(out.Msg.GetPayload().GetBody()) + headerText(out.Header()) + headerText(out.Trailer())
	}
}

func connectOutput(in *outputRequest, options []connect.ClientOption) scenario {
	return func(t *testing.T, s *site) string {
		c := connect.NewClient[outputRequest, outputResponse](s.httpClient(t), s.url(testServicePath+"StreamingOutputCall"), options...)
		out, err := c.CallServerStream(requestContext(t), connect.NewRequest(in))
		if err != nil {
			return connectError(err)
		}
		defer out.Close()
		text := headerText(out.ResponseHeader())
		for out.Receive() {
			text += fmt.Sprint(len(out.Msg().GetPayload().GetBody()), " ")
		}
		return text + connectError(out.Err()) + headerText(out.ResponseTrailer())
	}
}

func connectInput(options []connect.ClientOption) scenario {
	return func(t *testing.T, s *site) string {
		c := connect.NewClient[inputRequest, inputResponse](s.httpClient(t), s.url(testServicePath+"StreamingInputCall"), options...)
		in := c.CallClientStream(requestContext(t))
		for n := range 5 {
			if err := in.Send(&inputRequest{Payload: payload(n * 10_000)}); err != nil {
				return connectError(err)
			}
		}
		out, err := in.CloseAndReceive()
		if err != nil {
			return connectError(err)
		}
		return fmt.Sprint(out.Msg.GetAggregatedPayloadSize()) + headerText(out.Header()) + headerText(out.Trailer())
	}
}

func connectDuplex(options []connect.ClientOption) scenario {
	return func(t *testing.T, s *site) string {
		if s.version == 1 {
			return "" // HTTP/1.1 has no such streams.
		}
		c := connect.NewClient[outputRequest, outputResponse](s.httpClient(t), s.url(testServicePath+"FullDuplexCall"), options...)
		both := c.CallBidiStream(requestContext(t))
		text := ""
		for n := range 5 {
			if err := both.Send(&outputRequest{Payload: payload(n * 1000)}); err != nil {
				_, last := both.Receive()
				return text + fmt.Sprint(connect.CodeOf(last))
			}
			m, err := both.Receive()
			if err != nil {
				return text + fmt.Sprint(connect.CodeOf(err))
			}
			text += fmt.Sprint(len(m.GetPayload().GetBody()), " ")
		}
		_ = both.CloseRequest()
		_, err := both.Receive()
		return text + errText(err) + headerText(both.ResponseHeader()) + headerText(both.ResponseTrailer())
	}
}

// connectScenarios are calls of each kind in each protocol.
func connectScenarios() map[string]scenario {
	scenarios := map[string]scenario{
		"no content type": request("POST", testServicePath+"UnaryCall", "{}", field("Content-Type", "text/plain")),
		"curl":            request("POST", testServicePath+"UnaryCall", `{"payload":{"body":"aGVsbG8="}}`, field("Content-Type", "application/json")),
		"bad JSON":        request("POST", testServicePath+"UnaryCall", `{`, field("Content-Type", "application/json")),
		"no method":       request("POST", testServicePath+"Nothing", `{}`, field("Content-Type", "application/json")),
		"bad method":      request("DELETE", testServicePath+"UnaryCall", ""),
	}
	for name, o := range connectProtocols {
		for _, what := range []string{"", "mirror", "error", "plain error", "panic", "wait"} {
			scenarios[name+" unary "+what] = connectUnary(what, 100, o)
		}
		if name == "GET" {
			continue
		}
		scenarios[name+" large"] = connectUnary("", 200_000, o)
		if name == "Connect" || name == "gRPC" {
			scenarios[name+" too large"] = connectUnary("", 1_100_000, o)
		}
		sizes := func(end *testpb.EchoStatus, sizes ...int32) *outputRequest {
			in := &outputRequest{ResponseStatus: end}
			for _, n := range sizes {
				in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: n})
			}
			return in
		}
		scenarios[name+" output"] = connectOutput(sizes(nil, 1, 100_000, 0), o)
		scenarios[name+" output long"] = connectOutput(sizes(nil, slices.Repeat([]int32{5000}, 40)...), o)
		scenarios[name+" output error"] = connectOutput(sizes(&testpb.EchoStatus{Code: 8}, 1, 2), o)
		scenarios[name+" output panic"] = connectOutput(sizes(&testpb.EchoStatus{Message: "panic"}), o)
		scenarios[name+" input"] = connectInput(o)
		scenarios[name+" duplex"] = connectDuplex(o)
	}
	return scenarios
}

// TestConnect: connect-go's handlers and clients.
func TestConnect(t *testing.T) {
	t.Parallel()
	everyWay(t, connectProgram, connectScenarios())
}

// TestConnectByGRPC: grpc-go's client calls connect-go's handlers.
func TestConnectByGRPC(t *testing.T) {
	t.Parallel()
	alikeEach(t, connectProgram, 2, map[string]scenario{
		"unary":  onHTTP(over(unary("", &testpb.SimpleRequest{Payload: payload(10)}))),
		"error":  onHTTP(over(unary("error", &testpb.SimpleRequest{}))),
		"cancel": onHTTP(over(cancelled)),
		"output": onHTTP(over(output(nil, 1, 2))),
		"input":  onHTTP(over(input(1, 2))),
		"other":  onHTTP(over(checkHealth(""))),
	})
}

// onHTTP has gRPC's client call the HTTP port.
func onHTTP(do scenario) scenario {
	return func(t *testing.T, s *site) string {
		other := *s
		other.grpc = s.http
		return do(t, &other)
	}
}

// TestVanguard: a transcoder before handlers of connect-go and before grpc-go's services.
func TestVanguard(t *testing.T) {
	t.Parallel()
	rules := vanguard.WithRules(
		&annotations.HttpRule{Selector: "grpc.testing.TestService.UnaryCall", Body: "*", Pattern: &annotations.HttpRule_Post{Post: "/v1/unary"}},
		&annotations.HttpRule{Selector: "grpc.testing.TestService.StreamingInputCall", Body: "payload", Pattern: &annotations.HttpRule_Post{Post: "/v1/input"}},
	)
	handlers := func() program {
		var seen notes
		service := vanguard.NewService("grpc.testing.TestService", connectService(&seen), vanguard.WithTargetProtocols(vanguard.ProtocolConnect))
		transcoder, err := vanguard.NewTranscoder([]*vanguard.Service{service}, rules)
		if err != nil {
			t.Fatal(err)
		}
		return program{handler: transcoder, seen: seen.text}
	}
	scenarios := connectScenarios()
	for name := range connectProtocols {
		delete(scenarios, name+" unary wait")   // Its handlers do not hear of each client that leaves.
		delete(scenarios, name+" unary mirror") // It passes on the time that is left.
	}
	scenarios["REST"] = request("POST", "/v1/unary", `{"payload":{"body":"aGVsbG8="}}`, field("Content-Type", "application/json"))
	scenarios["REST error"] = request("POST", "/v1/unary", `{"responseStatus":{"message":"error"}}`, field("Content-Type", "application/json"))
	scenarios["REST, none"] = get("/v1/nothing")
	services := func() program {
		var seen notes
		gs := grpc.NewServer()
		testpb.RegisterTestServiceServer(gs, testService{notes: &seen})
		transcoder, err := vanguardgrpc.NewTranscoder(gs, rules)
		if err != nil {
			t.Fatal(err)
		}
		return program{handler: transcoder, seen: seen.text}
	}
	for name, start := range map[string]func() program{"connect-go": handlers, "grpc-go": services} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s HTTP%d", name, version), func(t *testing.T) { alikeEach(t, start, version, scenarios) })
		}
	}
}
