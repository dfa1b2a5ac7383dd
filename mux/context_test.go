package mux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

type (
	ofBase struct{}
	ofConn struct{}
)

// contextHooks are hooks whose effect shownBy tells.
type contextHooks struct {
	bases, conns atomic.Int32
	base         context.Context
}

func (h *contextHooks) baseContext(l net.Listener) context.Context {
	h.bases.Add(1)
	return context.WithValue(h.base, ofBase{}, l.Addr().String())
}

func (h *contextHooks) connContext(ctx context.Context, c net.Conn) context.Context {
	h.conns.Add(1)
	return context.WithValue(ctx, ofConn{}, fmt.Sprintf("%T after %v", c, ctx.Value(ofBase{}) != nil))
}

func shownBy(ctx context.Context) string {
	return fmt.Sprintf("%v, %v", ctx.Value(ofBase{}), ctx.Value(ofConn{}))
}

// contextService shows the context of a call.
type contextService struct {
	testpb.UnimplementedTestServiceServer
}

func (contextService) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: shownBy(ctx)}, nil
}

// StreamingInputCall waits for the end of its context.
func (contextService) StreamingInputCall(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	if err := s.SetHeader(nil); err != nil {
		return err
	}
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	<-s.Context().Done()
	return context.Cause(s.Context())
}

// TestContexts: WithBaseContext and WithConnContext do for every protocol what the fields of
// http.Server do.
func TestContexts(t *testing.T) {
	handler := http.NewServeMux()
	handler.HandleFunc("/seen", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, shownBy(r.Context())) })
	handler.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		_, _ = io.WriteString(w, context.Cause(r.Context()).Error())
	})

	direct := new(contextHooks)
	directBase, cancelDirect := context.WithCancelCause(context.Background())
	direct.base = directBase
	srv := &http.Server{Handler: handler, BaseContext: direct.baseContext, ConnContext: direct.connContext, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	l := listen(t)
	go srv.Serve(l)
	defer srv.Close()
	plain := &server{addr: l.Addr().String()}

	routes := http.NewServeMux()
	routes.Handle("/", handler)
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		return c.Write(ctx, websocket.MessageText, []byte(shownBy(ctx)))
	}))
	socketEnds := make(chan error, 2)
	waitSocket := mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		if err := c.Write(ctx, websocket.MessageText, []byte("waits")); err != nil {
			return err
		}
		<-ctx.Done()
		socketEnds <- context.Cause(ctx)
		return nil
	})
	routes.Handle("/ws/wait", waitSocket)
	routes.Handle("/ws/wait/below", http.HandlerFunc(waitSocket.ServeHTTP)) // Not detached.
	muxed := new(contextHooks)
	muxedBase, cancelMuxed := context.WithCancelCause(context.Background())
	muxed.base = muxedBase
	s := serve(t, mux.New(mux.WithLogger(discard), mux.Configure(noDelay), mux.WithHandler(routes),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, contextService{}) }),
		mux.WithBaseContext(muxed.baseContext), mux.WithConnContext(muxed.connContext)))

	text := func(s *server, version int) string {
		resp, err := s.client(t, version).Get("http://" + s.addr + "/seen")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.ProtoMajor != version {
			t.Fatalf("%s: %v", resp.Proto, err)
		}
		return string(b)
	}
	want := func(s *server) string { return s.addr + ", *net.TCPConn after true" }
	for version := 1; version <= 2; version++ {
		for name, s := range map[string]*server{"net/http": plain, "muxed": s} {
			if got := text(s, version); got != want(s) {
				t.Errorf("HTTP/%d, %s: %s, want %s", version, name, got, want(s))
			}
		}
	}
	if muxed.bases.Load() != direct.bases.Load() || muxed.conns.Load() != direct.conns.Load() {
		t.Errorf("called %d and %d times, net/http %d and %d", muxed.bases.Load(), muxed.conns.Load(), direct.bases.Load(), direct.conns.Load())
	}

	ws, _, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, got, err := ws.Read(t.Context()); err != nil || string(got) != want(s) {
		t.Errorf("WebSocket: %s, %v", got, err)
	}

	client := testpb.NewTestServiceClient(s.grpcClient(t))
	resp, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	if err != nil || resp.GetUsername() != want(s) {
		t.Errorf("call: %s, %v", resp.GetUsername(), err)
	}
	patience, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := client.StreamingInputCall(patience)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}

	// All of them end with the base.
	for _, path := range []string{"/ws/wait", "/ws/wait/below"} {
		ws, _, err := websocket.Dial(t.Context(), "ws://"+s.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		if _, _, err := ws.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(map[string]io.ReadCloser)
	for version := 1; version <= 2; version++ {
		for name, s := range map[string]*server{"net/http": plain, "muxed": s} {
			resp, err := s.client(t, version).Get("http://" + s.addr + "/wait")
			if err != nil {
				t.Fatal(err)
			}
			waiting[fmt.Sprintf("HTTP/%d, %s", version, name)] = resp.Body
		}
	}
	cancelDirect(errors.New("over"))
	cancelMuxed(errors.New("over"))
	for range 2 {
		select {
		case err := <-socketEnds:
			if err.Error() != "over" {
				t.Errorf("the context of a WebSocket ended with %v", err)
			}
		case <-patience.Done():
			t.Fatal("the context of a WebSocket has not ended")
		}
	}
	for name, body := range waiting {
		if b, err := io.ReadAll(body); err != nil || string(b) != "over" {
			t.Errorf("%s ended with %q, %v", name, b, err)
		}
		_ = body.Close()
	}
	if _, err := stream.CloseAndRecv(); status.Convert(err).Message() != "over" {
		t.Errorf("the call ended with %v", err)
	}
}

// noteRPC is a stats.Handler that notes the context of each call.
type noteRPC struct{ note func(context.Context, string) }

func (n noteRPC) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	n.note(ctx, "stats")
	return ctx
}

