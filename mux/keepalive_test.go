package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// nativeCall is the head of a call on a connection that grpc-go serves.
var nativeCall = []string{
	":method", "POST", ":scheme", "http", ":authority", "x", ":path", testpb.TestService_FullDuplexCall_FullMethodName,
	"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0",
}

// burstService sends a message of size bytes, and ends the call when the client has read it.
type burstService struct {
	testpb.UnimplementedTestServiceServer

	size int
	read <-chan struct{}
}

func (s burstService) FullDuplexCall(ss grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	if err := ss.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, s.size)}}); err != nil {
		return err
	}
	select {
	case <-s.read:
		return nil
	case <-ss.Context().Done():
		return ss.Context().Err()
	}
}

func (s burstService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write(make([]byte, s.size))
	_ = http.NewResponseController(w).Flush()
	select {
	case <-s.read:
	case <-r.Context().Done():
	}
}

// TestPingBehindAnswers: a client that reads all the time, and has windows so large that it
// sends nothing, is served to the end. What a proxy holds for it stands before the PING for
// longer than ping_timeout, and the client enlarges the connection's window meanwhile.
func TestPingBehindAnswers(t *testing.T) {
	t.Parallel()
	const size = 4 << 20 // 8 s
	short := mux.Configure(func(c *mux.Config) {
		c.HTTP2.PingInterval, c.HTTP2.PingTimeout = 200*time.Millisecond, 5*time.Second
		c.GRPC.PingInterval, c.GRPC.PingTimeout = time.Second, 5*time.Second
	})
	for p, ask := range map[protocols.Protocol]func(c *h2Client){
		protocols.HTTP2: func(c *h2Client) { c.get(1, "/") },
		protocols.GRPC: func(c *h2Client) {
			c.ready()
			c.request(1, false, nativeCall...)
		},
	} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			read := make(chan struct{})
			service := burstService{size: size, read: read}
			s := start(t, false, short, mux.WithHandler(service), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
			relay := &server{Server: s.Server, addr: holdingRelay(t, s.addr, 0).Addr().String()}
			conn := relay.dial(t)
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2 * size})
			c.must(c.WriteWindowUpdate(0, 2*size))
			ask(c)
			got := 0
			for ended := false; !ended; {
				n, end, err := c.part()
				if err != nil {
					t.Fatalf("after %d bytes: %v; closed %v", got, err, s.Stats().Closed)
				}
				if n > 0 && got == 0 {
					c.must(c.WriteWindowUpdate(0, 2*size))
				}
				if ended = end; got < size && got+n >= size {
					close(read)
				}
				got += n
			}
			if s.active(string(p)) != 1 {
				t.Errorf("closed %v", s.Stats().Closed)
			}
		})
	}
}

// part reads a frame, and answers a PING. It returns how much DATA the frame has, and whether
// it ends its stream. The windows stay as they are.
func (c *h2Client) part() (n int, ended bool, err error) {
	f, err := c.ReadFrame()
	switch f := f.(type) {
	case *http2.PingFrame:
		if !f.IsAck() {
			err = c.WritePing(true, f.Data)
		}
	case *http2.MetaHeadersFrame:
		ended = f.StreamEnded()
	case *http2.DataFrame:
		n, ended = len(f.Data()), f.StreamEnded()
	}
	return n, ended, err
}

