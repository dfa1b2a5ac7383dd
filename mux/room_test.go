package mux_test

import (
	"bufio"
	"cmp"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// TestIdleMakesRoom: where a limit is full, the connection that has been idle longest
// leaves for one that comes. A request that crosses its leaving is served.
func TestIdleMakesRoom(t *testing.T) {
	for name, edit := range map[string]func(*mux.Config){
		"HTTP/1.1":   func(c *mux.Config) { c.HTTP1.MaxConnections = 3 },
		"all":        func(c *mux.Config) { c.Limits.MaxConnections = 3 },
		"all, wait":  func(c *mux.Config) { c.Limits.MaxConnections, c.Limits.OnLimit = 3, pool.Wait },
		"both again": func(c *mux.Config) { c.HTTP1.MaxConnections, c.Limits.MaxConnections = 3, 3 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothForms(t, func(t *testing.T, s *server) {
				events := observe(t, s.Server)
				busy := s.busy(t)
				first := s.hold(t)
				second := s.hold(t)
				// The second had its last request before the first.
				r := bufio.NewReader(first)
				eventually(t, "the first was busy later", func() bool {
					if resp := roundTrip(t, first, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
						t.Fatal(resp.Status)
					}
					all := s.Accounts()
					slices.SortFunc(all, func(a, b *pool.Conn) int { return cmp.Compare(a.ID(), b.ID()) })
					return all[1].LastActivity().After(all[2].LastActivity())
				})
				s.hold(t)
				eventually(t, "the second is closed", func() bool { return events.count(mux.EventRemoved, protocols.HTTP1, "made_room") == 1 })
				if n, err := second.Read(make([]byte, 1)); n > 0 || err == nil {
					t.Errorf("the second: %d bytes, %v", n, err)
				}
				if resp := roundTrip(t, first, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK || resp.Close {
					t.Errorf("the first: %s, close %t", resp.Status, resp.Close)
				}
				// Of fresh ones too, one after the other. The busy one stays.
				for range 10 {
					s.hold(t)
				}
				eventually(t, "no more than the limit", func() bool { return s.active("http1") == 3 })
				eventually(t, "eleven have made room", func() bool { return events.count(mux.EventRemoved, protocols.HTTP1, "made_room") == 11 })
				_ = busy.Close()
				eventually(t, "two", func() bool { return s.active("http1") == 2 })
			}, limits(edit), limits(func(c *mux.Config) { c.HTTP2.MaxAgeGrace = 80 * time.Millisecond })) // It sweeps often.
		})
	}
}

// TestIdleHTTP2MakesRoom: clients of HTTP/2 and gRPC are told by GOAWAY, and lose no
// request.
func TestIdleHTTP2MakesRoom(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP2.MaxConnections, c.GRPC.MaxConnections = 1, 1 }))
	conn := s.dial(t)
	first := newH2Client(t, conn, conn)
	first.get(1, "/echo")
	_ = first.header(1)
	eventually(t, "idle", func() bool { return s.Connections()[0].State == "idle" })
	if resp, err := s.client(t, 2).Get("http://" + s.addr + "/echo"); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the second: %v, %v", resp, err)
	}
	first.get(3, "/echo") // It crosses the GOAWAY.
	if got := first.header(3)[":status"]; got != "200" {
		t.Errorf("a request that crosses the GOAWAY: %s", got)
	}
	if got := first.goneAway(); got != http2.ErrCodeNo {
		t.Errorf("GOAWAY %v", got)
	}
	a, b := testpb.NewTestServiceClient(s.grpcClient(t)), testpb.NewTestServiceClient(s.grpcClient(t))
	for range 10 {
		for i, c := range []testpb.TestServiceClient{a, b} {
			if _, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			eventually(t, "idle", func() bool { return s.Stats().Requests["grpc"].InFlight == 0 })
		}
	}
}

// TestUndecidedMakeRoom: undecided connections go first where places run out, by a GOAWAY
// without an error, and never take more than their share.
func TestUndecidedMakeRoom(t *testing.T) {
	undecided := func(t *testing.T, s *server) *h2Client {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		for c.settings == nil {
			c.step()
		}
		c.must(c.WritePing(false, [8]byte{1})) // The answer shows that the server waits.
		for {
			f, err := c.ReadFrame()
			c.must(err)
			if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
				return c
			}
		}
	}
	for name, test := range map[string]struct{ total, busy, undecided, gone int }{
		"share": {16, 0, 7, 4},
		"full":  {8, 7, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bothForms(t, func(t *testing.T, s *server) {
				var clients []*h2Client
				for range test.busy {
					s.busy(t)
				}
				for range test.undecided {
					clients = append(clients, undecided(t, s))
				}
				s.hold(t)
				for _, c := range clients[:test.gone] {
					if got := c.goneAway(); got != http2.ErrCodeNo {
						t.Errorf("GOAWAY %v", got)
					}
				}
				for _, c := range clients[test.gone:] {
					c.get(1, "/echo")
					if got := c.header(1)[":status"]; got != "200" || c.goAway != nil {
						t.Errorf("one within the share: %s, %v", got, c.goAway)
					}
				}
			}, limits(func(c *mux.Config) { c.Limits.MaxConnections = test.total }))
		})
	}
}

// TestManyIdleKeepNobodyOut: connections that cost nothing keep no client out, however
// many come.
func TestManyIdleKeepNobodyOut(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 50 }))
	for i := range 300 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
			t.Fatal(fmt.Sprint("connection ", i, ": ", resp.Status))
		}
	}
	eventually(t, "the limit", func() bool { return s.active("http1") == 50 })
}
