package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// crossedConn makes a request arrive after the drain has found the connection idle, and
// before the drain sets the deadline that ends net/http's wait.
type crossedConn struct {
	net.Conn
	armed    atomic.Bool   // Set when it is idle: net/http ends its own reads in the same way.
	deciding chan struct{} // closed when the deadline is about to be set
	parsed   chan struct{} // closed when the request's head has been parsed
	once     sync.Once
}

// SetReadDeadline knows the caller by the deadline: the drain sets one in the past, and
// net/http clears the deadline of the head after it has parsed the head.
func (c *crossedConn) SetReadDeadline(t time.Time) error {
	if t.Before(time.Now()) && !t.IsZero() && c.armed.CompareAndSwap(true, false) {
		close(c.deciding)
		<-c.parsed
	}
	err := c.Conn.SetReadDeadline(t)
	if t.IsZero() {
		select {
		case <-c.deciding:
			c.once.Do(func() { close(c.parsed) })
		default:
		}
	}
	return err
}

// TestDrainTakesDeadlineBack: a request that arrives at the moment when the drain closes
// its idle connection is served with its body.
func TestDrainTakesDeadlineBack(t *testing.T) {
	accepted := make(chan *crossedConn, 1)
	begun := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			close(begun)
		}
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Errorf("body: %v", err)
		}
	})
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard), mux.WithHandler(handler)),
		wrapListener{listen(t), func(conn net.Conn) net.Conn {
			c := &crossedConn{Conn: conn, deciding: make(chan struct{}), parsed: make(chan struct{})}
			accepted <- c
			return c
		}})
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	roundTrip(t, conn, r, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "idle", func() bool { return s.Connections()[0].State == "idle" })
	crossed := <-accepted
	crossed.armed.Store(true)
	done := s.drain(context.WithoutCancel(t.Context()))
	within(t, "the drain to find it idle", crossed.deciding)
	send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
	within(t, "the handler", begun)
	resp := roundTrip(t, conn, r, "abc")
	if body, err := io.ReadAll(resp.Body); string(body) != "abc" || err != nil || !resp.Close {
		t.Errorf("%s, %q, %v, close %v", resp.Status, body, err, resp.Close)
	}
	if got := within(t, "the drain", done); got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
}

// TestDrainKeepsBegunRequests: a drain breaks no request whose handler has begun, on busy
// kept-alive connections whose bodies come after the heads.
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

// keepPosting posts small bodies on one connection until the server closes it.
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

// TestDrainServesBegunHead: a request of which a part has arrived on a kept-alive
// connection is served. Idle connections are closed.
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

// TestDrainServesOldFirstHead: a first request that began long before the drain is served
// too. net/http's own Shutdown gives it five seconds.
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

// TestDrainOfHeadsWithoutEnd: a client that has begun a request, and sends no more of it, does
// not hold a drain up to its timeout.
func TestDrainOfHeadsWithoutEnd(t *testing.T) {
	t.Parallel()
	const whole = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, test := range map[string]struct {
		withTLS       bool
		before, begun string
	}{
		"a byte of the next head":      {false, whole, "G"},
		"a part of the next head":      {false, whole, "GET /echo HTTP/1.1\r\nHo"},
		"a part of the next head, TLS": {true, whole, "GET /ec"},
		"a part of the first head":     {false, "", "GET /echo HTTP/1.1\r\nHo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, test.withTLS, mux.Configure(func(c *mux.Config) {
				c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout = 0, 0, time.Minute
				c.HTTP1.HeaderTimeout = 2 * time.Minute
			}))
			conn := s.dial(t)
			_ = conn.SetDeadline(time.Time{})
			if test.before != "" {
				_ = roundTrip(t, conn, bufio.NewReader(conn), test.before).Body.Close()
				eventually(t, "idle", func() bool { return s.Connections()[0].State == "idle" })
			}
			before := s.Stats().Pools["http1"].BytesReceived
			send(t, conn, test.begun)
			eventually(t, "it was read", func() bool { return s.Stats().Pools["http1"].BytesReceived > before })
			if got := <-s.drain(t.Context()); got.err != nil {
				t.Error(got.err)
			}
		})
	}
}