// TestMuteClient: a client that does not answer PINGs is closed, and the timeout is told.
func TestMuteClient(t *testing.T) {
	t.Parallel()
	const interval, timeout = time.Second, 2 * time.Second
	short := mux.Configure(func(c *mux.Config) {
		c.HTTP2.PingInterval, c.HTTP2.PingTimeout = interval, timeout
		c.GRPC.PingInterval, c.GRPC.PingTimeout = interval, timeout
	})
	plain := func(t *testing.T, s *server) *h2Client {
		t.Helper()
		conn := s.dial(t)
		return newH2Client(t, conn, conn)
	}
	native := func(t *testing.T, s *server) {
		t.Helper()
		c := plain(t, s)
		c.ready()
		c.request(1, false, nativeCall...)
	}
	const size = 2 << 20 // A client that may not have read that has 2 min for it.
	big := burstService{size: size}
	for name, test := range map[string]struct {
		protocol protocols.Protocol
		open     func(*testing.T, *server)
		options  []mux.Option
		byServer bool // grpc-go ends it.
	}{
		"HTTP/2": {protocols.HTTP2, func(t *testing.T, s *server) { t.Helper(); plain(t, s).get(1, "/echo") }, nil, false},
		"gRPC":   {protocols.GRPC, native, nil, false},
		"upgraded": {protocols.HTTP2, func(t *testing.T, s *server) {
			t.Helper()
			conn := s.dial(t)
			c, _ := upgradeConn(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
			_ = c.rest(1)
		}, []mux.Option{mux.Configure(upgradesOn)}, false},
		// The PING waits behind what the handler writes, which has lifted the bound of that.
		"full": {protocols.HTTP2, func(t *testing.T, s *server) {
			t.Helper()
			c := plain(t, s)
			c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
			c.must(c.WriteWindowUpdate(0, 1<<30))
			c.get(1, "/")
		}, []mux.Option{mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
			for err := error(nil); err == nil; {
				_, err = w.Write(make([]byte, 64<<10))
			}
		}))}, false},
		// The server asks the client what it has read, before its keepalive PING does.
		"has read much": {protocols.HTTP2, func(t *testing.T, s *server) {
			t.Helper()
			c := plain(t, s)
			c.get(1, "/")
			c.readAsked(1, size)
		}, []mux.Option{mux.WithHandler(big)}, false},
		"has read much of a call": {protocols.GRPC, func(t *testing.T, s *server) {
			t.Helper()
			c := plain(t, s)
			c.ready()
			c.request(1, false, nativeCall...)
			c.readAsked(1, size)
		}, []mux.Option{mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, big) })}, false},
		// The option wins over the configuration.
		"option": {protocols.GRPC, native, []mux.Option{
			mux.Configure(func(c *mux.Config) { c.GRPC.PingInterval, c.GRPC.PingTimeout = 0, time.Millisecond }),
			mux.WithGRPC(func(mux.GRPCRegistrar) {}, grpc.KeepaliveParams(keepalive.ServerParameters{Time: interval, Timeout: timeout})),
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, append([]mux.Option{short}, test.options...)...)
			events := observe(t, s.Server)
			began := time.Now()
			test.open(t, s)
			eventually(t, "open", func() bool { return s.active(string(test.protocol)) == 1 })
			eventually(t, "closed", func() bool { return s.active(string(test.protocol)) == 0 })
			if at := time.Since(began); at < interval+timeout {
				t.Errorf("closed after %v", at)
			}
			if test.byServer {
				return // grpc-go counts from when it queues its PING, which a busy machine writes later.
			}
			eventually(t, "the timeout is told", func() bool { return events.count(mux.EventTimeout, test.protocol, "ping_timeout") == 1 })
		})
	}
}

// TestPingBehindHandlers: a gRPC client is not cut for answers that grpc-go does not read,
// because as many handlers run as may. They run on when their calls are cancelled.
func TestPingBehindHandlers(t *testing.T) {
	t.Parallel()
	const interval, timeout = 300 * time.Millisecond, 300 * time.Millisecond
	handlers := make(chan struct{})
	defer close(handlers)
	s := start(t, false, mux.WithGRPC(func(r mux.GRPCRegistrar) {
		testpb.RegisterTestServiceServer(r, deafCalls{end: handlers})
	}), mux.Configure(func(c *mux.Config) {
		c.GRPC.MaxStreams, c.GRPC.PingInterval, c.GRPC.PingTimeout = 2, interval, timeout
	}))
	client := testpb.NewTestServiceClient(s.grpcClient(t))
	quiet, err := client.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := quiet.Recv()
		ended <- err
	}()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), interval/3)
		_, _ = client.EmptyCall(ctx, new(testpb.Empty))
		cancel()
	}
	select {
	case err := <-ended:
		t.Errorf("the quiet stream ends: %v", err)
	case <-time.After(4 * (interval + timeout)):
	}
}

