package mux_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// background serves s, whose address is "127.0.0.1:0", until it is closed, and returns the
// address.
func background(s *mux.Server) string {
	serving := make(chan struct{})
	s.OnPhase(func(p mux.Phase) {
		if p == mux.PhaseServing {
			close(serving)
		}
	})
	if err := s.Listen(); err != nil {
		log.Fatal(err)
	}
	go func() { _ = s.ListenAndServe() }()
	<-serving
	return s.Addrs()[0].String()
}

// printGET prints the answer to a request.
func printGET(url string) {
	resp, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, strings.TrimSpace(string(body)))
	http.DefaultClient.CloseIdleConnections()
}

// Listen tells "could not bind" from what happens later, and Addrs has the port that the
// system has chosen.
func ExampleServer_Listen() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	if err := s.Listen(); err != nil {
		log.Fatal(err) // Such as: the address is in use.
	}
	served := make(chan error)
	go func() { served <- s.ListenAndServe() }()
	printGET("http://" + s.Addrs()[0].String() + "/livez")
	_ = s.Close()
	fmt.Println(<-served)
	// Output:
	// 200 ok
	// mux: http: Server closed
}

// A server of the program's own listener, with TLS by the program's own configuration.
func ExampleServer_Serve() {
	certificate := httptest.NewUnstartedServer(nil)
	certificate.EnableHTTP2 = true
	certificate.StartTLS() // It has a certificate, and a client that trusts it.
	certificate.Close()

	s := mux.New(
		mux.WithTLS(&tls.Config{Certificates: certificate.TLS.Certificates, MinVersion: tls.VersionTLS12}),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, tls.VersionName(r.TLS.Version), " ", r.TLS.NegotiatedProtocol)
		})),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()

	client := certificate.Client()
	resp, err := client.Get("https://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseIdleConnections()
	defer resp.Body.Close()
	_, _ = io.Copy(os.Stdout, resp.Body)
	// Output: TLS 1.3 h2
}

// A gRPC client in the same process, such as grpc-gateway's, needs no port and no TLS.
func ExampleServer_Dial() {
	s := mux.New(
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	cc, err := grpc.NewClient("passthrough:mux",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.Dial(ctx) }))
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
	resp, err := testpb.NewTestServiceClient(cc).UnaryCall(context.Background(), &testpb.SimpleRequest{})
	fmt.Println(resp.GetUsername(), err)
	// Output: grpc <nil>
}

// What no protocol matches gets to the fallback.
func ExampleServer_MatchAfter() {
	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	fallback := s.MatchAfter("fallback", mux.Any())
	go func() {
		for {
			conn, err := fallback.Accept()
			if err != nil {
				return // The server has stopped accepting.
			}
			fmt.Fprintln(conn, "what is this?")
			_ = conn.Close()
		}
	}()
	conn, err := net.Dial("tcp", background(s))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "\x00\x01\x02\x03")
	_, _ = io.Copy(os.Stdout, conn)
	// Output: what is this?
}

// Connections for one server name go to another server, behind TLS.
func ExampleSNI() {
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Listeners[0].TLS.Mode = "self-signed"
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	internal := s.Match("internal", mux.SNI("*.internal"))
	go func() {
		_ = http.Serve(internal, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "internal")
		}))
	}()
	addr := background(s)

	for _, name := range []string{"admin.internal", "example.com"} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		_ = conn.Close()
		fmt.Println(name, string(answer[9:12]))
	}
	// Output:
	// admin.internal 200
	// example.com 404
}

// ALPN tells protocols apart that share TLS. The TLS configuration has to offer them.
func ExampleALPN() {
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	certificate.Close()
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithTLS(&tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: []string{"h2", "http/1.1", "echo/1"}}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	echo := s.Match("echo", mux.ALPN("echo/1"))
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	conn, err := tls.Dial("tcp", background(s), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"echo/1"}})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "echo")
	answer := make([]byte, 4)
	_, _ = io.ReadFull(conn, answer)
	fmt.Println(string(answer))
	// Output: echo
}

// TLS for one name is passed through: the connection's owner reads the ClientHello, and
// ends TLS itself or passes the bytes on.
func ExampleClientHelloSNI() {
	backend := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "from the backend, with its own certificate")
	}))
	defer backend.Close()

	s := mux.New(mux.WithAddress("127.0.0.1:0"), mux.WithLogger(slog.New(slog.DiscardHandler)))
	defer s.Close()
	passthrough := s.Match("passthrough", mux.ClientHelloSNI("example.com"))
	go func() {
		for {
			conn, err := passthrough.Accept()
			if err != nil {
				return
			}
			go pass(conn, backend.Listener.Addr().String())
		}
	}()
	addr := background(s)

	client := backend.Client() // It trusts the backend, and calls it example.com.
	client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("tcp", addr)
	}
	resp, err := client.Get("https://example.com")
	if err != nil {
		log.Fatal(err)
	}
	defer client.CloseIdleConnections()
	defer resp.Body.Close()
	_, _ = io.Copy(os.Stdout, resp.Body)
	// Output: from the backend, with its own certificate
}

// pass copies bytes between a connection and a backend, until both sides have ended, or the
// connection is to leave.
func pass(conn net.Conn, backend string) {
	defer conn.Close()
	to, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer to.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{to, conn}, {conn, to}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			if w, ok := way[0].(interface{ CloseWrite() error }); ok {
				_ = w.CloseWrite()
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}

// WebSockets on every path. [mux.WebSocket] mounts them on one.
func ExampleWithWebSocket() {
	s := mux.New(
		mux.WithAddress("127.0.0.1:0"),
		mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
			return c.Write(ctx, websocket.MessageText, []byte("you asked for "+r.URL.Path))
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	defer s.Close()
	c, _, err := websocket.Dial(context.Background(), "ws://"+background(s)+"/any", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.CloseNow()
	_, message, _ := c.Read(context.Background())
	fmt.Println(string(message))
	// Output: you asked for /any
}
