package stress

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// stubbornness is how long a handler runs on that was told to stop.
const stubbornness = 20 * time.Millisecond

// victim is a server in this process, whose handlers can be counted.
type victim struct {
	addr     string
	handlers *handlers
}

// newVictim serves until the end of the test.
func newVictim(t *testing.T, shared bool) *victim {
	t.Helper()
	v := &victim{handlers: &handlers{running: make(map[uint64]int)}}
	routes := http.NewServeMux()
	routes.HandleFunc("/stubborn", func(_ http.ResponseWriter, r *http.Request) { v.handlers.run(r.Context()) })
	routes.HandleFunc("/echo", func(http.ResponseWriter, *http.Request) {})
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Drain.Delay, c.Drain.Spread = 0, 0
			if shared {
				c.GRPC.Transport = protocols.TransportShared
			}
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithHandler(routes),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { demov1.RegisterEchoServer(r, stubbornEcho{handlers: v.handlers}) }),
	)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return v
}

// waitIdle waits until no stubborn handler runs.
func (v *victim) waitIdle(t *testing.T) {
	t.Helper()
	eventually(t, "all handlers end", func() bool { return v.handlers.now() == 0 })
}

// callOnce makes a call on a connection of its own and returns how many were answered.
func (v *victim) callOnce(ctx context.Context) (int, error) {
	conn, err := grpc.NewClient(v.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := demov1.NewEchoClient(conn).Unary(ctx, &demov1.EchoRequest{}); err != nil {
		return 0, err
	}
	return 1, nil
}

// stubbornEcho is a service whose streams do not end when they are told to.
type stubbornEcho struct {
	demov1.UnimplementedEchoServer

	handlers *handlers
}

// Unary implements [demov1.EchoServer].
func (stubbornEcho) Unary(context.Context, *demov1.EchoRequest) (*demov1.EchoResponse, error) {
	return &demov1.EchoResponse{}, nil
}

// BidiStream implements [demov1.EchoServer].
func (e stubbornEcho) BidiStream(stream grpc.BidiStreamingServer[demov1.EchoRequest, demov1.EchoResponse]) error {
	e.handlers.run(stream.Context())
	return nil
}

// handlers counts the handlers that run, by connection.
type handlers struct {
	mu      sync.Mutex // guards all below
	running map[uint64]int
	total   int
	highest int // Of one connection.
}

// run is a handler that is told to stop by ctx and takes its time.
func (h *handlers) run(ctx context.Context) {
	var id uint64
	if c, ok := mux.ConnOf(ctx); ok {
		id = c.ID
	}
	h.add(id, 1)
	defer h.add(id, -1)
	<-ctx.Done()
	timer := time.NewTimer(stubbornness)
	<-timer.C
}

func (h *handlers) add(id uint64, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running[id] += n
	h.highest = max(h.highest, h.running[id])
	h.total += max(n, 0)
}

// now returns how many run, on all connections.
func (h *handlers) now() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := 0
	for _, n := range h.running {
		sum += n
	}
	return sum
}

// most returns the highest number that ever ran on one connection.
func (h *handlers) most() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.highest
}

// started returns how many there were.
func (h *handlers) started() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total
}
