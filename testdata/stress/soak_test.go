package stress

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// The soaks: clients break off at every stage of every protocol, at random, while the
// server's limits, times and addresses change. They run in the process of the server, so
// that the race detector sees it. Behind them, all is as it was before.
const (
	soakClients = 16
	shortSoak   = 20 * time.Second
	longSoak    = 4 * time.Minute
)

// TestSoak has clients break off at a server that stays, and is reloaded all the time.
func TestSoak(t *testing.T) {
	before := use(t)
	s, ended := serveSoak(t)
	ctx, cancel := context.WithTimeout(t.Context(), pick(shortSoak, longSoak))
	defer cancel()
	var clients sync.WaitGroup
	var aborted atomic.Int64
	for i := range soakClients {
		clients.Go(func() { breakOff(ctx, s.Addrs()[0].String(), uint64(i), &aborted) })
	}
	reloads := 0
	for random := rand.New(rand.NewPCG(1, 1)); ctx.Err() == nil; reloads++ { //nolint:gosec // A seed makes it the same each time.
		c := s.Config()
		shake(&c, random)
		if _, err := s.Reload(c, "soak"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
	}
	clients.Wait()
	t.Logf("%d connections, %d reloads", aborted.Load(), reloads)
	if aborted.Load() < 100 {
		t.Errorf("only %d connections", aborted.Load())
	}
	calm := s.Config()
	calm.Limits, calm.HTTP1.MaxAge, calm.HTTP2.MaxAge = pool.Config{OnLimit: pool.Refuse}, 0, 0
	if _, err := s.Reload(calm, "soak"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("%+v", s.Connections())
		}
	}()
	eventually(t, "no connection is left", func() bool { return len(s.Connections()) == 0 })
	checkGauges(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	before.check(t)
}

// TestSoakOfServers has clients break off at servers that are drained and closed in the
// middle of it.
func TestSoakOfServers(t *testing.T) {
	before := use(t)
	random := rand.New(rand.NewPCG(2, 2)) //nolint:gosec // As above.
	var aborted atomic.Int64
	servers := 0
	for end := time.Now().Add(pick(shortSoak, longSoak)); time.Now().Before(end); servers++ {
		s, ended := serveSoak(t)
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for i := range soakClients {
			clients.Go(func() { breakOff(ctx, s.Addrs()[0].String(), uint64(servers*soakClients+i), &aborted) })
		}
		time.Sleep(time.Duration(100+random.IntN(900)) * time.Millisecond)
		if random.IntN(3) > 0 {
			drain, stop := context.WithTimeout(t.Context(), time.Duration(random.IntN(1000))*time.Millisecond)
			_, _ = s.Drain(drain) // It may have to cut, or be cut short.
			stop()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-ended
		cancel()
		clients.Wait()
		checkGauges(t, s)
	}
	t.Logf("%d connections, %d servers", aborted.Load(), servers)
	before.check(t)
}

// serveSoak serves all protocols, in plaintext and over TLS, on one port.
func serveSoak(t *testing.T) (s *mux.Server, ended <-chan error) {
	t.Helper()
	routes := http.NewServeMux()
	routes.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 4096)
		for range 100 {
			n, err := r.Body.Read(buf)
			if _, werr := w.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	})
	routes.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	routes.Handle("/ws", mux.WebSocket(func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		for {
			kind, message, err := c.Read(ctx)
			if err == nil {
				err = c.Write(ctx, kind, message)
			}
			if err != nil {
				return err
			}
		}
	}))
	s = mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners = []listeners.Config{{Address: "127.0.0.1:0", TLS: listeners.TLSConfig{Mode: listeners.ModeSelfSigned, Optional: true}}}
			c.Drain.Delay, c.Drain.Spread = 0, 50*time.Millisecond
			c.Sniff.Timeout = 200 * time.Millisecond
			c.HTTP1.HeaderTimeout, c.HTTP1.IdleTimeout = time.Second, time.Second
			c.HTTP2.IdleTimeout, c.GRPC.MaxIdle = time.Second, time.Second
			c.HTTP2.UpgradeH2C = true
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithHandler(routes),
		mux.WithGRPC(func(r mux.GRPCRegistrar) {
			demov1.RegisterEchoServer(r, stubbornEcho{handlers: &handlers{running: make(map[uint64]int)}})
		}),
	)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ListenAndServe() }()
	eventually(t, "it serves", func() bool { return s.Phase() == lifecycle.PhaseServing })
	return s, served
}

// shake changes what can be changed while the server runs.
func shake(c *mux.Config, random *rand.Rand) {
	few := func() int { return random.IntN(2 * soakClients) } // 0 is no bound.
	c.HTTP1.MaxConnections, c.HTTP2.MaxConnections, c.GRPC.MaxConnections, c.WebSocket.MaxConnections = few(), few(), few(), few()
	c.Limits.MaxConnections, c.Limits.PerAddress = 2*few(), 0
	c.Limits.OnLimit = []string{pool.Refuse, pool.Wait}[random.IntN(2)]
	c.HTTP1.MaxRequests = uint64(random.IntN(4))
	c.HTTP1.MaxAge = time.Duration(random.IntN(2)) * 300 * time.Millisecond
	c.HTTP2.MaxAge = time.Duration(random.IntN(2)) * 300 * time.Millisecond
	c.HTTP1.MaxAgeGrace, c.HTTP2.MaxAgeGrace = 300*time.Millisecond, 300*time.Millisecond
	c.WebSocket.PingInterval = time.Duration(1+random.IntN(5)) * 100 * time.Millisecond
	if random.IntN(10) == 0 { // New connections get new servers.
		c.HTTP2.MaxStreams = uint32(1 + random.IntN(100))
	}
}

