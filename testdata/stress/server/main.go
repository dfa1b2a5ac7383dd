// Server embeds mux as a program would, and differs from muxserve in two things: it
// shows how much of its heap is live, and it has no limit on connections. It takes
// muxserve's place where memory or file descriptors are what matters.
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

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	s := mux.New(mux.Configure(func(c *mux.Config) {
		c.Listeners[0].Address = "127.0.0.1:0"
		c.Drain.Delay, c.Drain.Spread = 0, 0
		c.Limits.MaxConnections = 0 // By default a server refuses before it runs out of file descriptors.
	}))
	if err := s.Listen(); err != nil {
		return err
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	pages := http.NewServeMux()
	pages.HandleFunc("/figures", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(figures{Live: liveHeap(), Sniffing: s.Stats().Pools[string(pool.Sniffing)].Active})
	})
	go http.Serve(admin, pages) //nolint:errcheck,gosec // It ends with the process, and it has one client.

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		_ = s.Close()
	}()
	fmt.Printf("muxserve: HTTP/1.1, HTTP/2, gRPC and WebSocket on http://%s\n", s.Addrs()[0])
	fmt.Printf("muxserve: admin pages on http://%s\n", admin.Addr())
	if err := s.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
		return err
	}
	return nil
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
