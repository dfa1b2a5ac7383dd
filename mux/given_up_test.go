package mux_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// givenUpService has streams that last until they fail.
type givenUpService struct {
	testpb.UnimplementedTestServiceServer
}

// StreamingOutputCall sends.
func (givenUpService) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return sendUntilFailure(stream)
}

// FullDuplexCall sends a message and receives.
func (givenUpService) FullDuplexCall(stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	err := stream.Send(new(testpb.StreamingOutputCallResponse))
	for err == nil {
		_, err = stream.Recv()
	}
	return err
}

func sendUntilFailure(stream grpc.ServerStream) error {
	for {
		if err := stream.SendMsg(new(testpb.StreamingOutputCallResponse)); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// TestGivenUpStreams: a stream whose client leaves it, or whose deadline passes, fails with
// the status of its context for handler and interceptors, and counts under that code, on
// both transports.
func TestGivenUpStreams(t *testing.T) {
	interceptors := map[string]func(grpc.StreamServerInterceptor) grpc.ServerOption{
		"StreamInterceptor":      grpc.StreamInterceptor,
		"ChainStreamInterceptor": func(i grpc.StreamServerInterceptor) grpc.ServerOption { return grpc.ChainStreamInterceptor(i) },
	}
	ends := map[string]func(*testing.T, *server, string){"cancel": cancelStream, "deadline": outlastDeadline}
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		for kind, intercept := range interceptors {
			for _, method := range []string{"/grpc.testing.TestService/StreamingOutputCall", "/grpc.testing.TestService/FullDuplexCall", "/some.Service/Unknown"} {
				for how, end := range ends {
					t.Run(string(transport)+"/"+kind+method+"/"+how, func(t *testing.T) {
						t.Parallel()
						checkGivenUp(t, transport, intercept, func(s *server) { end(t, s, method) })
					})
				}
			}
		}
	}
}

// checkGivenUp has end give up a stream, and compares what is known of its failure.
func checkGivenUp(t *testing.T, transport protocols.GRPCTransport, intercept func(grpc.StreamServerInterceptor) grpc.ServerOption, end func(*server)) {
	t.Helper()
	type failure struct{ err, ctx error }
	failures := make(chan failure, 1)
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }), mux.WithGRPC(
		func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, givenUpService{}) },
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return sendUntilFailure(stream) }),
		intercept(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			err := next(srv, stream)
			<-stream.Context().Done() // grpc-go ends the stream before.
			failures <- failure{err, stream.Context().Err()}
			return err
		})))
	end(s)
	got := within(t, "end of the handler", failures)
	want := status.FromContextError(got.ctx)
	if transport == protocols.TransportNative && status.Code(got.err) == codes.Canceled {
		want = status.FromContextError(context.Canceled) // What it says in between, at a deadline as well.
	}
	if st := status.Convert(got.err); st.Code() != want.Code() || st.Message() != want.Message() {
		t.Errorf("%v, want %v", st, want)
	}
	eventually(t, "counted", func() bool { return len(s.Stats().Codes["grpc"]) > 0 })
	st := s.Stats()
	if diff := cmp.Diff(map[int]uint64{int(want.Code()): 1}, st.Codes["grpc"]); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	failed := uint64(0) // A deadline that passes is a failure.
	if want.Code() == codes.DeadlineExceeded {
		failed = 1
	}
	if n := st.Requests["grpc"].Failed; n != failed {
		t.Errorf("%d count as failed, want %d", n, failed)
	}
}

// listens reports whether a method's handler waits for more messages.
func listens(method string) bool { return strings.HasSuffix(method, "/FullDuplexCall") }

// cancelStream calls a method, and cancels the call behind the first message.
func cancelStream(t *testing.T, s *server, method string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := s.grpcClient(t).NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err == nil {
		err = stream.SendMsg(new(testpb.StreamingOutputCallRequest))
	}
	if err == nil && !listens(method) {
		err = stream.CloseSend()
	}
	if err == nil {
		err = stream.RecvMsg(new(testpb.StreamingOutputCallResponse))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// outlastDeadline calls a method with a deadline that the client itself does not keep.
func outlastDeadline(t *testing.T, s *server, method string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	body, w := io.Pipe()
	defer w.Close()
	go func() {
		_, _ = w.Write(make([]byte, 5))
		if !listens(method) {
			_ = w.Close()
		}
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addr+method, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	r.Header.Set("Grpc-Timeout", "1S") // Time for the handler to begin.
	resp, err := s.client(t, 2).Do(r)
	if err != nil {
		return // The native transport resets the stream.
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}