// TestResetBehindHandlers: such a client is gone when it has reset the connection, though
// something of it lies unread.
func TestResetBehindHandlers(t *testing.T) {
	t.Parallel()
	handlers := make(chan struct{})
	defer close(handlers)
	s := start(t, false, mux.WithGRPC(func(r mux.GRPCRegistrar) {
		testpb.RegisterTestServiceServer(r, deafCalls{end: handlers})
	}), mux.Configure(func(c *mux.Config) {
		c.GRPC.MaxStreams, c.GRPC.PingInterval, c.GRPC.PingTimeout = 1, time.Second, 300*time.Millisecond
	}))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.ready()
	for stream := uint32(1); stream <= 3; stream += 2 { // grpc-go waits with the second.
		c.request(stream, false, nativeCall...)
		c.must(c.WriteRSTStream(stream, http2.ErrCodeCancel))
	}
	for f := http2.Frame(nil); f == nil || f.Header().Type != http2.FramePing; { // It has no answer.
		var err error
		f, err = c.ReadFrame()
		c.must(err)
	}
	c.must(c.WritePing(false, [8]byte{}))
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	eventually(t, "closed", func() bool { return s.active("grpc") == 0 })
}

// deafCalls has handlers that heed nothing but the end.
type deafCalls struct {
	testpb.UnimplementedTestServiceServer

	end <-chan struct{}
}

func (c deafCalls) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	<-c.end
	return new(testpb.Empty), nil
}

func (c deafCalls) FullDuplexCall(grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	<-c.end
	return nil
}

// readAsked reads size bytes of a stream, and answers the PING behind them that asks whether
// they were read. It answers no other PING.
func (c *h2Client) readAsked(stream uint32, size int) {
	c.t.Helper()
	for got := 0; ; {
		f, err := c.ReadFrame()
		c.must(err)
		switch f := f.(type) {
		case *http2.DataFrame:
			n := len(f.Data())
			got += n
			c.must(c.WriteWindowUpdate(0, uint32(n)))
			c.must(c.WriteWindowUpdate(stream, uint32(n)))
		case *http2.PingFrame:
			if got >= size && bytes.HasPrefix(f.Data[:], []byte("read")) {
				c.must(c.WritePing(true, f.Data))
				return
			}
		}
	}
}

// TestSlowTailOfWiderWindow: a client that has enlarged the connection's window while an
// answer was on its way, and gives back what it reads, has its answer in a drain.
func TestSlowTailOfWiderWindow(t *testing.T) {
	t.Parallel()
	const (
		size = 4 << 20   // 8 s, and a client that does not move has 5 s
		step = 256 << 10 // what it gives back at a time
	)
	begun, told := make(chan struct{}), make(chan struct{})
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-told
		_, _ = w.Write(make([]byte, size))
	})), mux.Configure(func(c *mux.Config) { c.Drain.Spread, c.Drain.Timeout = 0, time.Minute }))
	relay := &server{Server: s.Server, addr: holdingRelay(t, s.addr, 0).Addr().String()}
	conn := relay.dial(t)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2 * size})
	c.must(c.WriteWindowUpdate(0, size))
	c.get(1, "/")
	within(t, "the request", begun)
	_ = s.drain(context.Background())
	time.AfterFunc(300*time.Millisecond, func() { close(told) }) // The client answers the PING.
	for got, back := 0, 0; got < size; {
		n, _, err := c.part()
		if err != nil {
			t.Fatalf("after %d bytes: %v; closed %v", got, err, s.Stats().Closed)
		}
		if n > 0 && got == 0 {
			c.must(c.WriteWindowUpdate(0, 2*size))
		}
		if got += n; got-back >= step {
			c.must(c.WriteWindowUpdate(0, uint32(got-back)))
			back = got
		}
	}
}
