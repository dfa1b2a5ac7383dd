package admin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// serveBounded serves pages with a bound of the connections.
func serveBounded(t *testing.T, p *Pages) (srv *httptest.Server, conns *ConnLimiter) {
	t.Helper()
	conns = new(ConnLimiter)
	srv = httptest.NewUnstartedServer(p)
	srv.Config.ConnContext, srv.Config.ConnState = conns.Context, conns.State
	srv.Start()
	t.Cleanup(srv.Close)
	return srv, conns
}

// busy returns how many connections have a request that stays, or one that has to make room.
func (s *ConnLimiter) busy(stays bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		if c.active && c.stays.Load() == stays {
			n++
		}
	}
	return n
}

func (s *ConnLimiter) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// dialAdmin opens a connection with a small buffer and sends a request, or a part of one.
func dialAdmin(t *testing.T, srv *httptest.Server, request string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("still not so: " + what)
		}
	}
}

// TestConnsAreBounded: however many connections do nothing, or take their time, a probe is
// answered, and the first of them leaves. An event stream and a profile stay.
func TestConnsAreBounded(t *testing.T) {
	t.Parallel()
	maxConns := connLimit()
	const half = "POST /ready HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na"
	const probe = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, test := range map[string]struct {
		request  string
		answered bool
		busy     int
	}{
		"silent":        {"", false, 0},
		"within a head": {"GET /livez HTTP/1.1\r\n", false, 0},
		"idle":          {probe, true, 0},
		"within a body": {half, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := New(example(), Options{})
			p.bounds.body = time.Minute
			srv, conns := serveBounded(t, p)
			conns.newFor = 1
			answered := func(c net.Conn, r *bufio.Reader) {
				t.Helper()
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("%v, %v", resp, err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
			}
			watcher := bufio.NewReader(dialAdmin(t, srv, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"))
			if _, err := watcher.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			dialAdmin(t, srv, "GET /debug/pprof/goroutine?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
			eventually(t, "an event stream and a profile", func() bool { return conns.busy(true) == 2 })
			before := 2
			var busy net.Conn
			if test.busy == 0 { // Others leave before one with a request.
				before++
				busy = dialAdmin(t, srv, half)
				eventually(t, "a request is under way", func() bool { return conns.busy(false) == 1 })
			}
			first := dialAdmin(t, srv, test.request)
			if test.answered {
				answered(first, bufio.NewReader(first))
			}
			eventually(t, "the first one waits", func() bool { return conns.len() == before+1 && conns.busy(false) == 1 })
			for range maxConns - before - 1 {
				c := dialAdmin(t, srv, test.request)
				if test.answered {
					answered(c, bufio.NewReader(c))
				}
			}
			eventually(t, "all wait", func() bool {
				return conns.len() == maxConns && conns.busy(false) == max(1, test.busy*(maxConns-before))
			})
			for range 2 {
				c := dialAdmin(t, srv, probe)
				answered(c, bufio.NewReader(c))
			}
			if n := conns.len(); n > maxConns {
				t.Errorf("%d connections", n)
			}
			if _, err := io.Copy(io.Discard, first); err != nil && err.(net.Error).Timeout() {
				t.Error("the first one stays")
			}
			if n := conns.busy(true); n != 2 {
				t.Errorf("%d of two requests that take their time have stayed", n)
			}
			if busy != nil {
				_, _ = io.WriteString(busy, "b")
				if _, err := http.ReadResponse(bufio.NewReader(busy), nil); err != nil {
					t.Errorf("the request under way: %v", err)
				}
			}
			if _, err := watcher.ReadString('\n'); err != nil {
				t.Errorf("the watcher: %v", err)
			}
		})
	}
}

// TestNewConnsMayAsk: a client that has just come, and is far away, is not the first to leave,
// however many come with requests that they do not end.
func TestNewConnsMayAsk(t *testing.T) {
	t.Parallel()
	maxConns := connLimit()
	const half = "POST /ready HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na"
	p := New(example(), Options{})
	p.bounds.body = time.Minute
	srv, conns := serveBounded(t, p)
	conns.newFor = time.Minute
	flood := func(n int) {
		for range n {
			dialAdmin(t, srv, half)
		}
		eventually(t, "all are under way", func() bool { return conns.busy(false) >= min(n, maxConns-1) })
	}
	flood(maxConns)
	far := dialAdmin(t, srv, "")
	eventually(t, "it is there", func() bool { return conns.busy(false) < conns.len() })
	flood(maxConns / 2)
	_, _ = io.WriteString(far, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(far), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", resp, err)
	}
}

// TestOneClientKeepsNoOtherOut: connections of the client that has most of them leave first,
// however young they are.
func TestOneClientKeepsNoOtherOut(t *testing.T) {
	t.Parallel()
	srv, conns := serveBounded(t, New(example(), Options{}))
	conns.newFor = time.Minute
	probe := dialAdmin(t, srv, "")
	eventually(t, "it is there", func() bool { return conns.len() == 1 })
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range 2 * connLimit() {
		c, err := other.DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Skip("this system has one loopback address: ", err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	eventually(t, "the place is full", func() bool { return conns.len() == connLimit() })
	_, _ = io.WriteString(probe, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(probe), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", resp, err)
	}
}

// TestWhichConnLeaves: of any two connections in order, makeRoom closes the first.
func TestWhichConnLeaves(t *testing.T) {
	t.Parallel()
	const fair = 10
	many, few, fewer := 20, 9, 3
	begun := time.Now()
	conn := func(share *int, active bool, since time.Duration) *adminConn {
		return &adminConn{share: share, active: active, since: begun.Add(since)}
	}
	order := []*adminConn{
		conn(&fewer, false, -3*time.Second), // Without a request, for longest.
		conn(&many, false, -2*time.Second),
		conn(&few, false, -time.Second),
		conn(&many, true, -time.Second), // With one, or new: of who has many,
		conn(&many, false, time.Second),
		conn(&fewer, true, -4*time.Second), // and then for longest.
		conn(&few, true, -3*time.Second),
		conn(&few, false, time.Millisecond),
	}
	for i, a := range order {
		for j, b := range order {
			if got := a.leavesBefore(b, begun, fair); got != (i < j) {
				t.Errorf("%d leaves before %d: %t", i, j, got)
			}
		}
	}
}

// TestEndedConnsAreForgotten: connections that end leave nothing.
func TestEndedConnsAreForgotten(t *testing.T) {
	t.Parallel()
	srv, conns := serveBounded(t, New(example(), Options{}))
	for range 10 {
		_ = dialAdmin(t, srv, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").Close()
	}
	eventually(t, "no connection", func() bool {
		conns.mu.Lock()
		defer conns.mu.Unlock()
		return len(conns.all) == 0 && len(conns.clients) == 0
	})
}

// TestUnreadEvents: clients that do not read their event streams keep nobody out.
func TestUnreadEvents(t *testing.T) {
	t.Parallel()
	p := New(example(), Options{})
	p.bounds.event, p.bounds.events = 2*time.Second, 10*time.Millisecond
	srv, _ := serveBounded(t, p)
	for range maxStreams {
		dialAdmin(t, srv, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	eventually(t, "all streams are taken", func() bool {
		p.watchers.mu.Lock()
		defer p.watchers.mu.Unlock()
		return p.watchers.streams == maxStreams
	})
	eventually(t, "another watcher is served", func() bool {
		resp, err := http.ReadResponse(bufio.NewReader(dialAdmin(t, srv, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")), nil)
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

// TestMetricsOfClientsThatLeave: clients that leave before their metrics are made wait no more,
// beside many. Others may have ended their half of the connection alone, and get them.
func TestMetricsOfClientsThatLeave(t *testing.T) {
	t.Parallel()
	p := New(example(), Options{})
	left, leave := context.WithCancel(t.Context())
	leave()
	const more = 5
	p.turn <- struct{}{}
	answers := make(chan int, maxWaiting+more)
	for range cap(answers) {
		go func() {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequestWithContext(left, http.MethodGet, "http://localhost/metrics", nil))
			answers <- w.Code
		}()
	}
	for range more {
		if got := <-answers; got != http.StatusServiceUnavailable {
			t.Errorf("one that waits no more got %d", got)
		}
	}
	<-p.turn
	for range maxWaiting {
		if got := <-answers; got != http.StatusOK {
			t.Errorf("one that waits got %d", got)
		}
	}
}

// blockedWriter is a client that takes nothing before it is told to.
type blockedWriter struct {
	*httptest.ResponseRecorder
	begun, release chan struct{}
}

func (w blockedWriter) Write(p []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.release
	return w.ResponseRecorder.Write(p)
}

// TestMetricsAreMadeOnceAtATime: and clients that do not take them do not keep others from
// them.
func TestMetricsAreMadeOnceAtATime(t *testing.T) {
	t.Parallel()
	p := New(example(), Options{})
	for _, query := range []string{"", "?format=json"} {
		get := func(w http.ResponseWriter) <-chan struct{} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/metrics"+query, nil))
			}()
			return done
		}
		p.turn <- struct{}{}
		waits := httptest.NewRecorder()
		waiter := get(waits)
		select {
		case <-waiter:
			t.Error("two at a time")
		case <-time.After(100 * time.Millisecond): // What is under test is time.
		}
		<-p.turn
		<-waiter
		blocked := blockedWriter{httptest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
		slow := get(blocked)
		<-blocked.begun
		after := httptest.NewRecorder()
		<-get(after)
		close(blocked.release)
		<-slow
		for _, w := range []*httptest.ResponseRecorder{waits, blocked.ResponseRecorder, after} {
			if w.Code != http.StatusOK || w.Body.Len() < 500 {
				t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
			}
		}
	}
}
