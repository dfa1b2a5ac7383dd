package mux_test

import (
	"context"
	"errors"
	"fmt"
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
	"google.golang.org/grpc/encoding/gzip"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// smallWindow is the least that grpc.stream_window can be.
const smallWindow = 65535

// readingService reads streams as the field "read" of the call says.
type readingService struct {
	testpb.UnimplementedTestServiceServer
}

func (readingService) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: fmt.Sprint(len(r.GetPayload().GetBody()))}, nil
}

func (readingService) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, len(r.GetPayload().GetBody()))}})
}

func (readingService) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		r, err := s.Recv()
		if err != nil {
			return ignoreEOF(err)
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

func (readingService) StreamingInputCall(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	how := ""
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md["read"]) > 0 {
		how = md["read"][0]
	}
	switch how {
	case "nothing":
		return s.SendAndClose(new(testpb.StreamingInputCallResponse))
	case "nothing until the end":
		<-s.Context().Done()
		return s.Context().Err()
	}
	sum := 0
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		} else if err != nil {
			return err
		}
		sum += len(r.GetPayload().GetBody())
		if how == "slowly" {
			time.Sleep(time.Millisecond)
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// sendStream sends so many messages of a size, and returns what comes of it.
func sendStream(ctx context.Context, c testpb.TestServiceClient, how string, messages, size int, options ...grpc.CallOption) string {
	s, err := c.StreamingInputCall(metadata.AppendToOutgoingContext(ctx, "read", how), options...)
	if err != nil {
		return fmt.Sprint(0, status.Code(err)) // As below, where the call ends before it has a connection.
	}
	r := &testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}
	for range messages {
		if s.Send(r) != nil {
			break // The status says why.
		}
	}
	resp, err := s.CloseAndRecv()
	return fmt.Sprint(resp.GetAggregatedPayloadSize(), status.Code(err))
}

// sharedCalls make calls and return what their clients get.
var sharedCalls = map[string]func(context.Context, *grpc.ClientConn) string{
	"unary of 3.5 MB": func(ctx context.Context, cc *grpc.ClientConn) string {
		resp, err := testpb.NewTestServiceClient(cc).UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 3_500_000)}})
		return fmt.Sprint(resp.GetUsername(), err)
	},
	"server stream for 3.5 MB": func(ctx context.Context, cc *grpc.ClientConn) string {
		s, err := testpb.NewTestServiceClient(cc).StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 3_500_000)}})
		if err != nil {
			return err.Error()
		}
		resp, err := s.Recv()
		if err == nil {
			_, err = s.Recv()
		}
		return fmt.Sprint(len(resp.GetPayload().GetBody()), err)
	},
	"unary that is too long": func(ctx context.Context, cc *grpc.ClientConn) string {
		_, err := testpb.NewTestServiceClient(cc).UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 18<<20)}})
		return fmt.Sprint(err)
	},
	"unary of 15 MB": func(ctx context.Context, cc *grpc.ClientConn) string {
		resp, err := testpb.NewTestServiceClient(cc).UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 15<<20)}})
		return fmt.Sprint(resp.GetUsername(), err)
	},
	"two messages for a unary method": func(ctx context.Context, cc *grpc.ClientConn) string {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, testpb.TestService_UnaryCall_FullMethodName)
		if err != nil {
			return err.Error()
		}
		for range 2 {
			if s.SendMsg(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 2<<20)}}) != nil {
				break
			}
		}
		return fmt.Sprint(s.CloseSend(), s.RecvMsg(new(testpb.SimpleResponse)))
	},
	"ping-pong": func(ctx context.Context, cc *grpc.ClientConn) string {
		s, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx)
		if err != nil {
			return err.Error()
		}
		sum := 0
		for i := range 100 {
			if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 10*i*i)}}); err != nil {
				return err.Error()
			}
			resp, err := s.Recv()
			if err != nil {
				return err.Error()
			}
			sum += len(resp.GetPayload().GetBody())
		}
		err = s.CloseSend()
		_, end := s.Recv()
		return fmt.Sprint(sum, err, end)
	},
	"slow reader of 10 MB": func(ctx context.Context, cc *grpc.ClientConn) string {
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "slowly", 10, 1<<20)
	},
	"short messages": func(ctx context.Context, cc *grpc.ClientConn) string {
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "", 5_000, 10)
	},
	"short messages, slowly": func(ctx context.Context, cc *grpc.ClientConn) string {
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "slowly", 200, 10)
	},
	"compressed": func(ctx context.Context, cc *grpc.ClientConn) string {
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "slowly", 5, 1<<20, grpc.UseCompressor(gzip.Name))
	},
	"stream with a message that is too long": func(ctx context.Context, cc *grpc.ClientConn) string {
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "slowly", 2, 17<<20)
	},
	"no message": func(ctx context.Context, cc *grpc.ClientConn) string {
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "", 0, 0)
	},
	"a handler that reads nothing": func(ctx context.Context, cc *grpc.ClientConn) string {
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "nothing", 20, 1<<20)
	},
	"a deadline": func(ctx context.Context, cc *grpc.ClientConn) string {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "nothing until the end", 20, 1<<20)
	},
	"a client that leaves": func(ctx context.Context, cc *grpc.ClientConn) string {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(100*time.Millisecond, cancel)
		return sendStream(ctx, testpb.NewTestServiceClient(cc), "nothing until the end", 20, 1<<20)
	},
	"a method that is not known": func(ctx context.Context, cc *grpc.ClientConn) string {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/grpc.testing.TestService/Nowhere")
		if err != nil {
			return err.Error()
		}
		for range 20 {
			if s.SendMsg(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 1<<20)}}) != nil {
				break
			}
		}
		return fmt.Sprint(s.RecvMsg(new(testpb.SimpleResponse)))
	},
}

