package mux_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// told returns a channel that is closed when every client has been told to leave.
func (s *server) told(t *testing.T) <-chan struct{} {
	t.Helper()
	told := make(chan struct{})
	err := s.OnDrain(lifecycle.StepWaitConnections, "told", func(context.Context) error {
		close(told)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return told
}

// TestDrainKeepsBegunRequests: clients that are busy on kept-alive connections,
// and send their bodies behind their heads, lose no request whose handler has begun.
func TestDrainKeepsBegunRequests(t *testing.T) {
	const (
		rounds  = 8
		clients = 50
		busy    = 300 // requests before the drain begins
		pace    = time.Millisecond
	)
	for range rounds {
		var begun, broken atomic.Int64
		s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard),
			mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				begun.Add(1)
				if _, err := io.ReadAll(r.Body); err != nil || r.Context().Err() != nil {
					broken.Add(1)
				}
			}))), listen(t))
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() { keepPosting(s.addr, pace) })
		}
		eventually(t, "busy", func() bool { return begun.Load() >= busy })
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("drain: %v", err)
		}
		wg.Wait()
		if n := broken.Load(); n != 0 {
			t.Errorf("%d of %d requests were broken", n, begun.Load())
		}
	}
}

// keepPosting posts small bodies on one connection until that is closed.
func keepPosting(addr string, pace time.Duration) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"); err != nil {
			return
		}
		time.Sleep(pace)
		if _, err := io.WriteString(conn, "abc"); err != nil {
			return
		}
		if resp, err := http.ReadResponse(r, nil); err != nil || resp.Close {
			return
		}
	}
}

// TestDrainServesBegunHead: a request of which a part has come on a kept-alive
// connection is served, while connections without one are closed.
func TestDrainServesBegunHead(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		const first, half, rest = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "GET /echo HTTP/1.1\r\nHo", "st: x\r\n\r\n"
		idle, begun := s.dial(t), s.dial(t)
		idleReader, begunReader := bufio.NewReader(idle), bufio.NewReader(begun)
		for _, resp := range []*http.Response{roundTrip(t, idle, idleReader, first), roundTrip(t, begun, begunReader, first)} {
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "both idle", func() bool {
			conns := s.Connections()
			return len(conns) == 2 && conns[0].State == "idle" && conns[1].State == "idle"
		})
		before := s.Connections()[1].BytesReceived
		send(t, begun, half)
		eventually(t, "half a head was read", func() bool { return s.Connections()[1].BytesReceived >= before+uint64(len(half)) })
		told, done := s.told(t), s.drain(t.Context())
		if _, err := idleReader.ReadByte(); err != io.EOF {
			t.Errorf("the idle connection: %v", err)
		}
		within(t, "clients told", told)
		resp := roundTrip(t, begun, begunReader, rest)
		if resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("the request that had begun: %s, close %v", resp.Status, resp.Close)
		}
		if got := <-done; got.err != nil {
			t.Errorf("drain: %v", got.err)
		}
	})
}

// TestDrainServesOldFirstHead: a connection's first request that began long before
// the drain is served as well; net/http's own Shutdown gives it five seconds.
func TestDrainServesOldFirstHead(t *testing.T) {
	timed(t,
		func() *mux.Server { return mux.New(mux.Configure(noDelay), mux.WithLogger(discard)) },
		(*mux.Server).Serve,
		func(t *testing.T, m *mux.Server, l *pipeListener) {
			conn := l.dial()
			defer conn.Close()
			send(t, conn, "GET /livez HTTP/1.1\r\nHo")
			time.Sleep(7 * time.Second)
			drained := make(chan error, 1)
			go func() { drained <- m.Shutdown(t.Context()) }()
			time.Sleep(time.Second)
			if got := m.Phase(); got != lifecycle.PhaseDraining {
				t.Fatalf("phase %s", got)
			}
			resp := roundTrip(t, conn, bufio.NewReader(conn), "st: x\r\n\r\n")
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %s", resp.Status)
			}
			if err := <-drained; err != nil {
				t.Errorf("drain: %v", err)
			}
		})
}

// TestDrainServesBurst: connections whose first request was sent before the drain
// began are served, wherever in the server the drain meets them.
func TestDrainServesBurst(t *testing.T) {
	const (
		rounds = 30
		burst  = 40
	)
	for name, request := range map[string]string{
		"native gRPC": firstCall(t, "grpc-test/1", 10),
		"HTTP/2":      firstCall(t, "other", 10),
	} {
		t.Run(name, func(t *testing.T) {
			for range rounds {
				s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard)), listen(t))
				if got := s.status(t, "/livez"); got != http.StatusOK {
					t.Fatalf("status %d", got)
				}
				conns := make([]net.Conn, burst)
				for i := range conns {
					conns[i] = s.dial(t)
					send(t, conns[i], request)
				}
				done := s.drain(t.Context())
				for i, conn := range conns {
					if err := answered(conn); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
					_ = conn.Close()
				}
				if got := <-done; got.err != nil {
					t.Errorf("drain: %v", got.err)
				}
				<-s.served
			}
		})
	}
}

// TestDrainCutsStalledHandshake: a peer that stalls in its TLS handshake has the sniff time, and
// to cut it then is no failure of the drain.
func TestDrainCutsStalledHandshake(t *testing.T) {
	s := waiting(t, "\x16\x03\x01", true, func(c *mux.Config) { c.Sniff.Timeout = 100 * time.Millisecond })
	if got := within(t, "the drain", s.drain(t.Context())); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
	want := map[string]map[string]uint64{"sniffing": {"draining": 1}}
	if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
}

// TestDrainWithoutTaker: a custom listener that nobody accepts from holds nothing up, though
// more connections wait for it than it has places.
func TestDrainWithoutTaker(t *testing.T) {
	t.Parallel()
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	s := serve(t, m)
	const (
		connections = 150
		places      = 128
	)
	for range connections {
		send(t, s.dial(t), "SSH-2.0-client\r\n")
	}
	eventually(t, "no place left", func() bool { return s.active("ssh") > places })
	if got := within(t, "the drain", s.drain(t.Context())); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}
