package mux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

func upgradesOn(c *mux.Config) { c.HTTP2.UpgradeH2C = true }

// upgradeFields ask for the upgrade, with the setting INITIAL_WINDOW_SIZE 65535.
const upgradeFields = "Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAQAAP__\r\n"

// upgrade asks for the upgrade by a request and opens HTTP/2 after the 101.
func (s *server) upgrade(t *testing.T, request string) (*h2Client, *bufio.Reader) {
	t.Helper()
	conn := s.dial(t)
	return upgradeConn(t, conn, bufio.NewReader(conn), request)
}

func upgradeConn(t *testing.T, conn net.Conn, r *bufio.Reader, request string) (*h2Client, *bufio.Reader) {
	t.Helper()
	resp := roundTrip(t, conn, r, request)
	got := []string{resp.Status, resp.Header.Get("Connection"), resp.Header.Get("Upgrade")}
	if diff := cmp.Diff([]string{"101 Switching Protocols", "Upgrade", "h2c"}, got); diff != "" {
		t.Fatalf("answer (-want +got):\n%s", diff)
	}
	return newH2Client(t, conn, r), r
}

// TestUpgradedH2CReason: an upgraded connection that its client closes has no timeout,
// although net/http ends a read of its own by a deadline when it is hijacked.
func TestUpgradedH2CReason(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn))
	events := observe(t, s.Server)
	conn := s.dial(t)
	c, _ := upgradeConn(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
	_ = c.rest(1)
	c.sync() // What is unread would make it a reset.
	_ = conn.Close()
	eventually(t, "closed by its peer", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "peer_closed") == 1 })
}

// TestUpgradeH2CSlowBody: the body of a request that asks for the upgrade has to come like
// any other.
func TestUpgradeH2CSlowBody(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn), impatient(protocols.ProgressConfig{ProgressTimeout: 100 * time.Millisecond}))
	conn := s.dial(t)
	send(t, conn, "POST /echo HTTP/1.1\r\n"+upgradeFields+"Content-Length: 5\r\n\r\nhel")
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	if got, err := io.ReadAll(conn); err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestUpgradeH2CStalledTail: a client that does not take the end of an answer keeps its
// connection no longer than by prior knowledge.
func TestUpgradeH2CStalledTail(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithHandler(movers(nil)), mux.Configure(upgradesOn), impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}))
	events := observe(t, s.Server)
	conn := s.dial(t)
	c, _ := upgradeConn(t, conn, bufio.NewReader(conn), "GET /small HTTP/1.1\r\n"+upgradeFields+"\r\n")
	_ = c.rest(1)
	c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	c.get(3, "/small")
	if code := c.goneAway(); code != http2.ErrCodeNo {
		t.Errorf("GOAWAY %v", code)
	}
	eventually(t, "closed", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "write_stalled") == 1 })
}

func TestUpgradeH2C(t *testing.T) {
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", 5000, strings.Repeat("c", 5000))
	tests := []struct{ name, before, request, method, body string }{
		{"GET", "", "GET /echo HTTP/1.1\r\n" + upgradeFields + "\r\n", "GET", ""},
		{"POST", "", "POST /echo HTTP/1.1\r\n" + upgradeFields + "Content-Length: 5\r\n\r\nhello", "POST", "hello"},
		{"chunked", "", "PUT /echo HTTP/1.1\r\n" + upgradeFields + chunked, "PUT", strings.Repeat("c", 5000)},
		{"longest body", "", "POST /echo HTTP/1.1\r\n" + upgradeFields + "Content-Length: 65536\r\n\r\n" + strings.Repeat("l", 65536), "POST", strings.Repeat("l", 65536)},
		{"second request", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", "GET /echo HTTP/1.1\r\n" + upgradeFields + "\r\n", "GET", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, false, mux.Configure(upgradesOn))
			conn := s.dial(t)
			r := bufio.NewReader(conn)
			if test.before != "" {
				_ = roundTrip(t, conn, r, test.before).Body.Close()
			}
			c, _ := upgradeConn(t, conn, r, test.request)
			for stream := range uint32(3) {
				stream, method, body := 2*stream+1, "GET", ""
				if stream == 1 {
					method, body = test.method, test.body
				} else {
					c.get(stream, "/echo")
				}
				h := c.header(stream)
				got := []string{h[":status"], h["x-method"], h["x-proto"], h["x-protocol"], c.rest(stream)}
				if diff := cmp.Diff([]string{"200", method, "HTTP/2.0", "http2", body}, got); diff != "" {
					t.Errorf("stream %d (-want +got):\n%s", stream, diff)
				}
			}
			if diff := cmp.Diff([]int64{0, 1}, []int64{s.active("http1"), s.active("http2")}); diff != "" {
				t.Errorf("pools (-want +got):\n%s", diff)
			}
			if got := s.Connections()[0].State; got != "upgraded" {
				t.Errorf("state %q", got)
			}
		})
	}
}

