package mux_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols/moments"
)

// holdingRelay stands between a client and the server like a balancer: it takes at once what
// the server sends, and gives it to the client slowly, after a stall. Where the server resets
// the connection, it drops what it still has.
func holdingRelay(t *testing.T, addr string, stall time.Duration) net.Listener {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				_ = client.Close()
				return
			}
			var reset atomic.Bool
			wg.Go(func() {
				_, err := io.Copy(server, client)
				reset.Store(err != nil)
				_ = server.Close()
			})
			wg.Go(func() {
				defer func() { _ = client.Close() }()
				passSlowly(client, server, stall, &reset)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l
}

// passSlowly passes on what the server sends, 16 KiB each 30 ms, until it has reset the
// connection. It stalls behind the first whole piece.
func passSlowly(client, server net.Conn, stall time.Duration, reset *atomic.Bool) {
	const piece = 16 << 10
	var mu sync.Mutex
	var held bytes.Buffer // guarded by mu, and so is ended
	var ended bool
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			mu.Lock()
			held.Write(buf[:n])
			ended = err != nil
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	for !reset.Load() {
		time.Sleep(30 * time.Millisecond) // What is under test is time.
		mu.Lock()
		part := bytes.Clone(held.Next(piece))
		over := ended && held.Len() == 0
		mu.Unlock()
		if _, err := client.Write(part); err != nil || over {
			return
		}
		if len(part) == piece {
			time.Sleep(stall)
			stall = 0
		}
	}
}

// TestSlowTailBehindProxy: the answers on an HTTP/2 connection whose client was told to leave
// are not cut while a proxy has taken them and their client has not.
func TestSlowTailBehindProxy(t *testing.T) {
	t.Parallel()
	disconnect := func(s *server, _ *http.Client) {
		s.Disconnect(func(mux.ConnInfo) bool { return true }, time.Minute)
	}
	// giveUp has a proxy's other client give up requests as soon as they are sent.
	giveUp := func(s *server, client *http.Client) {
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Millisecond)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/given-up", http.NoBody)
			if err != nil {
				t.Error(err)
			} else if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close() // The connection that follows the first is refused.
			}
			cancel()
		}
	}
	for name, form := range map[string]struct {
		leave func(s *server, client *http.Client)
		stall time.Duration
		full  bool // A newcomer gets the connection's place.
		idle  time.Duration
		more  int64 // bytes of the answer
	}{
		"disconnected":              {leave: disconnect},
		"disconnected, and stalled": {leave: disconnect, stall: moments.GoAwayPatience + time.Second},
		"disconnected, and full":    {leave: disconnect, full: true},
		"drained":                   {leave: func(s *server, _ *http.Client) { _ = s.drain(context.Background()) }},
		"with too many resets":      {leave: giveUp},
		"idle":                      {leave: func(*server, *http.Client) {}, idle: 500 * time.Millisecond, more: 3 << 20}, // 8 s
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			size := bigAnswer + form.more
			begun, told := make(chan struct{}), make(chan struct{})
			s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/newcomer":
					_, _ = io.WriteString(w, "welcome")
				case "/given-up":
					<-r.Context().Done()
				default:
					close(begun)
					<-told
					_, _ = w.Write(make([]byte, size))
				}
			})), mux.Configure(func(c *mux.Config) {
				c.HTTP2.Progress.BodyGrace = 2 * time.Second // So it sweeps each 250 ms.
				c.HTTP2.MaxConnections, c.HTTP2.MaxResetsPerMinute = 1, 20
				c.HTTP2.IdleTimeout = cmp.Or(form.idle, c.HTTP2.IdleTimeout)
			}))
			relay := &server{Server: s.Server, addr: holdingRelay(t, s.addr, form.stall).Addr().String()}
			got, client := make(chan int64, 1), relay.client(t, 2)
			go func() {
				resp, err := client.Get("http://" + relay.addr + "/")
				if err != nil {
					t.Error(err)
					got <- -1
					return
				}
				n, err := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					t.Errorf("after %d bytes: %v", n, err)
				}
				got <- n
			}()
			within(t, "the request", begun)
			form.leave(relay, client)
			time.Sleep(300 * time.Millisecond) // The client answers the PING.
			close(told)
			if form.full {
				eventually(t, "a newcomer is served", func() bool { return <-get(s.client(t, 2), "http://"+s.addr+"/newcomer") == "welcome" })
			}
			if n := within(t, "the answer", got); n != size {
				t.Errorf("%d bytes of %d", n, size)
			}
		})
	}
}