func (noteRPC) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (noteRPC) HandleRPC(context.Context, stats.RPCStats)                         {}
func (noteRPC) HandleConn(context.Context, stats.ConnStats)                       {}

// TestContextsInInterceptors: the embedder's interceptors of every kind, and what it counts
// calls with, see the values of the hooks, on both transports.
func TestContextsInInterceptors(t *testing.T) {
	for _, transport := range []protocols.GRPCTransport{protocols.TransportNative, protocols.TransportShared} {
		t.Run(string(transport), func(t *testing.T) {
			var mu sync.Mutex
			seen := make(map[string]string)
			note := func(ctx context.Context, where string) {
				mu.Lock()
				defer mu.Unlock()
				seen[where] = shownBy(ctx)
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
			hooks := &contextHooks{base: context.Background()}
			s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }),
				mux.WithGRPC(nil, grpc.StatsHandler(noteRPC{note}),
					grpc.UnaryInterceptor(unary("unary")), grpc.ChainUnaryInterceptor(unary("chained unary")),
					grpc.StreamInterceptor(stream("stream")), grpc.ChainStreamInterceptor(stream("chained stream"))),
				mux.WithBaseContext(hooks.baseContext), mux.WithConnContext(hooks.connContext))
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
			if _, err := duplex.Recv(); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			want := make(map[string]string)
			for _, where := range []string{"stats", "unary", "chained unary", "stream", "chained stream"} {
				want[where] = s.addr + ", *net.TCPConn after true"
			}
			mu.Lock()
			defer mu.Unlock()
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestConnContextSockets: the hook sees a Unix socket itself, and the socket under TLS.
func TestConnContextSockets(t *testing.T) {
	kind := func(s *server) string {
		resp, err := s.client(t, 1).Get(s.scheme() + "://" + s.addr + "/seen")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	options := []mux.Option{
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, fmt.Sprint(r.Context().Value(ofConn{})))
		})),
		mux.WithConnContext(func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, ofConn{}, fmt.Sprintf("%T", c))
		}),
	}
	if got := kind(start(t, true, options...)); got != "*net.TCPConn" {
		t.Errorf("TLS: %s", got)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := newServer(t, false, options...)
	serveOn(t, m, l)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://unix/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "*net.UnixConn" {
		t.Errorf("Unix: %s, %v", b, err)
	}
}

// TestHijackedFile: the owner of a hijacked connection gets a copy of the socket, as on plain
// net/http.
func TestHijackedFile(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		socket, ok := conn.(interface{ File() (*os.File, error) })
		if !ok {
			fmt.Fprintf(conn, "%T has no File", conn)
			return
		}
		f, err := socket.File()
		if err != nil {
			fmt.Fprint(conn, err)
			return
		}
		defer f.Close()
		_, _ = io.WriteString(f, "by the file")
	})
	l := listen(t)
	srv := &http.Server{Handler: handler}
	go srv.Serve(l)
	defer srv.Close()
	ask := func(s *server) string {
		conn := s.dial(t)
		send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		b, err := io.ReadAll(conn)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	want := ask(&server{addr: l.Addr().String()})
	if got := ask(start(t, false, mux.WithHandler(handler))); got != want || want != "by the file" {
		t.Errorf("%s, net/http %s", got, want)
	}
	if got := ask(start(t, true, mux.WithHandler(handler))); got == want {
		t.Error("there is a file under TLS")
	}
}

// TestBaseContextMayAsk: the function of WithBaseContext may call the server, at the start and
// at a reload that replaces the listener.
func TestBaseContextMayAsk(t *testing.T) {
	var s *mux.Server
	calls := make(chan int, 10)
	s = mux.New(mux.WithAddress("127.0.0.1:0"), mux.Configure(noDelay), mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithBaseContext(func(net.Listener) context.Context {
			n := 0
			for range s.Listeners() {
				n++
			}
			calls <- n + len(s.Addrs())
			return context.Background()
		}))
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ListenAndServe() }()
	defer func() {
		_ = s.Close()
		<-served
	}()
	if got := within(t, "the start", calls); got != 2 {
		t.Errorf("%d listeners and addresses", got)
	}
	c := s.Config()
	c.HTTP2.MaxStreams++
	if _, err := s.Reload(c, "test"); err != nil {
		t.Fatal(err)
	}
	if got := within(t, "the reload", calls); got != 2 {
		t.Errorf("%d listeners and addresses", got)
	}
}

// TestSlowListen: while a listener is being opened, others are served.
func TestSlowListen(t *testing.T) {
	opening, open := make(chan struct{}), make(chan struct{})
	s := mux.New(mux.WithAddress("slow:1"), mux.Configure(noDelay), mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithListen(func(context.Context, string) (net.Listener, error) {
			close(opening)
			<-open
			return nil, errors.New("not there")
		}))
	listening := make(chan error, 1)
	go func() { listening <- s.ListenAndServe() }()
	within(t, "opening", opening)
	other := serve(t, s).dial(t)
	roundTrip(t, other, bufio.NewReader(other), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	conn, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	close(open)
	if err := within(t, "the error", listening); err == nil {
		t.Error("no error")
	}
}