// TestUpgradeH2CSettings: an upgraded connection has the same limits as any other.
func TestUpgradeH2CSettings(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn), mux.Configure(func(c *mux.Config) {
		c.HTTP2.MaxStreams = 7
		c.HTTP2.StreamWindow = 1 << 17
	}))
	upgraded, _ := s.upgrade(t, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
	upgraded.header(1)
	conn := s.dial(t)
	direct := newH2Client(t, conn, conn)
	direct.get(1, "/echo")
	direct.header(1)
	for _, settings := range []map[http2.SettingID]uint32{upgraded.settings, direct.settings} {
		// The setting is about what the client may send. x/net and net/http have
		// different values.
		delete(settings, http2.SettingNoRFC7540Priorities)
	}
	if diff := cmp.Diff(direct.settings, upgraded.settings); diff != "" {
		t.Errorf("settings (-direct +upgraded):\n%s", diff)
	}
	if got := upgraded.settings[http2.SettingMaxConcurrentStreams]; got != 7 {
		t.Errorf("%d streams, want 7", got)
	}
}

// TestUpgradeH2CNotFollowed: a request whose upgrade is not allowed gets an HTTP/1.1
// response, and the connection goes on.
func TestUpgradeH2CNotFollowed(t *testing.T) {
	long := strings.Repeat("b", 70_000)
	tests := []struct {
		name, request, body string
		off, tls            bool
	}{
		{name: "off", off: true, request: "GET /echo HTTP/1.1\r\n" + upgradeFields + "\r\n"},
		{name: "TLS", tls: true, request: "GET /echo HTTP/1.1\r\n" + upgradeFields + "\r\n"},
		{name: "HTTP/1.0", request: "GET /echo HTTP/1.0\r\n" + strings.Replace(upgradeFields, "Connection: ", "Connection: keep-alive, ", 1) + "\r\n"},
		{name: "no settings", request: "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"},
		{name: "settings not in Connection", request: "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAQAAP__\r\n\r\n"},
		{name: "settings twice", request: "GET /echo HTTP/1.1\r\n" + upgradeFields + "HTTP2-Settings: AAQAAP__\r\n\r\n"},
		{name: "settings not base64url", request: "GET /echo HTTP/1.1\r\n" + strings.Replace(upgradeFields, "AAQAAP__", "AAQAAP//", 1) + "\r\n"},
		{name: "half a setting", request: "GET /echo HTTP/1.1\r\n" + strings.Replace(upgradeFields, "AAQAAP__", "AAQA", 1) + "\r\n"},
		{name: "h2", request: "GET /echo HTTP/1.1\r\n" + strings.Replace(upgradeFields, "Upgrade: h2c", "Upgrade: h2", 1) + "\r\n"},
		{name: "long body", request: "POST /echo HTTP/1.1\r\n" + upgradeFields + "Content-Length: 70000\r\n\r\n" + long, body: long},
		{name: "long chunked body", request: "POST /echo HTTP/1.1\r\n" + upgradeFields + "Transfer-Encoding: chunked\r\n\r\n11170\r\n" + long + "\r\n0\r\n\r\n", body: long},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, test.tls, mux.Configure(func(c *mux.Config) { c.HTTP2.UpgradeH2C = !test.off }))
			conn := s.dial(t, "http/1.1")
			r := bufio.NewReader(conn)
			for _, request := range []struct{ text, body string }{
				{test.request, test.body},
				{"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", ""},
			} {
				resp := roundTrip(t, conn, r, request.text)
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				got := []string{resp.Status, resp.Header.Get("X-Protocol"), resp.Header.Get("Upgrade"), string(body)}
				if diff := cmp.Diff([]string{"200 OK", "http1", "", request.body}, got); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestUpgradeH2CBadBody: the handler gets the part of a body before an invalid chunk.
func TestUpgradeH2CBadBody(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn))
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "POST /echo HTTP/1.1\r\n"+upgradeFields+"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nnot a chunk\r\n")
	if body, _ := io.ReadAll(resp.Body); string(body) != "ab" {
		t.Errorf("%s, %q", resp.Status, body)
	}
}