// TestNextRequestBehindEarlyResponse: a client with a complete response sends its next
// request while the handler still runs. The drain tells clients to leave in between. The
// response did not tell this client, so its next request is served.
func TestNextRequestBehindEarlyResponse(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
		_ = http.NewResponseController(w).Flush()
		if string(body) == "one" {
			close(begun)
			<-end // It writes its audit log, say.
		}
	})
	bothForms(t, func(t *testing.T, s *server) {
		begun, end = make(chan struct{}), make(chan struct{})
		conn := s.dial(t, "http/1.1")
		r := bufio.NewReader(conn)
		post := func(body string) string {
			return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
		resp := roundTrip(t, conn, r, post("one"))
		if b, err := io.ReadAll(resp.Body); string(b) != "one" || err != nil || resp.Close {
			t.Fatalf("%q, %v, close %v", b, err, resp.Close)
		}
		within(t, "begun", begun)
		told, done := s.told(t), s.drain(t.Context())
		within(t, "told", told)
		send(t, conn, post("two"))
		eventually(t, "it is there", func() bool { return s.Connections()[0].BytesReceived > 0 })
		time.Sleep(50 * time.Millisecond)
		close(end)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("the next request, which was sent before the server had said a word of leaving: %v", err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "two" || !resp.Close {
			t.Errorf("%q, close %v", b, resp.Close)
		}
		<-done
	}, mux.WithHandler(handler))
}

// TestLateIdleEndsAtDrain: a kept-alive connection whose response ends after the drain
// has told all clients is idle then. It does not delay the drain.
func TestLateIdleEndsAtDrain(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-end
	})), mux.Configure(func(c *mux.Config) { c.Drain.Timeout = 8 * time.Second }))
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	within(t, "begun", begun)
	told, done := s.told(t), s.drain(t.Context())
	within(t, "told", told)
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	close(end)
	_, _ = io.Copy(io.Discard, resp.Body)
	got := <-done
	if took := time.Since(began); took > 2*time.Second || got.err != nil {
		t.Errorf("the drain waited %v for an idle connection: %v", took, got.err)
	}
}

// keptConn keeps what is written to it while holds is set.
type keptConn struct {
	net.Conn
	holds bool
	held  bytes.Buffer
}

func (c *keptConn) Write(p []byte) (int, error) {
	if c.holds {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

// received returns how many bytes the server has read from conn.
func (s *server) received(conn net.Conn) uint64 {
	for _, info := range s.Connections() {
		if info.RemoteAddr == conn.LocalAddr().String() {
			return info.BytesReceived
		}
	}
	return 0
}

// TestDrainServesHalfRecord: a request of which a part has arrived when the drain begins
// counts as begun, also under TLS, where a part of a record cannot be read yet.
func TestDrainServesHalfRecord(t *testing.T) {
	s := start(t, true, mux.Configure(patient))
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	kept := &keptConn{Conn: raw}
	conn := tls.Client(kept, &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1"})
	request := "GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 1000) + "\r\n\r\n"
	r := bufio.NewReader(conn)
	_ = roundTrip(t, conn, r, request).Body.Close()
	var others []net.Conn
	for range 8 {
		other := s.dial(t)
		_ = roundTrip(t, other, bufio.NewReader(other), request).Body.Close()
		others = append(others, other)
	}
	eventually(t, "all connections to be idle", func() bool {
		for _, info := range s.Connections() {
			if info.State != "idle" {
				return false
			}
		}
		return true
	})

	before := s.received(raw)
	kept.holds = true
	send(t, conn, request)
	record := kept.held.Bytes()
	half := record[:len(record)/2]
	send(t, raw, string(half))
	eventually(t, "the half to be there", func() bool { return s.received(raw) == before+uint64(len(half)) })
	drained := make(chan error, 1)
	go func() { drained <- s.Shutdown(context.Background()) }()
	for _, other := range others { // All are told at about the same time.
		_, _ = io.Copy(io.Discard, other)
	}
	send(t, raw, string(record[len(half):]))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("the request is lost: %v", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("%s, last of its connection %v; want 200 and the last", resp.Status, resp.Close)
	}
	_ = raw.Close()
	if err := within(t, "Shutdown", drained); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
