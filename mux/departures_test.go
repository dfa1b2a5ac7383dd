package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// TestMaxRequests: the server answers the last allowed request of a connection, and the
// response says that it is the last.
func TestMaxRequests(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		for i := range 3 {
			resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, resp.Body)
			if want := i == 2; resp.Close != want || resp.StatusCode != http.StatusOK {
				t.Errorf("request %d: %s, Connection: close %v", i+1, resp.Status, resp.Close)
			}
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("after the last request: %v", err)
		}
		c := s.client(t, 2)
		for range 7 {
			if got := <-get(c, s.scheme()+"://"+s.addr+"/echo"); got != "" {
				t.Error(got)
			}
		}
		if got := s.Stats().Pools["http2"].Accepted; got != 3 {
			t.Errorf("7 HTTP/2 requests on %d connections, want 3", got)
		}
	}, mux.Configure(func(c *mux.Config) { c.HTTP1.MaxRequests, c.HTTP2.MaxRequests = 3, 3 }))
}

// TestMaxRequestsWithUpgrade: a request that asks for another protocol, and is answered in
// HTTP/1.1, counts as any other. One that gets the other protocol keeps its connection.
func TestMaxRequestsWithUpgrade(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.HTTP1.MaxRequests = 3 }))
	const handshake = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, fields := range []string{"Host: x\r\nUpgrade: x\r\n", upgradeFields, handshake} {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		for i := range 3 {
			resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\n"+fields+"\r\n")
			_, _ = io.Copy(io.Discard, resp.Body)
			if want := i == 2; resp.Close != want || resp.StatusCode != http.StatusOK {
				t.Errorf("%q, request %d: %s, Connection: close %v", fields, i+1, resp.Status, resp.Close)
			}
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("%q: after the last request: %v", fields, err)
		}
	}
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	for range 2 {
		resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	if resp := roundTrip(t, conn, r, "GET /ws HTTP/1.1\r\n"+handshake+"\r\n"); resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	time.Sleep(1500 * time.Millisecond) // A sweep would tell it.
	if _, err := conn.Write(clientFrame(true, opText, []byte("hello"))); err != nil {
		t.Fatal(err)
	}
	if b, err := r.ReadByte(); err != nil || b != 0x81 {
		t.Errorf("the echo begins with %#x, %v", b, err)
	}
}

// TestMaxRequestsCutsNothing: what is in flight on a connection that has had all its requests
// ends by itself, also where connections that have reached their age are cut.
func TestMaxRequestsCutsNothing(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		s := start(t, false, mux.Configure(func(c *mux.Config) {
			c.HTTP1.MaxRequests, c.HTTP2.MaxRequests = 1, 1
			c.HTTP1.MaxAgeGrace, c.HTTP2.MaxAgeGrace = 100*time.Millisecond, 100*time.Millisecond
		}))
		resp, err := s.client(t, version).Get("http://" + s.addr + "/slow")
		if err != nil {
			t.Errorf("HTTP/%d: %v", version, err)
			continue
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "slow" {
			t.Errorf("HTTP/%d: %q, %v", version, body, err)
		}
		_ = resp.Body.Close()
	}
}

// TestMaxAge: a connection that has reached its age ends with its next response.
func TestMaxAge(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxAge, c.HTTP2.MaxAge = 50*time.Millisecond, 50*time.Millisecond
	}))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	old := func() bool {
		resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Close
	}
	if old() {
		t.Error("a new connection is told to leave")
	}
	eventually(t, "told to leave", old)
	c := s.client(t, 2)
	eventually(t, "a second HTTP/2 connection", func() bool {
		if got := <-get(c, s.scheme()+"://"+s.addr+"/echo"); got != "" {
			t.Fatal(got)
		}
		return s.Stats().Pools["http2"].Accepted >= 2
	})
}

// goAways reads frames until the connection ends, and returns the GOAWAY frames. It
// answers PINGs, and next makes requests.
func (c *h2Client) goAways(next func(seen int)) (last []uint32, codes []http2.ErrCode) {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return last, codes
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
		case *http2.GoAwayFrame:
			last, codes = append(last, f.LastStreamID), append(codes, f.ErrCode)
			if next != nil {
				next(len(last))
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			c.stream(f.StreamID).header = map[string]string{":status": f.PseudoValue("status")}
		}
	}
}

const maxStream = 1<<31 - 1