// TestUpgradeH2CInvalidSettings: invalid settings end the connection.
func TestUpgradeH2CInvalidSettings(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\n"+strings.Replace(upgradeFields, "AAQAAP__", "AAT_____", 1)+"\r\n")
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer %s", resp.Status)
	}
	f, err := http2.NewFramer(nil, r).ReadFrame()
	if goAway, ok := f.(*http2.GoAwayFrame); !ok || goAway.ErrCode != http2.ErrCodeProtocol {
		t.Errorf("%v, %v; want GOAWAY with PROTOCOL_ERROR", f, err)
	}
}

// TestDrainUpgradedH2C: an upgraded connection gets GOAWAY, its streams end, and it
// closes.
func TestDrainUpgradedH2C(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(upgradesOn))
	c, r := s.upgrade(t, "GET /slow HTTP/1.1\r\n"+upgradeFields+"\r\n")
	c.get(3, "/echo")
	c.header(3)
	done := s.drain(t.Context())
	if got := c.goneAway(); got != http2.ErrCodeNo {
		t.Errorf("GOAWAY %v", got)
	}
	if got := c.header(1)[":status"]; got != "200" {
		t.Errorf("status %q", got)
	}
	if got := c.rest(1); got != "slow" {
		t.Errorf("body %q", got)
	}
	// What the client has sent behind its last request may be unread: then it is a reset.
	if rest, err := io.ReadAll(r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the end: %q, %v", rest, err)
	}
	if got := <-done; got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}

// TestDrainForcesUpgradedH2C: the drain cuts and counts an upgraded connection that stays
// too long.
func TestDrainForcesUpgradedH2C(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	s := start(t, false, mux.Configure(upgradesOn),
		mux.Configure(func(c *mux.Config) { c.Drain.Timeout = 100 * time.Millisecond }),
		mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
		})))
	c, _ := s.upgrade(t, "GET / HTTP/1.1\r\n"+upgradeFields+"\r\n")
	<-begun
	report, err := s.Drain(t.Context())
	if !errors.Is(err, lifecycle.ErrForced) {
		t.Errorf("drain: %v, want ErrForced", err)
	}
	if diff := cmp.Diff(map[string]int{"http2": 1}, report.Forced); diff != "" {
		t.Errorf("forced (-want +got):\n%s", diff)
	}
	for {
		if _, err := c.ReadFrame(); err != nil {
			break
		}
	}
}

// TestUpgradeH2CWhileDraining: a client that asks for the upgrade after all clients were
// told to leave gets an HTTP/1.1 response.
func TestUpgradeH2CWhileDraining(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn))
	busy, idle := s.dial(t), s.dial(t)
	send(t, busy, "GET /echo HTTP/1.1\r\n")
	fromIdle := bufio.NewReader(idle)
	_ = roundTrip(t, idle, fromIdle, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	eventually(t, "one busy, one idle", func() bool {
		states := make(map[string]int)
		for _, c := range s.Connections() {
			states[c.State]++
		}
		return cmp.Equal(map[string]int{"active": 1, "idle": 1}, states)
	})
	done := s.drain(t.Context())
	if _, err := fromIdle.ReadByte(); err != io.EOF {
		t.Fatalf("idle connection: %v", err)
	}
	resp := roundTrip(t, busy, bufio.NewReader(busy), upgradeFields+"\r\n")
	if resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("%s, Connection: close is %v", resp.Status, resp.Close)
	}
	if got := <-done; got.err != nil {
		t.Errorf("drain: %v", got.err)
	}
}