// conversations are what the clients say. Each is cut off somewhere.
var conversations = func() []string {
	handshake := "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	get := "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
	message := "\x81\x85\x00\x00\x00\x00hello"
	calls := func(agent, path string) string {
		return frames(func(f *http2.Framer) error {
			var block strings.Builder
			encoder := hpack.NewEncoder(&block)
			_ = f.WriteSettings()
			for stream := uint32(1); stream < 9; stream += 2 {
				block.Reset()
				for _, field := range [][2]string{
					{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", path},
					{"content-type", agent}, {"te", "trailers"}, {"user-agent", "grpc-go/1.85.0"},
				} {
					_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
				}
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true})
				_ = f.WriteData(stream, false, []byte("\x00\x00\x00\x00\x00"))
				_ = f.WritePing(false, [8]byte{1})
				if stream%4 == 1 {
					_ = f.WriteData(stream, true, []byte("\x00\x00\x00\x00\x00"))
				} else {
					_ = f.WriteRSTStream(stream, http2.ErrCodeCancel)
				}
			}
			return f.WriteGoAway(0, http2.ErrCodeNo, nil)
		})
	}
	return []string{
		"", "\x00\x01\x02", "SSH-2.0-x\r\n", "\x16\x03\x01\x02\x00",
		get + get + "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + get,
		"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", // With a request behind it, net/http would not see the end.
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 1000),
		handshake + message + "\x01\x80\x00\x00\x00\x00" + strings.Repeat("\x00\x80\x00\x00\x00\x00", 30) + "\x80\x80\x00\x00\x00\x00" + message + "\x88\x82\x00\x00\x00\x00\x03\xe8",
		get + handshake + message,
		strings.Replace(handshake, "/ws", "/echo", 1) + get,
		"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAQAAP__\r\n\r\n" + http2.ClientPreface + calls("text/plain", "/echo"),
		http2.ClientPreface + calls("text/plain", "/echo"),
		http2.ClientPreface + calls("text/plain", "/hold"),
		http2.ClientPreface + calls("application/grpc", "/muxserve.demo.v1.Echo/Unary"),
		http2.ClientPreface + calls("application/grpc", "/muxserve.demo.v1.Echo/BidiStream"),
	}
}()

// breakOff opens connections one after the other until ctx ends. It says a part of a
// conversation on each, in pieces, and breaks off.
func breakOff(ctx context.Context, addr string, seed uint64, aborted *atomic.Int64) {
	random := rand.New(rand.NewPCG(3, seed)) //nolint:gosec // As above.
	for ctx.Err() == nil {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		aborted.Add(1)
		_ = raw.SetDeadline(time.Now().Add(2 * time.Second))
		conn := net.Conn(raw)
		if random.IntN(3) == 0 {
			alpn := [][]string{nil, {"h2"}, {"http/1.1"}}[random.IntN(3)]
			conn = tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: alpn}) //nolint:gosec // A throw-away certificate.
		}
		talk(conn, random)
		switch random.IntN(3) {
		case 0:
			_ = raw.(*net.TCPConn).SetLinger(0) // A reset.
		case 1:
			_ = raw.(*net.TCPConn).CloseWrite()
			_, _ = conn.Read(make([]byte, 1<<16))
		}
		_ = raw.Close()
	}
}

func talk(conn net.Conn, random *rand.Rand) {
	text := conversations[random.IntN(len(conversations))]
	text = text[:random.IntN(len(text)+1)]
	if random.IntN(3) == 0 {
		text = text[:0] // Only a dial, or a TLS handshake.
		if c, ok := conn.(*tls.Conn); ok && random.IntN(2) == 0 {
			_ = c.Handshake()
		}
	}
	for len(text) > 0 {
		n := 1 + random.IntN(len(text))
		if _, err := conn.Write([]byte(text[:n])); err != nil {
			return
		}
		text = text[n:]
		if random.IntN(3) == 0 {
			_ = conn.SetReadDeadline(time.Now().Add(time.Duration(random.IntN(50)) * time.Millisecond))
			if _, err := conn.Read(make([]byte, 1<<16)); err != nil && !os.IsTimeout(err) {
				return
			}
		}
	}
}

// checkGauges checks what the server says of connections and requests when none are left.
func checkGauges(t *testing.T, s *mux.Server) {
	t.Helper()
	var faults []string
	defer func() {
		if t.Failed() {
			t.Log(faults)
		}
	}()
	eventually(t, "the gauges are at zero", func() bool {
		faults = nil
		stats := s.Stats()
		for tag, p := range stats.Pools {
			if p.Active != 0 || p.Accepted != p.Closed+p.Moved {
				faults = append(faults, fmt.Sprintf("%s: %+v", tag, p))
			}
		}
		for tag, r := range stats.Requests {
			if r.InFlight != 0 {
				faults = append(faults, fmt.Sprintf("%s: %d requests in flight", tag, r.InFlight))
			}
		}
		return len(faults) == 0
	})
}

// usage is what the process has open.
type usage struct{ goroutines, files int }

func use(t *testing.T) usage {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return usage{runtime.NumGoroutine(), len(files)}
}

// check waits until the process has no more open than before. What there is for good, such
// as the poller's files, was there if a test before has used the network.
func (u usage) check(t *testing.T) {
	t.Helper()
	const forGood = 2 // The poller's files, and its pipe.
	eventually(t, fmt.Sprintf("no more than %+v", u), func() bool {
		now := use(t)
		return now.goroutines <= u.goroutines && now.files <= u.files+forGood
	})
}
