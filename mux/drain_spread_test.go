package mux_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

const (
	// spreadTime is the spread of these drains, and spreadClients the number of clients.
	spreadTime    = time.Second
	spreadClients = 60
	// stillTime is longer than a connection must be idle to be closed at its moment of
	// the spread.
	stillTime = 600 * time.Millisecond
)

// checkSpread expects moments, since the drain began, all over the spread. No tenth of
// it, wherever it begins, may hold more than three times its share. Together they must
// cover more than half of it.
func checkSpread(t *testing.T, what string, moments []time.Duration) {
	t.Helper()
	slices.Sort(moments)
	const stretch, most = spreadTime / 10, 3 * spreadClients / 10
	busiest, first := 0, 0
	for last, at := range moments {
		for at-moments[first] >= stretch {
			first++
		}
		busiest = max(busiest, last-first+1)
	}
	if busiest > most {
		t.Errorf("%s: %d of %d within %v, want at most %d", what, busiest, len(moments), stretch, most)
	}
	last := moments[len(moments)-1]
	if reach := last - moments[0]; reach <= spreadTime/2 {
		t.Errorf("%s: all within %v of a spread of %v", what, reach, spreadTime)
	}
	if last > spreadTime {
		t.Errorf("%s: one only after %v, with a spread of %v", what, last, spreadTime)
	}
}

// spreadServer serves on pipes in a synctest bubble, so that the moments are exact.
func spreadServer(t *testing.T, f func(*testing.T, *server, *pipeListener)) {
	t.Helper()
	timed(t, func() *mux.Server {
		return mux.New(mux.WithHandler(routes()), mux.WithLogger(discard), mux.Configure(patient),
			mux.Configure(func(c *mux.Config) { c.Drain.Spread = spreadTime }))
	}, (*mux.Server).Serve, func(t *testing.T, m *mux.Server, l *pipeListener) {
		f(t, &server{Server: m}, l)
	})
}

// TestIdleHTTP1Spread: the server closes idle HTTP/1.1 connections at moments all over
// the spread, so that clients do not reconnect all at once.
func TestIdleHTTP1Spread(t *testing.T) {
	spreadServer(t, func(t *testing.T, s *server, l *pipeListener) {
		var began time.Time
		moments := make([]time.Duration, spreadClients)
		var wg sync.WaitGroup
		for i := range moments {
			conn := l.dial()
			defer conn.Close()
			r := bufio.NewReader(conn)
			resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, resp.Body)
			wg.Go(func() {
				if n, err := io.Copy(io.Discard, r); n != 0 || err != nil {
					t.Errorf("client %d: %d bytes and %v for an end", i, n, err)
				}
				moments[i] = time.Since(began)
			})
		}
		time.Sleep(stillTime) // The bubble's clock alone; see moments.FreshTime.
		began = time.Now()
		if got := <-s.drain(t.Context()); got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
		wg.Wait()
		checkSpread(t, "closed", moments)
	})
}

