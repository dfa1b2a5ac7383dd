package mux_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"

	"github.com/muxserve/muxserve/mux"
)

// A handler asks which connection it is on, as a gRPC call and a WebSocket may.
func ExampleConnOf() {
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, ok := mux.ConnOf(r.Context())
			fmt.Fprintln(w, ok, conn.Protocol, conn.TLS != nil, conn.RemoteAddr.String() == r.RemoteAddr)
			fmt.Fprint(w, conn.ID == conn.Info().ID, conn.Info().Requests)
			if conn.Proxy != nil { // What a PROXY header said besides the address.
				fmt.Fprint(w, conn.Proxy.VPCEndpointID)
			}
		})),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	printGET("http://" + background(s))
	// Output:
	// 200 true http1 false true
	// true 1
}

// Events say what happens to connections. Observers must be quick.
func ExampleServer_Observe() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	done := make(chan struct{})
	cancel := s.Observe(func(e mux.Event) {
		switch e.Kind {
		case mux.EventAdded:
			fmt.Println("a connection in", e.Protocol)
		case mux.EventRetagged:
			fmt.Println("from", e.From, "to", e.Protocol)
		case mux.EventRemoved:
			fmt.Println("closed:", e.Reason, slices.Contains(mux.CloseReasons(), e.Reason))
			close(done)
		case mux.EventTimeout, mux.EventLimitReached:
			fmt.Println(e.Protocol, e.Reason)
		case mux.EventError:
			fmt.Println(e.Err)
		case mux.EventHealthChanged:
			fmt.Println(e.Protocol, "was", e.Old, "and is", e.New)
		}
	})
	defer cancel()
	addr := background(s)
	printGET("http://" + addr + "/livez") // Closes its connection.
	<-done
	_ = s.Close()
	// Output:
	// a connection in sniffing
	// from sniffing to http1
	// 200 ok
	// closed: peer_closed true
}

// One client is sent away: told, and cut when its patience is over.
func ExampleServer_Disconnect() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
			_, _, err := c.Read(ctx)
			return err
		}))
	defer s.Close()
	c, _, err := websocket.Dial(context.Background(), "ws://"+background(s), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.CloseNow()

	ids := make(map[uint64]bool)
	for _, conn := range s.Connections() {
		ids[conn.ID] = conn.Protocol == "websocket"
	}
	n := s.Disconnect(func(conn mux.ConnInfo) bool { return ids[conn.ID] }, time.Minute)
	_, _, err = c.Read(context.Background())
	fmt.Println(n, websocket.CloseStatus(err) == websocket.StatusGoingAway)
	for len(s.Closed()) == 0 {
		time.Sleep(time.Millisecond) // It is closed in a moment.
	}
	for _, conn := range s.Closed() {
		fmt.Println(conn.Protocol, conn.Outcome == mux.EndCut, conn.Requests)
	}
	// Output:
	// 1 true
	// websocket true 1
}

// The totals since the start, for a program that exports them itself. Package muxprom does
// it for Prometheus.
func ExampleServer_Stats() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	addr := background(s)
	printGET("http://" + addr + "/nothing")
	for s.Stats().Requests["http1"].InFlight > 0 {
		time.Sleep(time.Millisecond) // The server counts the request when it is over.
	}
	stats := s.Stats()
	fmt.Println(stats.Phase, stats.Pools["http1"].Accepted, stats.Codes["http1"][404], stats.Health["total"].Status)
	for _, r := range stats.Refusals {
		if r.Total > 0 {
			fmt.Println(r.Protocol, r.Reason, r.Cure)
		}
	}
	// Output:
	// 404 404 page not found
	// serving 1 1 healthy
}

// Servers tells what serves each protocol, and ServerOf has the *grpc.Server for packages
// that ask for one.
func ExampleServer_ServerOf() {
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithGRPC(func(r mux.GRPCRegistrar) {
			testpb.RegisterTestServiceServer(r, testService{})
			reflection.Register(r)
		}, grpc.MaxRecvMsgSize(1<<20)),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	background(s)
	info, _ := s.ServerOf("grpc")
	fmt.Println(len(info.Native.(*grpc.Server).GetServiceInfo()), "services")
	for _, info := range s.Servers() {
		fmt.Println(info.Protocol, info.Status, info.Connections)
	}
	// Output:
	// 4 services
	// http1 serving 0
	// http2 serving 0
	// grpc serving 0
	// websocket serving 0
}

// Certificates has what is in use, for one that watches their expiry.
func ExampleServer_Certificates() {
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Listeners[0].TLS.Mode = "self-signed"
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	addr := background(s)
	for _, certificate := range s.Certificates()[addr] {
		fmt.Println(certificate.NotAfter.After(time.Now()), certificate.DNSNames)
	}
	// Output: true [localhost]
}

// A WebSocket at one path, for pages of two origins. Text is checked for UTF-8.
func ExampleWebSocket() {
	routes := http.NewServeMux()
	routes.Handle("/chat", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		var message bytes.Buffer
		for {
			typ, err := mux.ReadMessage(ctx, c, &message)
			if err != nil {
				return err // The client has left, or a drain has told it to: then ctx is done.
			}
			if err := c.Write(ctx, typ, message.Bytes()); err != nil {
				return err
			}
		}
	}, mux.Subprotocols("chat.v2", "chat.v1"), mux.OriginPatterns("example.com", "*.example.com"), mux.Compression(mux.CompressionOff)))
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithHandler(routes), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()

	c, _, err := websocket.Dial(context.Background(), "ws://"+background(s)+"/chat", &websocket.DialOptions{Subprotocols: []string{"chat.v1"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.CloseNow()
	_ = c.Write(context.Background(), websocket.MessageText, []byte("hello"))
	_, answer, _ := c.Read(context.Background())
	fmt.Println(c.Subprotocol(), string(answer))
	// Output: chat.v1 hello
}

// The contexts of requests derive from the program's own, and can look at the socket.
func ExampleWithConnContext() {
	type key struct{}
	base := context.WithValue(context.Background(), key{}, "base")
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithBaseContext(func(net.Listener) context.Context { return base }),
		mux.WithConnContext(func(ctx context.Context, c net.Conn) context.Context {
			_, isTCP := c.(*net.TCPConn)
			return context.WithValue(ctx, key{}, fmt.Sprint(ctx.Value(key{}), " and ", isTCP))
		}),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Context().Value(key{}))
		})),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	printGET("http://" + background(s))
	// Output: 200 base and true
}

// One line for each request, call and WebSocket session.
func ExampleWithAccessLog() {
	lines, written := io.Pipe()
	chosen := slog.NewTextHandler(written, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if slices.Contains([]string{"msg", "protocol", "method", "path", "code"}, a.Key) {
			return a
		}
		return slog.Attr{}
	}})
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithAccessLog(slog.New(chosen)),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	printGET("http://" + background(s) + "/livez?token=secret")
	go func() {
		_ = s.Close()
		_ = written.Close()
	}()
	_, _ = io.Copy(os.Stdout, lines)
	// Output:
	// 200 ok
	// msg=request protocol=http1 method=GET path=/livez code=200
}
