package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestHammer runs every protocol with timeouts that run out all the time. It looks for
// races, panics, hangs and counters that drift.
func TestHammer(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprint(withTLS), func(t *testing.T) {
			t.Parallel()
			hammer(t, withTLS)
		})
	}
}

func hammer(t *testing.T, withTLS bool) {
	seconds := 4 * time.Second
	if os.Getenv("MUXSERVE_LONG") != "" {
		seconds = 40 * time.Second
	}
	options := []mux.Option{
		mux.WithLogger(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))), //nolint:sloglint // The lines are to be made.
		mux.WithAccessLog(slog.New(slog.NewTextHandler(io.Discard, nil))),                                       //nolint:sloglint // As above.
		aged(60*time.Millisecond, 80*time.Millisecond),
		impatient(protocols.ProgressConfig{MinBodyRate: 1000, BodyGrace: 30 * time.Millisecond, ProgressTimeout: 60 * time.Millisecond}),
		mux.Configure(func(c *mux.Config) {
			noDelay(c)
			c.HTTP1.MaxRequests, c.HTTP2.MaxRequests, c.HTTP2.MaxResetsPerMinute = 20, 20, 10
			c.HTTP1.IdleTimeout, c.HTTP2.IdleTimeout, c.GRPC.MaxIdle = 40*time.Millisecond, 40*time.Millisecond, 50*time.Millisecond
			c.HTTP2.PingInterval, c.HTTP2.PingTimeout = 20*time.Millisecond, 50*time.Millisecond
			c.WebSocket.PingInterval, c.WebSocket.PongTimeout, c.WebSocket.MaxAge = 20*time.Millisecond, 30*time.Millisecond, 100*time.Millisecond
			c.GRPC.MaxAge, c.GRPC.MaxAgeGrace = 100*time.Millisecond, 50*time.Millisecond
			c.WebSocket.Compression = protocols.CompressionTakeover
			c.HTTP2.UpgradeH2C = true
			c.Limits.PerAddress = 60
			c.Sniff.Timeout = 100 * time.Millisecond
		}),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }),
	}
	h := http.NewServeMux()
	h.Handle("/", routes())
	h.HandleFunc("/read", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	h.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		ctx := leaving(r.Context())
		for range 40 {
			if _, err := w.Write(make([]byte, 100<<10)); err != nil || ctx.Err() != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	h.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	h.HandleFunc("/deadline", func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_ = rc.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		_ = rc.EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	h.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		ctx := leaving(r.Context())
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = io.Copy(conn, rw)
		_ = ctx.Err()
	})
	options = append(options, mux.WithHandler(h))
	var cert tls.Certificate
	if withTLS {
		ca := newAuthority(t)
		cert = ca.issue(t, "server.test")
		options = append(options, mux.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}))
	}
	m := mux.New(options...)
	var added, removed atomic.Int64
	m.Observe(func(e mux.Event) {
		switch e.Kind {
		case mux.EventAdded:
			added.Add(1)
		case mux.EventRemoved:
			removed.Add(1)
		}
		_ = e.Conn.Info()
	})
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	s := &server{Server: m, addr: l.Addr().String()}
	if withTLS {
		s.roots = newAuthority(t).pool
	}
	ctx, cancel := context.WithTimeout(t.Context(), seconds)
	defer cancel()
	dial := func(alpn ...string) net.Conn {
		d := &net.Dialer{Timeout: time.Second}
		var conn net.Conn
		var err error
		if withTLS {
			conn, err = tls.DialWithDialer(d, "tcp", s.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: alpn})
		} else {
			conn, err = d.Dial("tcp", s.addr)
		}
		if err != nil {
			return nil
		}
		_ = conn.SetDeadline(time.Now().Add(time.Duration(rand.IntN(300)) * time.Millisecond))
		return conn
	}
	protocol := func(version int) *http.Client {
		p := new(http.Protocols)
		p.SetHTTP1(version == 1)
		p.SetHTTP2(version == 2 && withTLS)
		p.SetUnencryptedHTTP2(version == 2 && !withTLS)
		tr := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr, Timeout: 300 * time.Millisecond}
	}
	scheme := s.scheme()
	paths := []string{"/echo", "/read", "/write", "/panic", "/deadline", "/slow", "/nowhere", "/hijack"}
	var wg sync.WaitGroup
	loop := func(f func()) {
		wg.Go(func() {
			for ctx.Err() == nil {
				f()
			}
		})
	}
	for v := 1; v <= 2; v++ {
		c := protocol(v)
		for range 3 {
			loop(func() {
				body := io.Reader(strings.NewReader(strings.Repeat("x", rand.IntN(50_000))))
				if rand.IntN(3) == 0 {
					body = &drip{ctx, 20, 10 * time.Millisecond}
				}
				r, _ := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+s.addr+paths[rand.IntN(len(paths))], body)
				if rand.IntN(2) == 0 {
					r.ContentLength = 20
				}
				resp, err := c.Do(r)
				if err != nil {
					return
				}
				if rand.IntN(3) > 0 {
					_, _ = io.Copy(io.Discard, resp.Body)
				} else {
					_, _ = io.CopyN(io.Discard, resp.Body, 10_000)
					time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
				}
				_ = resp.Body.Close()
			})
		}
	}
	for range 2 {
		loop(func() { // Raw HTTP/2 that resets and stalls.
			conn := dial("h2")
			if conn == nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, http2.ClientPreface)
			fr := http2.NewFramer(conn, conn)
			_ = fr.WriteSettings()
			for i := range uint32(rand.IntN(30)) {
				block := []byte{0x83, 0x86, 0x84, 0x41, 0x01, 'x'} // POST http / x
				if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true, EndStream: rand.IntN(2) == 0}) != nil {
					return
				}
				if rand.IntN(2) == 0 {
					_ = fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
				}
			}
			time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		})
		loop(func() { // Raw HTTP/1.1 that stalls.
			conn := dial("http/1.1")
			if conn == nil {
				return
			}
			defer conn.Close()
			texts := []string{"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", "GET /write HTTP/1.1\r\nHost: x\r\n\r\n", "GET /hi", "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\nabc",
				"GET /echo HTTP/1.1\r\n" + upgradeFields + "\r\n" + http2.ClientPreface, "\x00\x01", handshake, "", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n" + handshake}
			_, _ = io.WriteString(conn, texts[rand.IntN(len(texts))])
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		})
		loop(func() {
			hc := protocol(1)
			defer hc.CloseIdleConnections()
			ws, _, err := websocket.Dial(ctx, scheme+"://"+s.addr+"/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: hc.Transport}, CompressionMode: websocket.CompressionContextTakeover})
			if err != nil {
				return
			}
			defer ws.CloseNow()
			for range rand.IntN(20) {
				if ws.Write(ctx, websocket.MessageText, []byte(strings.Repeat("hello", 100))) != nil {
					return
				}
				c, stop := context.WithTimeout(ctx, 50*time.Millisecond)
				_, _, err := ws.Read(c)
				stop()
				if err != nil {
					return
				}
				time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
			}
		})
	}
	if !withTLS {
		client := testpb.NewTestServiceClient(s.grpcClient(t))
		for range 2 {
			loop(func() {
				c, stop := context.WithTimeout(ctx, 100*time.Millisecond)
				defer stop()
				_, _ = client.UnaryCall(c, &testpb.SimpleRequest{})
				if st, err := client.FullDuplexCall(c); err == nil {
					_ = st.Send(&testpb.StreamingOutputCallRequest{})
					_, _ = st.Recv()
				}
				time.Sleep(time.Millisecond)
			})
		}
	}
	limit := func(total, perAddress, http1, http2, grpc, webSocket int) {
		c := m.Config()
		c.Limits.MaxConnections, c.Limits.PerAddress = total, perAddress
		c.HTTP1.MaxConnections, c.HTTP2.MaxConnections, c.GRPC.MaxConnections, c.WebSocket.MaxConnections = http1, http2, grpc, webSocket
		if _, err := m.Reload(c, "test"); err != nil && !errors.Is(err, mux.ErrNotServing) {
			t.Error(err)
		}
	}
	loop(func() {
		_ = m.Stats()
		_ = m.Connections()
		_ = m.Servers()
		time.Sleep(5 * time.Millisecond)
	})
	loop(func() {
		limit(100, rand.IntN(2)*60, rand.IntN(40), rand.IntN(10), rand.IntN(3), rand.IntN(4))
		time.Sleep(10 * time.Millisecond)
	})
	wg.Wait()
	limit(0, 0, 0, 0, 0, 0)
	done := make(chan error, 1)
	go func() { done <- m.Shutdown(context.Background()) }()
	select {
	case err := <-done:
		t.Log("shutdown:", err)
	case <-time.After(60 * time.Second):
		t.Fatal("the drain hangs")
	}
	<-served
	st := m.Stats()
	for tag, p := range st.Pools {
		if p.Active != 0 {
			t.Errorf("%s: %d left", tag, p.Active)
		}
	}
	for i := 0; ; i++ {
		left := 0
		for _, r := range m.Stats().Requests {
			left += int(r.InFlight)
		}
		if left == 0 && added.Load() == removed.Load() { // Observers are told a moment after a connection is off the books.
			break
		}
		if time.Sleep(20 * time.Millisecond); i == 100 {
			t.Errorf("%d in flight; %d added, %d removed", left, added.Load(), removed.Load())
			break
		}
	}
	if faults := m.UnseenFaults([]net.Addr{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}); len(faults) > 0 {
		t.Error(faults)
	}
	var reasons []string
	for tag, of := range st.Closed {
		for r, n := range of {
			reasons = append(reasons, fmt.Sprintf("%s/%s %d", tag, r, n))
		}
	}
	slices.Sort(reasons)
	t.Log(added.Load(), "connections:", strings.Join(reasons, ", "))
}
