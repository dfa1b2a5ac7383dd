package mux_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestOrders: whatever the order in which protocols come, each connection is served as what it is
// and booked once.
func TestOrders(t *testing.T) {
	s := start(t, false)
	ask1 := func(t *testing.T, parts ...string) {
		t.Helper()
		conn := s.dial(t)
		for i, part := range parts {
			if i > 0 {
				time.Sleep(5 * time.Millisecond) // It is to be a packet of its own; if it is not, that is no harm.
			}
			if _, err := io.WriteString(conn, part); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		_ = conn.Close()
		if got := resp.Header.Get("X-Protocol"); got != "http1" {
			t.Errorf("served as %q", got)
		}
	}
	kinds := map[byte]struct {
		tag string
		ask func(t *testing.T)
	}{
		'1': {"http1", func(t *testing.T) { t.Helper(); ask1(t, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n") }},
		// Its first packet does not decide.
		's': {"http1", func(t *testing.T) { t.Helper(); ask1(t, "G", "ET /echo HTTP/1.1\r\nHost: x\r\n\r\n") }},
		'2': {"http2", func(t *testing.T) {
			t.Helper()
			client := s.client(t, 2)
			resp, err := client.Get("http://" + s.addr + "/echo")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			client.CloseIdleConnections()
			if got := resp.Header.Get("X-Protocol"); got != "http2" {
				t.Errorf("served as %q", got)
			}
		}},
		'g': {"grpc", func(t *testing.T) {
			t.Helper()
			cc := s.grpcClient(t)
			resp, err := grpc_testing.NewTestServiceClient(cc).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_ = cc.Close()
			if got := resp.GetUsername(); got != "grpc" {
				t.Errorf("served as %q", got)
			}
		}},
	}
	want := map[string]uint64{}
	for _, order := range []string{"1g1g1g", "gggggg", "111111", "s1s2sgs", "222222", "1", "gg2s1g2s1"} {
		for i := range order {
			kind := kinds[order[i]]
			kind.ask(t)
			want[kind.tag]++
		}
	}
	eventually(t, "all connections to be gone", func() bool { return s.Stats().Health["total"].Active == 0 })
	stats := s.Stats()
	for tag, n := range want {
		if got := stats.Pools[tag].Accepted; got != n {
			t.Errorf("%s: %d connections, want %d", tag, got, n)
		}
	}
	if len(stats.Rejected) != 0 {
		t.Errorf("rejected %v", stats.Rejected)
	}
}

// TestUnrecognised: connections that never show a protocol are counted, and do not hold up the end.
func TestUnrecognised(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Sniff.Timeout = 50 * time.Millisecond }))
	silent, garbage, gone := s.dial(t), s.dial(t), s.dial(t)
	_ = gone.Close()
	if _, err := garbage.Write([]byte("\x00\x01\x02\x03 no protocol\r\n")); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []io.Reader{silent, garbage} {
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("read %d bytes, %v; want the end", n, err)
		}
	}
	eventually(t, "all connections to be gone", func() bool { return s.Stats().Pools["sniffing"].Active == 0 })
	stats := s.Stats()
	if n := stats.Rejected["sniffing"]["no_match"]; n == 0 {
		t.Errorf("rejected %v, want one that matches nothing", stats.Rejected)
	}
	if got := stats.Pools["http1"].Accepted; got != 0 {
		t.Errorf("%d connections count as HTTP/1.1", got)
	}
	late := s.dial(t) // Close comes while it is being looked at.
	eventually(t, "the connection to be accepted", func() bool { return s.Stats().Pools["sniffing"].Active == 1 })
	_ = late
}