// TestSlowTailOfCall: the same for the calls of a native gRPC connection, which grpc-go would
// close when it has written the last answer.
func TestSlowTailOfCall(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(t *testing.T, s *server){
		"aged": func(t *testing.T, s *server) {
			eventually(t, "told", func() bool { return s.Accounts()[0].CloseReason() == "max_age" })
		},
		"disconnected": func(_ *testing.T, s *server) { s.Disconnect(func(mux.ConnInfo) bool { return true }, time.Minute) },
		"drained":      func(_ *testing.T, s *server) { _ = s.drain(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := bigCalls{begun: make(chan struct{}), told: make(chan struct{})}
			s := start(t, false, mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, calls) }),
				mux.Configure(func(c *mux.Config) {
					if c.HTTP2.Progress.BodyGrace = 2 * time.Second; name == "aged" { // So it sweeps each 250 ms.
						c.GRPC.MaxAge = time.Second
					}
				}))
			relay := &server{Server: s.Server, addr: holdingRelay(t, s.addr, 0).Addr().String()}
			const window = bigAnswer + 64<<10 // The client sends WINDOW_UPDATE within the answer.
			client := testpb.NewTestServiceClient(relay.grpcClient(t, grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window)))
			got := make(chan error, 1)
			go func() {
				answer, err := client.UnaryCall(t.Context(), new(testpb.SimpleRequest))
				if n := len(answer.GetPayload().GetBody()); err == nil && n != bigAnswer {
					err = fmt.Errorf("%d bytes of %d", n, bigAnswer)
				}
				got <- err
			}()
			within(t, "the call", calls.begun)
			leave(t, s)
			time.Sleep(300 * time.Millisecond) // The client answers the PING.
			close(calls.told)
			if err := within(t, "the answer", got); err != nil {
				t.Error(err)
			}
		})
	}
}

// bigAnswer is what holdingRelay passes on in 2 s.
const bigAnswer = 1 << 20

// bigCalls answers one call when its client was told to leave.
type bigCalls struct {
	testpb.UnimplementedTestServiceServer

	begun, told chan struct{}
}

func (b bigCalls) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	close(b.begun)
	<-b.told
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, bigAnswer)}}, nil
}

// TestSlowTailOfWebSocket: the same for a message before the close frame of a drain, to a
// client that goes on sending.
func TestSlowTailOfWebSocket(t *testing.T) {
	t.Parallel()
	const size = 4 << 20 // 8 s, and coder/websocket waits 5 s for the answer to a close frame.
	told := make(chan struct{})
	s := start(t, false, mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		if err := c.Write(ctx, websocket.MessageBinary, make([]byte, size)); err != nil {
			return err
		}
		close(told)
		for {
			if _, _, err := c.Read(ctx); err != nil {
				return err
			}
		}
	}))
	relay := &server{Server: s.Server, addr: holdingRelay(t, s.addr, 0).Addr().String()}
	c := relay.webSocket(t)
	c.SetReadLimit(size)
	within(t, "the message", told)
	_ = s.drain(context.Background())
	go func() {
		for tick := time.NewTicker(200 * time.Millisecond); c.Write(t.Context(), websocket.MessageText, []byte("x")) == nil; <-tick.C {
		}
	}()
	if _, message, err := c.Read(t.Context()); err != nil || len(message) != size {
		t.Errorf("%d bytes of %d: %v", len(message), size, err)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("behind it: %v", err)
	}
}

// TestDrainOfSilentWebSocket: a drain waits no longer for a WebSocket's client that has read
// all, has answered a ping behind that, and then has fallen silent.
func TestDrainOfSilentWebSocket(t *testing.T) {
	t.Parallel()
	const size = 1 << 20 // It would have a minute to read that.
	pings, silent, over := 0, make(chan struct{}), make(chan struct{})
	s := start(t, false, mux.WithWebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
		if err := c.Write(ctx, websocket.MessageBinary, make([]byte, size)); err != nil {
			return err
		}
		_, _, err := c.Read(ctx)
		return err
	}), mux.Configure(func(c *mux.Config) {
		c.WebSocket.PingInterval, c.Drain.Spread, c.Drain.Timeout = 500*time.Millisecond, 0, 30*time.Second
	}))
	c, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", &websocket.DialOptions{
		HTTPClient: s.client(t, 1),
		OnPingReceived: func(context.Context, []byte) bool {
			if pings++; pings < 3 {
				return true
			}
			close(silent)
			<-over // Its context ends after 5 s.
			return false
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	defer func() { _ = c.CloseNow() }()
	defer close(over)
	c.SetReadLimit(size)
	if _, _, err := c.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { _, _, _ = c.Read(t.Context()) }()
	within(t, "the third ping", silent)
	if result := <-s.drain(t.Context()); result.err != nil {
		t.Errorf("the drain ends with %v, %v", result.report, result.err)
	}
}