// TestFreshHTTP1AtEndOfSpread: an HTTP/1.1 connection that just had a request stays until
// the end of the spread, unless a response tells it to leave. Its next request would be
// sent into the close.
func TestFreshHTTP1AtEndOfSpread(t *testing.T) {
	spreadServer(t, func(t *testing.T, s *server, l *pipeListener) {
		conn := l.dial()
		defer conn.Close()
		r := bufio.NewReader(conn)
		const request = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
		_, _ = io.Copy(io.Discard, roundTrip(t, conn, r, request).Body)
		began := time.Now()
		done := s.drain(t.Context())
		// The client asks far more often than moments.FreshTime and gets an answer each time.
		const pace = spreadTime / 20
		for {
			time.Sleep(pace)
			if _, err := io.WriteString(conn, request); err != nil {
				// Its moment of the spread came behind the last request but one.
				if at := time.Since(began); at < spreadTime {
					t.Fatalf("closed within %v of a spread of %v", at, spreadTime)
				}
				break
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			if resp.Close {
				break
			}
			if time.Since(began) > spreadTime+pace {
				t.Fatal("not told to leave within the spread")
			}
		}
		if got := <-done; got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
	})
}

// TestIdleHTTP2Spread: idle HTTP/2 connections get their first GOAWAY at moments all over
// the spread. It refuses no stream. The second GOAWAY names the last stream.
func TestIdleHTTP2Spread(t *testing.T) {
	spreadServer(t, func(t *testing.T, s *server, l *pipeListener) {
		var began time.Time
		moments := make([]time.Duration, spreadClients)
		lasts := make([][]uint32, spreadClients)
		var wg sync.WaitGroup
		for i := range moments {
			conn := l.dial()
			defer conn.Close()
			c := pipeHTTP2(t, conn)
			c.get(1, "/echo")
			c.header(1)
			wg.Go(func() {
				lasts[i], _ = c.goAways(func(seen int) {
					if seen == 1 {
						moments[i] = time.Since(began)
					}
				})
			})
		}
		time.Sleep(stillTime)
		synctest.Wait()
		began = time.Now()
		if got := <-s.drain(t.Context()); got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
		wg.Wait()
		for i, last := range lasts {
			if diff := cmp.Diff([]uint32{maxStream, 1}, last); diff != "" {
				t.Errorf("client %d: GOAWAY (-want +got):\n%s", i, diff)
			}
		}
		checkSpread(t, "told", moments)
	})
}

// TestStreamHandshakeBeforeTold: a client that has not been told to leave may open a
// WebSocket over HTTP/2.
func TestStreamHandshakeBeforeTold(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	s := start(t, false, mux.Configure(overHTTP2), mux.Configure(func(c *mux.Config) { c.Drain.Spread = 3 * time.Second }))
	const clients = 6
	var all []*h2Client
	for range clients {
		c := s.http2(t)
		c.get(1, "/echo")
		c.header(1)
		all = append(all, c)
	}
	ctx, force := context.WithCancel(t.Context())
	defer force()
	done := s.drain(ctx)
	s.stopsListening(t)
	time.Sleep(20 * time.Millisecond)
	for i, c := range all {
		if c.goAway != nil {
			continue
		}
		c.connect(3, "/ws", "origin", "http://x")
		if got := c.header(3)[":status"]; got != "200" {
			t.Errorf("client %d, which was not told before: status %s", i, got)
		}
	}
	force()
	<-done
}

// TestWebSocketBeforeTold: during the spread, a client that has not been told to leave
// may open a WebSocket.
func TestWebSocketBeforeTold(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Drain.Spread = 4 * time.Second }))
	const clients = 10
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = s.dial(t)
		_ = roundTrip(t, conns[i], bufio.NewReader(conns[i]), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	}
	done := s.drain(t.Context())
	s.stopsListening(t)
	refused, served, gone := 0, 0, 0
	for _, conn := range conns {
		if _, err := io.WriteString(conn, handshake); err != nil {
			gone++
			continue
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		switch {
		case err != nil:
			gone++
		case resp.StatusCode == http.StatusSwitchingProtocols:
			served++
		default:
			refused++
		}
		_ = conn.Close()
	}
	t.Logf("served %d, refused %d, gone %d", served, refused, gone)
	if refused > 0 {
		t.Errorf("%d handshakes were refused with 503", refused)
	}
	<-done
}

// TestIdleHTTP2HearsLastStream: idle HTTP/2 connections get both GOAWAYs.
func TestIdleHTTP2HearsLastStream(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		const clients = 40
		var mu sync.Mutex
		seen := make(map[string]int)
		var wg sync.WaitGroup
		ready := make(chan struct{}, clients)
		for range clients {
			conn := s.dial(t, "h2")
			c := newH2Client(t, conn, conn)
			c.get(1, "/echo")
			c.header(1)
			wg.Go(func() {
				ready <- struct{}{}
				last, _ := c.goAways(nil)
				mu.Lock()
				seen[fmt.Sprint(last)]++
				mu.Unlock()
			})
		}
		for range clients {
			<-ready
		}
		got := <-s.drain(t.Context())
		wg.Wait()
		if got.err != nil {
			t.Error(got.err)
		}
		if want := fmt.Sprintf("[%d 1]", maxStream); seen[want] != clients {
			t.Errorf("GOAWAYs %v, want %s for all", seen, want)
		}
	})
}

// TestSpreadBeyondTimeout: a spread above drain.timeout is shortened. Every client is
// told, and no idle connection is cut.
func TestSpreadBeyondTimeout(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.Drain.Spread = time.Hour
		c.Drain.Timeout = 2 * time.Second
	}))
	const each = 5
	var closed atomic.Int64
	var wg sync.WaitGroup
	for range each {
		conn := s.dial(t)
		_ = roundTrip(t, conn, bufio.NewReader(conn), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
		ws := s.webSocket(t)
		wg.Go(func() {
			_, _, err := ws.Read(t.Context())
			if websocket.CloseStatus(err) == websocket.StatusGoingAway {
				closed.Add(1)
			}
		})
	}
	got := <-s.drain(t.Context())
	wg.Wait()
	if n := closed.Load(); n != each {
		t.Errorf("%d of %d WebSockets were told 1001", n, each)
	}
	if got.report.ForcedTotal() != 0 {
		t.Errorf("forced %v: %v", got.report.Forced, got.err)
	}
}
