package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// These tests are named after the points of DESIGN §2, "What is wrong with plain cmux".
// Other tests for points 3, 8 and 12 are in package protocols, for point 5 in listeners.
// Points 6 and 13 are in websocket_test.go and conn_test.go.

// Point 1: a silent client does not delay Close, long before the sniff timeout.
func TestDesign01SilentClientDoesNotHangClose(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Sniff.Timeout = time.Hour }))
	conn := s.dial(t)
	eventually(t, "accepted", func() bool { return s.active("sniffing") == 1 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

// Point 2: a silent connection does not reach the fallback. A probe is counted, and
// logged at Debug at most.
func TestDesign02SilentConnectionHasNoServer(t *testing.T) {
	var log syncBuffer
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(recordingLog(&log)),
		quickSniff(100*time.Millisecond))
	fallback := m.MatchAfter("fallback", cmux.Any())
	s := serve(t, m)
	var accepted atomic.Int32
	go serveEach(fallback, func(net.Conn) { accepted.Add(1) })
	const probes = 50
	for i := range probes {
		conn := s.dial(t)
		if i%2 == 0 {
			_ = conn.Close() // As a balancer's health check does.
		}
	}
	eventually(t, "probes counted", func() bool { return s.Stats().Rejected["sniffing"]["silent"] == probes })
	if n := accepted.Load(); n != 0 {
		t.Errorf("the fallback got %d silent connections", n)
	}
	lines := func() int { return strings.Count(log.String(), "\n") }
	eventually(t, "a line in the log", func() bool { return lines() > 0 })
	if lines() != 1 { // The phase change.
		t.Errorf("logged above Debug:\n%s", log.String())
	}
	if _, err := s.dial(t).Write([]byte("\x00\x01\x02\x03 what is this")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fallback gets what speaks", func() bool { return accepted.Load() == 1 })
}

// Point 3: a gRPC client that connects eagerly and calls after the sniff timeout is
// served by the native transport.
func TestDesign03ConnectNowCallLater(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		cc := s.grpcClient(t)
		cc.Connect()
		eventually(t, "ready", func() bool { return cc.GetState() == connectivity.Ready })
		if got := s.active("sniffing"); got != 1 {
			t.Fatalf("%d connections wait undecided, want 1", got)
		}
		// This is longer than the sniff timeout. A closed connection would change the
		// state.
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if cc.WaitForStateChange(ctx, connectivity.Ready) {
			t.Fatalf("the connection became %v", cc.GetState())
		}
		resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		if err != nil || resp.GetUsername() != "grpc" {
			t.Errorf("call: %v, %v", resp, err)
		}
		if st := s.Stats(); st.Pools["grpc"].Accepted != 1 || st.Pools["sniffing"].Accepted != 1 {
			t.Errorf("pools %+v", st.Pools)
		}
	}, mux.Configure(func(c *mux.Config) { c.Sniff.Timeout = 100 * time.Millisecond }))
}

// Point 4: the sniff limit refuses no valid request. A head above the sniff buffer
// reaches the server, which has its own limit.
func TestDesign04LongHeads(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		for _, tt := range []struct {
			name, request string
			status        int
		}{
			{"long request line", "GET /echo?" + strings.Repeat("q", 20<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusOK},
			{"long header", "GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("h", 20<<10) + "\r\n\r\n", http.StatusOK},
			{"too long for the server", "GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("h", 96<<10) + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		} {
			conn := s.dial(t)
			go func() { _, _ = io.WriteString(conn, tt.request) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != tt.status {
				t.Errorf("%s: %v, %v; want %d", tt.name, resp, err, tt.status)
			}
		}
	})
}

// Point 10: closing one listener closes nothing else.
func TestDesign10ListenersAreDetached(t *testing.T) {
	t.Parallel()
	m := mux.New(mux.Configure(noDelay))
	l := m.Match("custom", cmux.PrefixMatcher("custom"))
	s := serve(t, m)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("HTTP after a custom listener was closed: %d", got)
	}
	conn := s.dial(t)
	send(t, conn, "custom")
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection of the closed listener: %v", err)
	}
}

// Point 11: a stopping server serves the connections that the kernel has queued.
func TestDesign11QueuedConnectionsAreServed(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(routes()), mux.WithLogger(discard))
	conns, s, open := queued(t, m, 50, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	done := s.drain(t.Context())
	eventually(t, "draining", func() bool { return s.Phase() == "draining" })
	open()
	for i, conn := range conns {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("connection %d: %v, %v", i, resp, err)
		}
		_ = conn.Close()
	}
	if got := <-done; got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
	if err := <-s.served; !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
}