// TestUpgradeH2CNeedsAPlace: without a place in the pool of HTTP/2 the request is served,
// and its connection stays in HTTP/1.1. A place that an upgrade did not need is free again.
func TestUpgradeH2CNeedsAPlace(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn), limits(func(c *mux.Config) { c.HTTP2.MaxConnections = 1 }))
	tooLong := "POST /echo HTTP/1.1\r\n" + upgradeFields + fmt.Sprintf("Content-Length: %d\r\n\r\n", 70_000) + strings.Repeat("l", 70_000)
	conn := s.dial(t)
	if resp := roundTrip(t, conn, bufio.NewReader(conn), tooLong); resp.StatusCode != http.StatusOK {
		t.Fatalf("too long: %s", resp.Status)
	}
	_ = conn.Close()
	eventually(t, "the end of the first connection", func() bool { return s.active("http1") == 0 })
	request := "GET /echo HTTP/1.1\r\n" + upgradeFields + "\r\n"
	first, _ := s.upgrade(t, request)
	_ = first.rest(1)
	other := s.dial(t)
	r := bufio.NewReader(other)
	for range 2 {
		resp := roundTrip(t, other, r, request)
		if _, _ = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusOK || resp.Header.Get("X-Protocol") != "http1" {
			t.Errorf("without a place: %s %v", resp.Status, resp.Header)
		}
	}
	eventually(t, "one of each", func() bool { return cmp.Equal(s.counts(), map[string]int64{"http1": 1, "http2": 1}) })
}

// TestUpgradeH2CBehindHandshake: a connection that begins with a request for both upgrades
// is in the pool of what it becomes.
func TestUpgradeH2CBehindHandshake(t *testing.T) {
	s := start(t, false, mux.Configure(upgradesOn), limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }))
	both := "GET /echo HTTP/1.1\r\n" + strings.NewReplacer("Upgrade: h2c", "Upgrade: h2c, websocket").Replace(upgradeFields)
	first := s.dial(t)
	c, _ := upgradeConn(t, first, bufio.NewReader(first), both+"\r\n")
	_ = c.rest(1)
	eventually(t, "HTTP/2", func() bool { return cmp.Equal(s.counts(), map[string]int64{"http2": 1}) })
	// Its body is too long for the upgrade, so it goes on in HTTP/1.1.
	long := both + "Content-Length: 70000\r\n\r\n" + strings.Repeat("l", 70_000)
	conns := []net.Conn{s.dial(t), s.dial(t)}
	for i, conn := range conns {
		resp := roundTrip(t, conn, bufio.NewReader(conn), long)
		if resp.StatusCode != http.StatusOK || resp.Close != (i > 0) {
			t.Errorf("%d: %s, close %t, %v", i, resp.Status, resp.Close, s.counts())
		}
	}
}

// TestIdleUpgradedH2CMakesRoom: a connection that was upgraded makes room like any other
// when it has no stream, and not before.
func TestIdleUpgradedH2CMakesRoom(t *testing.T) {
	for name, edit := range map[string]func(*mux.Config){
		"HTTP/2": func(c *mux.Config) { c.HTTP2.MaxConnections = 4 },
		"all":    func(c *mux.Config) { c.Limits.MaxConnections = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, false, mux.Configure(upgradesOn), limits(edit))
			events := observe(t, s.Server)
			first, _ := s.upgrade(t, "GET /busy HTTP/1.1\r\n"+upgradeFields+"\r\n")
			_ = first.header(1)
			second, _ := s.upgrade(t, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
			_ = second.rest(1)
			second.get(3, "/busy")
			_ = second.header(3)
			for range 2 {
				c, _ := s.upgrade(t, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
				_ = c.rest(1)
				c.must(c.WritePing(false, [8]byte{1})) // It is activity, but no reason to stay.
			}
			for range 6 {
				eventually(t, "one more is served", func() bool {
					resp, err := s.client(t, 2).Get("http://" + s.addr + "/echo")
					return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
				})
			}
			eventually(t, "two have made room, and more", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "made_room") >= 6 })
			for i, c := range []*h2Client{first, second} {
				c.get(5, "/echo")
				if got := c.header(5)[":status"]; got != "200" || c.goAway != nil {
					t.Errorf("busy one %d: %s, %v", i, got, c.goAway)
				}
			}
		})
	}
}