// TestDrainOfPausingReader: a client that takes nothing for longer than it may without bytes
// waiting has its whole answer in a drain.
func TestDrainOfPausingReader(t *testing.T) {
	t.Parallel()
	// What is sent before the pause fills the kernel's buffers. The server's PING comes behind
	// that, and then the rest of the answer.
	const size, before = 4608 << 10, 2252 << 10
	wrote := make(chan struct{})
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, size))
		close(wrote)
	})), mux.Configure(func(c *mux.Config) { c.Drain.Spread, c.Drain.Timeout = 0, time.Minute }))
	conn := s.dial(t)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	c.must(c.WriteWindowUpdate(0, 1<<30))
	c.get(1, "/")
	told := s.told(t)
	eventually(t, "the kernel is full", func() bool { return s.active("http2") == 1 && s.Accounts()[0].IsWriting() })
	done := s.drain(context.Background())
	within(t, "the drain", told)
	for c.stream(1).body.Len() < before {
		c.step()
	}
	within(t, "the answer's writing", wrote)
	time.Sleep(2*moments.GoAwayPatience + 2*time.Second) // The PING and then the rest have their time, which is under test.
	if n := len(c.rest(1)); n != size {
		t.Errorf("%d bytes of %d", n, size)
	}
	_ = conn.Close()
	_ = within(t, "the drain", done)
}

// TestTailBehindLastStream: a response whose last bytes wait for the client's window, when its
// handler has returned, comes whole behind the last stream that the client was told, though
// another stream has crossed that.
func TestTailBehindLastStream(t *testing.T) {
	t.Parallel()
	const size, chunk = 65535 + 1, 4096 // A byte more than the stream's window.
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range size / chunk { // net/http keeps the last until the handler has returned.
			_, _ = w.Write(make([]byte, chunk))
		}
	})), mux.Configure(func(c *mux.Config) { c.Drain.Spread, c.Drain.Timeout = 0, time.Minute }))
	conn := s.dial(t)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := newH2Client(t, conn, conn)
	c.noCredit = true
	c.get(1, "/")
	for c.stream(1).body.Len() < size-1 {
		c.step()
	}
	s.drain(t.Context())
	for c.goAway == nil || c.lastTold == maxStream {
		c.step()
	}
	c.get(3, "/")
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		c.sync() // It goes on reading for some sweeps, which is what is under test.
	}
	c.must(c.WriteWindowUpdate(1, size))
	if n := len(c.rest(1)); n != size {
		t.Errorf("%d bytes of %d", n, size)
	}
	for !c.stream(3).reset {
		c.step()
	}
}

// dialNoReader opens an HTTP/2 connection whose client has had an answer, and from then on
// answers nothing by itself. closed is closed when the server has ended the connection.
func (s *server) dialNoReader(t *testing.T) (c *h2Client, closed <-chan struct{}) {
	t.Helper()
	conn := s.dial(t)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c = newH2Client(t, conn, conn)
	c.get(1, "/echo")
	for ended := false; !ended; { // It gives nothing back to its windows.
		f, err := c.ReadFrame()
		c.must(err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.must(c.WriteSettingsAck())
			}
		case *http2.DataFrame:
			ended = f.StreamEnded()
		case *http2.MetaHeadersFrame: // The trailers.
			ended = f.StreamEnded()
		}
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		close(ended)
	}()
	return c, ended
}

// TestDrainOfNoReader: a client that answers no PING, and sends only what shows no reading,
// does not hold a drain up to its timeout.
func TestDrainOfNoReader(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(c *h2Client, n uint32){
		"answers to no PING":           func(c *h2Client, _ uint32) { _ = c.WritePing(true, [8]byte{}) },
		"PINGs of its own":             func(c *h2Client, _ uint32) { _ = c.WritePing(false, [8]byte{}) },
		"requests behind its last one": func(c *h2Client, n uint32) { c.get(2*n+1, "/echo") },
		"its window, byte by byte": func(c *h2Client, n uint32) {
			if n%10 == 0 {
				_ = c.WriteWindowUpdate(0, 1)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, mux.Configure(func(c *mux.Config) { c.Drain.Spread, c.Drain.Timeout = 0, time.Minute }))
			c, closed := s.dialNoReader(t)
			done := s.drain(t.Context())
			for n := uint32(1); ; n++ {
				select {
				case <-closed:
					if got := within(t, "the drain", done); got.err != nil {
						t.Error(got.err)
					}
					return
				case <-time.After(100 * time.Millisecond):
					say(c, n)
				}
			}
		})
	}
}

// TestTricklingKeepsNoIdle: an idle HTTP/2 connection ends for its idle timeout, though its
// client answers no PING and goes on sending frames.
func TestTricklingKeepsNoIdle(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.HTTP2.IdleTimeout = 300 * time.Millisecond }))
	c, closed := s.dialNoReader(t)
	ended := time.After(15 * time.Second) // Behind 20 s the server misses the answer to a PING of its own.
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-tick.C:
			_ = c.WriteWindowUpdate(0, 1)
		case <-closed:
			return
		case <-ended:
			t.Fatal("the connection is still there")
		}
	}
}
