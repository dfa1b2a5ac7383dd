package mux_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestAgeDuringRequest: a connection that reaches its age while a request is being answered says so in the answer,
// or serves the next request. It must not just vanish behind an answer that promised it would stay.
func TestAgeDuringRequest(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	s := start(t, false, aged(50*time.Millisecond, time.Hour), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-finish
		_, _ = io.WriteString(w, "done")
	})))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	within(t, "the handler", begun)
	time.Sleep(300 * time.Millisecond) // The age has come, and several sweeps.
	close(finish)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.Close {
		return
	}
	send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Errorf("no Connection: close in the answer, and then the next request is lost: %v", err)
	}
}

// TestMaxRequestsUpgradedH2C: an upgraded connection that has had its requests is told by GOAWAY before it is cut.
func TestMaxRequestsUpgradedH2C(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn), mux.Configure(func(c *mux.Config) {
		c.HTTP2.MaxRequests, c.HTTP2.MaxAge, c.HTTP2.MaxAgeGrace = 3, time.Hour, 800*time.Millisecond
	}))
	c, _ := s.upgrade(t, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
	served := 0
	for stream := uint32(3); ; stream += 2 {
		c.get(stream, "/echo")
		for !c.stream(stream).ended {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatalf("%d more requests were served, then %v without GOAWAY", served, err)
			}
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				return
			case *http2.MetaHeadersFrame:
				if f.StreamID == stream {
					c.stream(stream).ended = f.StreamEnded()
				}
			case *http2.DataFrame:
				if f.StreamID == stream {
					c.stream(stream).ended = f.StreamEnded()
				}
			}
		}
		served++
		time.Sleep(10 * time.Millisecond)
	}
}

// TestAgeOfUpgradedH2C: it is HTTP/2's age that an upgraded connection has, and GOAWAY tells of it.
func TestAgeOfUpgradedH2C(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(upgradesOn), mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxAge = 0
		c.HTTP2.MaxAge, c.HTTP2.MaxAgeGrace = 100*time.Millisecond, 200*time.Millisecond
	}))
	c, _ := s.upgrade(t, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
	c.rest(1)
	time.Sleep(time.Second)
	conns := s.Connections()
	c.get(3, "/echo")
	for c.goAway == nil {
		f, err := c.ReadFrame()
		if err != nil {
			return // It was idle: only a response could have brought GOAWAY.
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			c.goAway = g
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamID == 3 {
			t.Fatalf("ten times its age, and still served: %+v", conns)
		}
	}
}

// TestMaxRequestsShared: calls on the shared transport count for the maximum of requests.
func TestMaxRequestsShared(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.GRPC.Transport = protocols.TransportShared
		c.HTTP2.MaxRequests = 5
	}))
	client := testpb.NewTestServiceClient(s.grpcClient(t))
	for range 50 {
		if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Stats().Pools["http2"].Accepted; got < 2 {
		t.Errorf("50 calls on %d connection, of which each may have 5 requests", got)
	}
}