// TestUpgradedH2CIdle: an upgraded connection that has had no stream for the idle timeout ends
// behind a GOAWAY that names its last stream, and not before.
func TestUpgradedH2CIdle(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(upgradesOn), mux.Configure(func(c *mux.Config) { c.HTTP2.IdleTimeout = 200 * time.Millisecond }))
	events := observe(t, s.Server)
	busy, _ := s.upgrade(t, "GET /busy HTTP/1.1\r\n"+upgradeFields+"\r\n")
	_ = busy.header(1)
	idle, _ := s.upgrade(t, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
	_ = idle.rest(1)
	if code := idle.goneAway(); code != http2.ErrCodeNo || idle.goAway.LastStreamID != 1 {
		t.Errorf("GOAWAY %v, last stream %d", code, idle.goAway.LastStreamID)
	}
	eventually(t, "closed", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "idle_timeout") == 1 })
	busy.get(3, "/echo")
	if got := busy.header(3)[":status"]; got != "200" || busy.goAway != nil {
		t.Errorf("beside an open stream: status %s, GOAWAY %v", got, busy.goAway)
	}
}

// TestAgeEndsIdleUpgradedH2C: an idle upgraded connection that reaches its age is told its last
// stream, and stays open until the next sweep: what the client has sent meanwhile is answered.
func TestAgeEndsIdleUpgradedH2C(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(upgradesOn), mux.Configure(func(c *mux.Config) { c.HTTP2.MaxAge = time.Second }))
	const attempts = 10 // A busy machine may have the next sweep come first.
	for attempt := 1; ; attempt++ {
		c, _ := s.upgrade(t, "GET /echo HTTP/1.1\r\n"+upgradeFields+"\r\n")
		_ = c.rest(1)
		if code := c.goneAway(); code != http2.ErrCodeNo || c.goAway.LastStreamID != 1 {
			t.Fatalf("GOAWAY %v, last stream %d", code, c.goAway.LastStreamID)
		}
		_ = c.WritePing(false, [8]byte{'o', 'p', 'e', 'n'})
		for {
			f, err := c.ReadFrame()
			if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
				return
			}
			if err != nil {
				break
			}
		}
		if attempt == attempts {
			t.Fatal("each connection was closed behind its GOAWAY at once")
		}
	}
}

// TestUpgradedH2CLeavesNothing: nothing of an upgraded connection is kept behind its end, also
// where it ends with an open stream.
func TestUpgradedH2CLeavesNothing(t *testing.T) {
	t.Parallel()
	type value struct{ _ [100]byte } // No part of an allocation that others share.
	var mu sync.Mutex
	var values []weak.Pointer[value]
	type key struct{}
	s := start(t, false, mux.Configure(upgradesOn), mux.WithConnContext(func(ctx context.Context, _ net.Conn) context.Context {
		v := new(value)
		mu.Lock()
		defer mu.Unlock()
		values = append(values, weak.Make(v))
		return context.WithValue(ctx, key{}, v)
	}))
	for range 4 {
		conn := s.dial(t)
		c, _ := upgradeConn(t, conn, bufio.NewReader(conn), "GET /busy HTTP/1.1\r\n"+upgradeFields+"\r\n")
		_ = c.header(1)
		c.get(3, "/busy")
		_ = c.header(3)
		_ = conn.Close()
	}
	eventually(t, "all is free", func() bool {
		runtime.GC()
		mu.Lock()
		defer mu.Unlock()
		return len(values) == 4 && !slices.ContainsFunc(values, func(p weak.Pointer[value]) bool { return p.Value() != nil })
	})
}

// TestToldIsNotUpgraded: a client that was told to leave is answered in HTTP/1.1, and its
// connection closed.
func TestToldIsNotUpgraded(t *testing.T) {
	release := make(chan struct{})
	s := start(t, false, mux.Configure(upgradesOn), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			_ = http.NewResponseController(w).Flush()
			<-release
		}
	})))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	first := roundTrip(t, conn, r, "GET /first HTTP/1.1\r\nHost: x\r\n\r\n"+"GET / HTTP/1.1\r\n"+upgradeFields+"\r\n")
	if n := s.Disconnect(func(pool.Info) bool { return true }, time.Hour); n != 1 {
		t.Fatalf("%d connections were told", n)
	}
	close(release)
	if _, err := io.Copy(io.Discard, first.Body); err != nil {
		t.Fatal(err)
	}
	second, err := http.ReadResponse(r, nil)
	if err != nil || second.StatusCode != http.StatusOK || !second.Close {
		t.Errorf("%v, %v", second, err)
	}
}
