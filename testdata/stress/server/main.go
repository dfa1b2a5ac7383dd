// Server embeds mux as a program would, and differs from muxserve in two things: it
// shows how much of its heap is live, and it has no limit on connections. It takes
// muxserve's place where memory or file descriptors are what matters. With the argument
// "base" it is net/http alone instead; with "shared" net/http serves the connections of
// gRPC clients as well, and with "edge" so with the profile of that name.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"

	"google.golang.org/grpc"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	form := ""
	if len(os.Args) > 1 {
		form = os.Args[1]
	}
	if form == "base" {
		return runBase()
	}
	s := mux.New(mux.Configure(func(c *mux.Config) {
		if form == "edge" {
			mux.Edge(c)
		}
		if form == "edge" || form == "shared" {
			c.GRPC.Transport = protocols.TransportShared
		}
		c.Listeners[0].Address = "127.0.0.1:0"
		c.Drain.Delay, c.Drain.Spread = 0, 0
		c.Limits.MaxConnections = 0 // By default a server refuses before it runs out of file descriptors.
	}), mux.WithGRPC(func(r mux.GRPCRegistrar) { demov1.RegisterEchoServer(r, deafEcho{}) }))
	if err := s.Listen(); err != nil {
		return err
	}
	err := show(s.Addrs()[0], func() int64 { return s.Stats().Pools[string(pool.Sniffing)].Active }, s.Close)
	if err != nil {
		return err
	}
	if err = s.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
		return err
	}
	return nil
}

// deafEcho is a service whose handlers read nothing of their clients' streams.
type deafEcho struct {
	demov1.UnimplementedEchoServer
}

// ClientStream implements [demov1.EchoServer].
func (deafEcho) ClientStream(s grpc.ClientStreamingServer[demov1.EchoRequest, demov1.EchoResponse]) error {
	<-s.Context().Done()
	return s.Context().Err()
}

// figures are what the tests ask for.
type figures struct {
	Live     uint64 `json:"live"`     // Bytes of the heap that were in use at the last garbage collection.
	Sniffing int64  `json:"sniffing"` // Connections that are being recognised.
}

// collections is how many garbage collections liveHeap looks at. What is made
// during one counts as live, garbage or not; the least figure has the least of that.
const collections = 3

// liveHeap returns what is in use of the heap, in bytes.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	least := ^uint64(0)
	for range collections {
		runtime.GC()
		metrics.Read(sample)
		least = min(least, sample[0].Value.Uint64())
	}
	return least
}

// runBase serves by net/http alone.
func runBase() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.NotFoundHandler(), IdleTimeout: 2 * time.Minute, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	if err = show(l.Addr(), func() int64 { return 0 }, s.Close); err != nil {
		return err
	}
	if err = s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// show serves the figures, says where everything is, and closes the server at SIGTERM.
func show(addr net.Addr, sniffing func() int64, closeServer func() error) error {
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	pages := http.NewServeMux()
	pages.HandleFunc("/figures", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(figures{Live: liveHeap(), Sniffing: sniffing()})
	})
	go http.Serve(admin, pages) //nolint:errcheck,gosec // It ends with the process, and it has one client.

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		_ = closeServer()
	}()
	fmt.Printf("muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on http://%s\n", addr)
	fmt.Printf("muxserve: admin pages on http://%s\n", admin.Addr())
	return nil
}