// TestTwoStepGoAway: in a drain, an HTTP/2 client first gets GOAWAY without a last
// stream, then one with it. The server serves the streams in between.
func TestTwoStepGoAway(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		c.get(1, "/echo")
		if got := c.header(1)[":status"]; got != "200" {
			t.Fatalf("status %s", got)
		}
		done := s.drain(t.Context())
		last, codes := c.goAways(func(seen int) {
			if seen == 1 {
				c.get(3, "/echo") // It was on its way.
			}
		})
		if len(last) != 2 || last[0] != maxStream || last[1] != 3 {
			t.Errorf("GOAWAY %v, want %d and 3", last, maxStream)
		}
		for _, code := range codes {
			if code != http2.ErrCodeNo {
				t.Errorf("codes %v", codes)
			}
		}
		if got := c.stream(3).header[":status"]; got != "200" {
			t.Errorf("the stream that crossed the GOAWAY: %q", got)
		}
		if got := within(t, "the drain", done); got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
	})
}

// aged gives connections of both HTTP versions a short age.
func aged(age, grace time.Duration) mux.Option {
	return mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxAge, c.HTTP2.MaxAge = age, age
		c.HTTP1.MaxAgeGrace, c.HTTP2.MaxAgeGrace = grace, grace
	})
}

// TestAgeEndsIdle: an idle HTTP/2 connection that reaches its age ends, too. One of HTTP/1.1 ends
// with its next response, since a request may be on its way.
func TestAgeEndsIdle(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		events := observe(t, s.Server)
		one := s.dial(t, "http/1.1")
		r := bufio.NewReader(one)
		_ = roundTrip(t, one, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
		two := s.dial(t, "h2")
		c := newH2Client(t, two, two)
		c.get(1, "/echo")
		last, codes := c.goAways(nil)
		if len(last) != 2 || last[0] != maxStream || last[1] != 1 || codes[1] != http2.ErrCodeNo {
			t.Errorf("GOAWAY %v %v, want %d and 1", last, codes, maxStream)
		}
		time.Sleep(2 * moments.FreshTime) // It would be closed by now, as in a drain.
		if resp := roundTrip(t, one, r, "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("HTTP/1.1: %s, Connection: close %t", resp.Status, resp.Close)
		} else if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "slow" {
			t.Errorf("HTTP/1.1: %q, %v", body, err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("the end of the HTTP/1.1 connection: %v", err)
		}
		for _, p := range []protocols.Protocol{protocols.HTTP1, protocols.HTTP2} {
			eventually(t, "closed for its age", func() bool { return events.count(mux.EventRemoved, p, "max_age") == 1 })
		}
	}, aged(time.Second, 800*time.Millisecond)) // The grace is over before the request.
}

// agedIdle returns a server and an idle HTTP/1.1 connection that has reached its age within a
// request, so that the sweep has told it and the client does not know. /slow takes its time.
func agedIdle(t *testing.T, grace time.Duration) (*server, net.Conn, *bufio.Reader) {
	t.Helper()
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	s := start(t, false, aged(50*time.Millisecond, grace), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(300 * time.Millisecond)
			_, _ = io.WriteString(w, "slow")
			return
		}
		_ = http.NewResponseController(w).Flush() // Before it is told.
		begun <- struct{}{}
		<-finish
	})))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	within(t, "the handler", begun)
	time.Sleep(500 * time.Millisecond) // The age has passed, and several sweeps have run.
	close(finish)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.Close {
		t.Fatal(resp, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return s, conn, r
}

// TestAgedHasGrace: the grace begins with the last request, however long the connection was
// idle before it.
func TestAgedHasGrace(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	_, conn, r := agedIdle(t, grace)
	time.Sleep(grace + 200*time.Millisecond)
	resp := roundTrip(t, conn, r, "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "slow" || !resp.Close {
		t.Errorf("%q, %v, Connection: close %t", body, err, resp.Close)
	}
}

// TestReloadEndsAged: a reload that replaces the servers ends such a connection.
func TestReloadEndsAged(t *testing.T) {
	t.Parallel()
	s, _, r := agedIdle(t, time.Hour)
	c := s.Config()
	c.HTTP1.HeaderTimeout++ // This needs other servers.
	if _, err := s.Reload(c, "test"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("the end: %q, %v", rest, err)
	}
}

// TestAgeGrace: requests in flight get max_age_grace and no more.
func TestAgeGrace(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	s := start(t, false, aged(50*time.Millisecond, 200*time.Millisecond), mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- r.Context().Err()
	})))
	for version := 1; version <= 2; version++ {
		got := get(s.client(t, version), "http://"+s.addr+"/")
		if err := within(t, "the handler", ended); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if text := within(t, "the client", got); text == "" {
			t.Errorf("HTTP/%d: answered", version)
		}
	}
}