// reader16 is how long a message may be in these tests.
const reader16 = 16 << 20

// peeker is an interceptor that reads the first messages of a client's stream before it
// calls on, and gives them to the handler.
func peeker(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	if info.FullMethod != testpb.TestService_StreamingInputCall_FullMethodName {
		return h(srv, ss)
	}
	if md, _ := metadata.FromIncomingContext(ss.Context()); len(md["read"]) > 0 && strings.HasPrefix(md["read"][0], "nothing") {
		return h(srv, ss)
	}
	p := &peeked{ServerStream: ss}
	for range 3 {
		r := new(testpb.StreamingInputCallRequest)
		if err := ss.RecvMsg(r); err != nil {
			p.err = err
			break
		}
		p.first = append(p.first, r)
	}
	return h(srv, p)
}

// peeked is a stream of which messages were read before.
type peeked struct {
	grpc.ServerStream
	first []*testpb.StreamingInputCallRequest
	err   error
}

func (p *peeked) RecvMsg(m any) error {
	switch {
	case len(p.first) > 0:
		m.(*testpb.StreamingInputCallRequest).Payload = p.first[0].GetPayload()
		p.first = p.first[1:]
		return nil
	case p.err != nil:
		return p.err
	}
	return p.ServerStream.RecvMsg(m)
}

// plainServeHTTP serves calls by grpc-go's ServeHTTP in a plain http.Server, and returns the
// address.
func plainServeHTTP(t *testing.T, service testpb.TestServiceServer) string {
	t.Helper()
	calls := grpc.NewServer(grpc.MaxRecvMsgSize(reader16))
	testpb.RegisterTestServiceServer(calls, service)
	srv := &http.Server{Handler: calls, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
		calls.Stop()
	})
	return l.Addr().String()
}

// sharedReader serves readingService on the shared transport.
func sharedReader(t *testing.T, window int32, options ...grpc.ServerOption) *server {
	t.Helper()
	return start(t, false, mux.WithHandler(nil), mux.Configure(func(c *mux.Config) {
		c.GRPC.Transport, c.GRPC.MaxRecvBytes, c.GRPC.StreamWindow = protocols.TransportShared, reader16, window
	}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, readingService{}) }, options...))
}

// TestSharedBodies: the clients of calls whose bodies wait for the handler get what those of
// grpc-go's plain ServeHTTP get, with messages longer than the window, and behind an
// interceptor that reads messages before mux's.
func TestSharedBodies(t *testing.T) {
	t.Parallel()
	addrs := map[string]string{
		"window of 1 MiB":        sharedReader(t, 0).addr,
		"small window":           sharedReader(t, smallWindow).addr,
		"interceptor that reads": sharedReader(t, smallWindow, grpc.StreamInterceptor(peeker)).addr,
		"chained interceptor":    sharedReader(t, smallWindow, grpc.ChainStreamInterceptor(peeker)).addr,
	}
	plain := plainServeHTTP(t, readingService{})
	for name, call := range sharedCalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			views := func(addr string) string {
				cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				return call(ctx, cc)
			}
			want := views(plain)
			t.Log(want)
			for form, addr := range addrs {
				if diff := cmp.Diff(want, views(addr)); diff != "" {
					t.Errorf("%s (-plain +muxed):\n%s", form, diff)
				}
			}
		})
	}
}

