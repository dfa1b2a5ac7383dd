package mux_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/coder/websocket"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// One port for everything, and a drain at SIGTERM.
func Example() {
	routes := http.NewServeMux()
	routes.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello over", r.Proto)
	})
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		return c.Write(ctx, websocket.MessageText, []byte("hello over WebSocket"))
	}))
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Drain.Delay = 0 // There is no balancer that has to notice.
		}),
		mux.WithHandler(routes),
		mux.WithGRPC(func(r mux.GRPCRegistrar) {
			testpb.RegisterTestServiceServer(r, testService{})
			reflection.Register(r)
		}),
	)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	go visit(s)
	fmt.Println(s.ListenAndServe())
	// Output:
	// hello over HTTP/1.1
	// mux: http: Server closed
}

// visit is the Example's client. It waits for the server, makes a request, and sends this
// process a SIGTERM.
func visit(s *mux.Server) {
	for s.Phase() != lifecycle.PhaseServing {
		runtime.Gosched()
	}
	resp, err := http.Get("http://" + s.Addrs()[0].String() + "/hello")
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(os.Stdout, resp.Body)
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
}

// An embedder's own protocol beside the built-in ones: what begins with an SSH
// banner goes to a listener of its own.
func ExampleServer_Match() {
	s := mux.New(mux.Configure(noDelay))
	ssh := s.Match("ssh", func(r io.Reader) bool {
		banner := make([]byte, len("SSH-2.0-"))
		_, err := io.ReadFull(r, banner)
		return err == nil && string(banner) == "SSH-2.0-"
	})
	go func() {
		for {
			conn, err := ssh.Accept()
			if err != nil {
				return // The server has stopped accepting.
			}
			_, _ = io.WriteString(conn, "SSH-2.0-example\r\n")
			_ = conn.Close()
		}
	}()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "SSH-2.0-client\r\n")
	_, _ = io.Copy(os.Stdout, conn)
	_ = s.Close()
	// Output: SSH-2.0-example
}
