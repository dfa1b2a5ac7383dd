package mux_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// failingService is a service whose calls fail.
type failingService struct {
	testpb.UnimplementedTestServiceServer
	calls   atomic.Int32
	release chan struct{} // ends the calls that do not look at their context
}

// UnaryCall is unavailable twice, and tells so in a trailer.
func (s *failingService) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if r.GetFillUsername() { // With fields of its own.
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-field", "value"))
	}
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "value"))
	if r.GetFillOauthScope() { // With fields of an HTTP answer.
		_ = grpc.SetTrailer(ctx, metadata.Pairs("trailer", "x", "content-length", "5", "connection", "close", "www-authenticate", "Bearer"))
	}
	if s.calls.Add(1) <= 2 {
		return nil, status.Error(codes.Unavailable, "not yet: \u00e4")
	}
	return &testpb.SimpleResponse{Username: "served"}, nil
}

// StreamingOutputCall sends a message for each that is asked for and goes on behind its
// deadline.
func (s *failingService) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for range r.GetResponseParameters() {
		if err := stream.Send(new(testpb.StreamingOutputCallResponse)); err != nil {
			return err
		}
	}
	<-s.release
	return nil
}

func startFailing(t *testing.T, transport protocols.GRPCTransport) (*server, *failingService) {
	t.Helper()
	service := &failingService{release: make(chan struct{})}
	t.Cleanup(func() { close(service.release) })
	return start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) })), service
}

const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.001s", "maxBackoff": "0.01s",
	"backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// TestCallsAreRetried: a client with a retry policy retries a call that has failed, on each
// transport. It does not where the handler has sent fields of its own, which it has seen.
func TestCallsAreRetried(t *testing.T) {
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			s, service := startFailing(t, transport)
			client := testpb.NewTestServiceClient(s.grpcClient(t, grpc.WithDefaultServiceConfig(retries)))
			resp, err := client.UnaryCall(t.Context(), new(testpb.SimpleRequest))
			if err != nil || resp.GetUsername() != "served" || service.calls.Load() != 3 {
				t.Errorf("%v, %v after %d calls", resp, err, service.calls.Load())
			}
			service.calls.Store(0)
			var header, trailer metadata.MD
			_, err = client.UnaryCall(t.Context(), &testpb.SimpleRequest{FillUsername: true}, grpc.Header(&header), grpc.Trailer(&trailer))
			if status.Code(err) != codes.Unavailable || service.calls.Load() != 1 {
				t.Errorf("%v after %d calls", err, service.calls.Load())
			}
			got := []string{header.Get("x-field")[0], trailer.Get("x-trailer")[0], status.Convert(err).Message()}
			if diff := cmp.Diff([]string{"value", "value", "not yet: \u00e4"}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCallPaths: the path of a call is not decoded on any transport, so that a proxy's rules by
// path hold. The answers are grpc-go's.
func TestCallPaths(t *testing.T) {
	answers := func(addr string) (all []string) {
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		for _, path := range []string{
			"/grpc.testing.TestService/EmptyCall",
			"/grpc.testing.%54estService/EmptyCall",
			"/grpc.testing.TestService/Empty%43all",
			"/grpc.testing.TestService%2FEmptyCall",
			"/grpc.testing.TestService/EmptyCall?x=1",
			"http://x/grpc.testing.TestService/EmptyCall",
		} {
			err := cc.Invoke(t.Context(), path, new(testpb.Empty), new(testpb.Empty))
			all = append(all, path+": "+status.Code(err).String())
		}
		return all
	}
	direct, l := grpc.NewServer(), listen(t)
	testpb.RegisterTestServiceServer(direct, emptyService{})
	go func() { _ = direct.Serve(l) }()
	defer direct.Stop()
	want := answers(l.Addr().String())
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }),
			mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, emptyService{}) }))
		if diff := cmp.Diff(want, answers(s.addr)); diff != "" {
			t.Errorf("%s (-grpc-go +%[1]s):\n%s", transport, diff)
		}
	}
}

// emptyService answers EmptyCall.
type emptyService struct {
	testpb.UnimplementedTestServiceServer
}

func (emptyService) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return new(testpb.Empty), nil
}

// post makes a call of a client that has no deadline of its own, and returns the answer.
func (s *server) post(t *testing.T, method, timeout, message string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addr+"/grpc.testing.TestService/"+method, strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc+proto")
	r.Header.Set("Te", "trailers")
	if timeout != "" {
		r.Header.Set("Grpc-Timeout", timeout)
	}
	resp, err := s.client(t, 2).Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// TestTrailersOnly: what fails at once is one frame on each transport, with the same
// fields.
func TestTrailersOnly(t *testing.T) {
	fields := make(map[protocols.GRPCTransport]http.Header)
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		s, _ := startFailing(t, transport)
		resp, err := s.post(t, "UnaryCall", "", "\x00\x00\x00\x00\x00")
		if err != nil || len(resp.Trailer) > 0 {
			t.Fatalf("%s: %v, %v", transport, resp, err)
		}
		fields[transport] = resp.Header
	}
	if diff := cmp.Diff(fields[protocols.TransportNative], fields[protocols.TransportShared]); diff != "" {
		t.Errorf("(-native +shared):\n%s", diff)
	}
}

// TestTrailersOfHTTP: a call fails with its status, though its trailing metadata has names
// that mean something else in HTTP.
func TestTrailersOfHTTP(t *testing.T) {
	s, _ := startFailing(t, protocols.TransportShared)
	var trailer metadata.MD
	_, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{FillOauthScope: true}, grpc.Trailer(&trailer))
	if status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	for _, name := range []string{"x-trailer", "www-authenticate"} {
		if got := trailer.Get(name); len(got) != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestSharedFields: a call that has messages has the same header and trailer on each
// transport.
func TestSharedFields(t *testing.T) {
	fields := make(map[protocols.GRPCTransport][2]http.Header)
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		s, service := startFailing(t, transport)
		service.calls.Store(2)
		resp, err := s.post(t, "UnaryCall", "", "\x00\x00\x00\x00\x00")
		if err != nil || resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("X-Trailer") != "value" {
			t.Fatalf("%s: %v, %v", transport, resp, err)
		}
		fields[transport] = [2]http.Header{resp.Header, resp.Trailer}
	}
	if diff := cmp.Diff(fields[protocols.TransportNative], fields[protocols.TransportShared]); diff != "" {
		t.Errorf("(-native +shared):\n%s", diff)
	}
}

// TestSharedDeadline: the client of a call on the shared transport gets the status at the
// deadline, though the handler runs on, before and behind the first message.
func TestSharedDeadline(t *testing.T) {
	s, _ := startFailing(t, protocols.TransportShared)
	for name, tt := range map[string]struct{ timeout, message string }{
		"nothing sent": {"50m", "\x00\x00\x00\x00\x00"},
		"at once":      {"0m", "\x00\x00\x00\x00\x00"},
		"message sent": {"200m", "\x00\x00\x00\x00\x02\x12\x00"},
	} {
		resp, err := s.post(t, "StreamingOutputCall", tt.timeout, tt.message)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
		if got != "4" || resp.Header.Get("Content-Type") != "application/grpc+proto" {
			t.Errorf("%s: status %q, %v, %v", name, got, resp.Header, resp.Trailer)
		}
	}
}