// counted counts what is read of it.
type counted struct {
	io.Reader

	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// TestSharedBodyIsBounded: the client of a call whose handler reads nothing can send no more
// than the windows, and what the HTTP client has read of the body before. Other calls on the
// connection go on. The call ends with its client, and with a drain.
func TestSharedBodyIsBounded(t *testing.T) {
	t.Parallel()
	const (
		all  = 64 << 20
		most = 1 << 20
	)
	for name, tt := range map[string]struct {
		options []grpc.ServerOption
		drain   bool
	}{
		"usual":                  {nil, false},
		"interceptor that reads": {[]grpc.ServerOption{grpc.StreamInterceptor(peeker)}, false},
		"drain":                  {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, mux.WithHandler(nil), mux.Configure(func(c *mux.Config) {
				c.Drain.Timeout = 200 * time.Millisecond
				c.GRPC.Transport, c.GRPC.StreamWindow, c.HTTP2.StreamWindow = protocols.TransportShared, smallWindow, smallWindow
			}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, readingService{}) }, tt.options...))
			client := s.client(t, 2)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body := &counted{Reader: io.LimitReader(shortMessages{}, all)}
			r := callRequest(ctx, t, s.addr, testpb.TestService_StreamingInputCall_FullMethodName, body)
			r.Header.Set("Read", "nothing until the end")
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if resp, err := client.Do(r); err == nil {
					_ = resp.Body.Close()
				}
			}()
			eventually(t, "the windows are full", func() bool { return body.n.Load() > smallWindow })
			for range 200 { // The call before has all the time of these.
				resp, err := client.Do(callRequest(ctx, t, s.addr, testpb.TestService_UnaryCall_FullMethodName, strings.NewReader("\x00\x00\x00\x00\x00")))
				if err != nil {
					t.Fatal(err)
				}
				if _, err = io.Copy(io.Discard, resp.Body); err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
					t.Fatal(resp, err)
				}
				_ = resp.Body.Close()
			}
			if n := body.n.Load(); n > most {
				t.Errorf("the client could send %d bytes, want at most %d", n, most)
			}
			if tt.drain {
				report, err := s.Drain(t.Context())
				if !errors.Is(err, lifecycle.ErrForced) || len(report.Forced) != 1 {
					t.Errorf("drain: %v, %v", report.Forced, err)
				}
			} else {
				cancel()
			}
			<-ended
			eventually(t, "the call ends", func() bool { return s.Stats().Codes["grpc"][int(codes.Canceled)] == 1 })
		})
	}
}

// callRequest returns the request of a call to a method.
func callRequest(ctx context.Context, t *testing.T, addr, method string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+method, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	return r
}

// shortMessages is a body without end of messages that are 59 bytes long.
type shortMessages struct{}

func (shortMessages) Read(p []byte) (int, error) {
	const message = 64
	n := 0
	for ; n+message <= len(p); n += message {
		clear(p[n : n+message])
		p[n+4] = message - 5
	}
	if n == 0 {
		return 0, io.ErrShortBuffer
	}
	return n, nil
}

// lateService reads streams when it is told to.
type lateService struct {
	readingService
	read chan struct{}
}

func (s lateService) StreamingInputCall(ss grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	<-s.read
	return s.readingService.StreamingInputCall(ss)
}

// TestSharedCallsHoldBackNoOthers: calls whose handlers do not read yet hold back their own
// clients, and no other call on the connection, however many they are. With the windows of
// the configuration they would fill that of the connection many times.
func TestSharedCallsHoldBackNoOthers(t *testing.T) {
	const (
		calls    = 20
		messages = 100
		size     = 10_000
	)
	for name, overTLS := range map[string]bool{"plaintext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			service := lateService{read: make(chan struct{})}
			s := start(t, overTLS, mux.WithHandler(nil), mux.Configure(func(c *mux.Config) {
				c.GRPC.Transport, c.GRPC.StreamWindow = protocols.TransportShared, smallWindow
				c.HTTP2.StreamWindow, c.HTTP2.ConnectionWindow = smallWindow, 4*smallWindow
			}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
			client := testpb.NewTestServiceClient(s.grpcClient(t))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var sent atomic.Int64 // messages
			got := make(chan string, calls)
			for range calls {
				go func() {
					stream, err := client.StreamingInputCall(ctx)
					for range messages {
						if err == nil {
							err = stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}})
							sent.Add(1)
						}
					}
					if err != nil {
						got <- err.Error()
						return
					}
					resp, err := stream.CloseAndRecv()
					got <- fmt.Sprint(resp.GetAggregatedPayloadSize(), err)
				}()
			}
			// Each client fills the window and what may be read before that.
			eventually(t, "the clients are held back", func() bool { return sent.Load()*size > calls*2*smallWindow })
			for range 20 {
				if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}); err != nil {
					t.Fatal("a call beside them: ", err)
				}
			}
			if n := sent.Load(); n == calls*messages {
				t.Error("the clients were not held back")
			}
			close(service.read)
			for range calls {
				if have, want := <-got, fmt.Sprint(messages*size, nil); have != want {
					t.Errorf("a call that was held back: %s, want %s", have, want)
				}
			}
		})
	}
}

// TestSharedCallLeavesOverflow: a handler returns while the rest of its call is read ahead.
// Under the race detector, only one goroutine reads net/http's body.
func TestSharedCallLeavesOverflow(t *testing.T) {
	const size, messages = 10_000, 30
	service := lateService{read: make(chan struct{})}
	s := start(t, false, mux.WithHandler(nil), mux.Configure(func(c *mux.Config) {
		c.GRPC.Transport, c.GRPC.StreamWindow = protocols.TransportShared, smallWindow
	}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
	stream, err := testpb.NewTestServiceClient(s.grpcClient(t)).StreamingInputCall(metadata.AppendToOutgoingContext(t.Context(), "read", "nothing"))
	if err != nil {
		t.Fatal(err)
	}
	for range messages {
		if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all has come", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].BytesReceived > messages*size
	})
	close(service.read)
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Error(err)
	}
}