// TestAgeDuringRequest: a connection that reaches its age during a request says so in the
// response, or serves the next request. It must not close after a response that promised
// to stay.
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
	time.Sleep(300 * time.Millisecond) // The age has passed, and several sweeps have run.
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

// TestMaxRequestsUpgradedH2C: an upgraded connection at its maximum of requests gets
// GOAWAY before it is cut.
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

// TestAgeOfUpgradedH2C: an upgraded connection has the age of HTTP/2, and ends with
// GOAWAY.
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

// TestMaxRequestsShared: calls on the shared transport count towards http2.max_requests.
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

// TestAgedStreamWebSocket: the server closes WebSockets on streams of an aged HTTP/2
// connection with 1001.
func TestAgedStreamWebSocket(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	s := start(t, false, mux.Configure(overHTTP2), aged(100*time.Millisecond, 300*time.Millisecond))
	c := s.http2(t)
	c.request(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", s.addr, ":path", "/ws",
		"sec-websocket-version", "13")
	if got := c.header(1)[":status"]; got != "200" {
		t.Fatal(got)
	}
	var body []byte
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("cut without a close frame, after % x: %v", body, err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			body = append(body, f.Data()...)
			if strings.Contains(string(body), "\x03\xe9") {
				return
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		}
	}
}

// TestAgeDeliversAnswers: an answer over HTTP/2 that its handler has given is not lost with a
// connection that has become too old, however slowly the client reads it.
func TestAgeDeliversAnswers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what has arrived")
	}
	t.Parallel()
	const size, parts = 1 << 20, 60
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, size))
	})), mux.Configure(func(c *mux.Config) { c.HTTP2.MaxAge = 100 * time.Millisecond }))
	conn := s.dial(t)
	if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
	c.must(c.WriteWindowUpdate(0, size))
	c.get(1, "/")
	for range parts { // Longer than the client has for its answer to the PING of the GOAWAY.
		c.data(1, size/parts/2)
		time.Sleep(100 * time.Millisecond)
	}
	for !c.stream(1).ended {
		c.step()
	}
	if n := c.stream(1).body.Len(); n != size-parts*(size/parts/2) {
		t.Errorf("%d bytes are left of the answer", n)
	}
}

// TestBeyondLastIsNotServed: what a client opens beyond the last stream that it was told it
// opens once more on another connection. It is not served twice.
func TestBeyondLastIsNotServed(t *testing.T) {
	for name, headers := range map[string][]string{
		"request": {":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/count"},
		"upload":  {":method", "POST", ":scheme", "http", ":authority", "x", ":path", "/count", "content-length", "5"},
		"call": {
			":method", "POST", ":scheme", "http", ":authority", "x", ":path", testpb.TestService_UnaryCall_FullMethodName,
			"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var served atomic.Int32
			s := start(t, false, mux.WithHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) })),
				mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, countingService{served: &served}) }))
			conn := s.dial(t)
			c := newH2Client(t, conn, conn)
			c.ready()
			open := func(stream uint32) {
				c.request(stream, name == "request", headers...)
				if name != "request" {
					c.must(c.WriteData(stream, true, make([]byte, 5)))
				}
			}
			open(1)
			c.rest(1)
			eventually(t, "idle", func() bool {
				a := s.Accounts()
				return len(a) == 1 && a[0].InFlight() == 0 && s.Stats().Requests["http2"].InFlight == 0
			})
			s.LeaveIdle(s.Accounts()[0])
			for c.goAway == nil {
				c.step()
			}
			if last := c.goAway.LastStreamID; last != 1 {
				t.Fatalf("the last stream is %d", last)
			}
			open(3)
			_ = c.WritePing(false, [8]byte{9})
			for c.answered != [8]byte{9} {
				c.step()
			}
			if name == "request" || name == "upload" {
				for !c.stream(3).reset {
					c.step()
				}
			}
			if n := served.Load(); n != 1 || c.stream(3).header != nil {
				t.Errorf("%d were served, %v", n, c.stream(3).header)
			}
		})
	}
}

// countingService counts calls.
type countingService struct {
	testpb.UnimplementedTestServiceServer

	served *atomic.Int32
}

func (s countingService) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	s.served.Add(1)
	return new(testpb.SimpleResponse), nil
}
