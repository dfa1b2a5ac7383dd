package mux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// haveSelfTold opens n idle HTTP/2 connections that are told to leave as soon as they have had
// an answer, because of what their clients do, and whose clients read nothing more. Those that
// trickle answer PINGs that the server has not sent.
func (s *server) haveSelfTold(t *testing.T, n int, native, trickle bool) {
	t.Helper()
	var tricklers sync.WaitGroup
	t.Cleanup(tricklers.Wait)
	for i := range n {
		conn := s.dial(t, "h2")
		t.Cleanup(func() { _ = conn.Close() })
		// The server remembers by the SETTINGS which clients of gRPC make other requests, too.
		c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(70_000 + i)})
		c.ready()
		if native {
			c.request(1, false, ":method", "POST", ":scheme", "http", ":authority", "x",
				":path", testpb.TestService_UnaryCall_FullMethodName,
				"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.75.0")
			c.must(c.WriteData(1, true, make([]byte, 5)))
			_ = c.rest(1)
			c.get(3, "/echo")
		} else {
			c.get(1, "/echo")
			_ = c.rest(1)
			c.must(c.WriteSettings(tableOf(0)))
		}
		if trickle {
			tricklers.Go(func() {
				for c.WritePing(true, [8]byte{}) == nil {
					time.Sleep(20 * time.Millisecond) // It is slow.
				}
			})
		}
	}
	eventually(t, "all were told", func() bool { return s.inState("leaving") == n })
}

// TestToldMakeRoom: idle HTTP/2 connections whose clients were told to leave, and do not, keep
// nobody out. The server ends them before idle ones whose clients were not told.
func TestToldMakeRoom(t *testing.T) {
	const limit = 8
	for where, test := range map[string]struct {
		edit   func(*mux.Config)
		atOnce int
	}{
		"a pool":   {func(c *mux.Config) { c.HTTP2.MaxConnections, c.GRPC.MaxConnections = limit, limit }, limit},
		"all":      {func(c *mux.Config) { c.Limits.MaxConnections = limit }, 1},
		"a client": {func(c *mux.Config) { c.Limits.PerAddress = limit }, 1},
	} {
		for _, native := range []bool{false, true} {
			for _, trickle := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, native %t, trickle %t", where, native, trickle), func(t *testing.T) {
					t.Parallel()
					s := start(t, false, limits(test.edit))
					s.haveSelfTold(t, limit, native, trickle)
					// newcomer asks on a connection of its own, which stays.
					newcomer := func() (ask func() error) {
						if native {
							cc := testpb.NewTestServiceClient(s.grpcClient(t))
							return func() error {
								_, err := cc.UnaryCall(context.Background(), &testpb.SimpleRequest{})
								return err
							}
						}
						client := s.client(t, 2)
						return func() error {
							resp, err := client.Get("http://" + s.addr + "/echo")
							if err != nil {
								return err
							}
							_ = resp.Body.Close()
							if resp.StatusCode != http.StatusOK {
								return errors.New(resp.Status)
							}
							return nil
						}
					}
					come := func() {
						var together sync.WaitGroup
						for range test.atOnce {
							ask := newcomer()
							together.Go(func() {
								if err := ask(); err != nil {
									t.Errorf("a newcomer: %v", err)
								}
							})
						}
						together.Wait()
					}
					for range limit / test.atOnce {
						come()
					}
					eventually(t, "the newcomers have all places", func() bool { return s.inState("idle") == limit })
					for range 2 * limit / test.atOnce { // They get the places of those before.
						come()
					}
				})
			}
		}
	}
}

// TestToldWithinHeadMakesRoom: a client of HTTP/1.1 that was told to leave within the head of
// a request keeps nobody out by not ending that head.
func TestToldWithinHeadMakesRoom(t *testing.T) {
	s := start(t, false, mux.Configure(patient), limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }))
	conn := s.dial(t)
	const request = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
	_ = roundTrip(t, conn, bufio.NewReader(conn), request)
	send(t, conn, "G")
	eventually(t, "the head has begun", func() bool { return s.Connections()[0].BytesReceived > uint64(len(request)) })
	s.Disconnect(func(mux.ConnInfo) bool { return true }, time.Hour)
	eventually(t, "a newcomer is served", func() bool { return s.status(t, "/echo") == http.StatusOK })
}

// TestUntakenMakeRoom: an idle client that does not take its last answer keeps no place of those
// that are on their way out.
func TestUntakenMakeRoom(t *testing.T) {
	const patience, size = 2 * time.Second, 200 << 10
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 2 }), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(make([]byte, size))
			return
		}
		routes().ServeHTTP(w, r)
	})))
	s.SetLeaving(1, patience)
	conn := s.dial(t)
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2 * size})
	c.must(c.WriteWindowUpdate(0, 2*size))
	c.get(1, "/large") // It is not read.
	eventually(t, "all is written", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].State == "idle" && conns[0].BytesSent > size
	})
	c.must(c.WritePing(false, [8]byte{})) // It is there, and has sent something since.
	other := s.dial(t)
	_ = roundTrip(t, other, bufio.NewReader(other), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	s.hold(t)
	time.Sleep(patience / 4) // What is under test is time: longer than mutePatience.
	s.hold(t)
}
