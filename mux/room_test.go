package mux_test

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// TestIdleMakesRoom: where a limit is full, the connection that has been idle longest
// leaves for one that comes. A request that crosses its leaving is served.
func TestIdleMakesRoom(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*mux.Config){
		"HTTP/1.1":   func(c *mux.Config) { c.HTTP1.MaxConnections = 3 },
		"all":        func(c *mux.Config) { c.Limits.MaxConnections = 3 },
		"all, wait":  func(c *mux.Config) { c.Limits.MaxConnections, c.Limits.OnLimit = 3, pool.Wait },
		"both again": func(c *mux.Config) { c.HTTP1.MaxConnections, c.Limits.MaxConnections = 3, 3 },
		"a client's": func(c *mux.Config) { c.Limits.PerAddress = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothForms(t, func(t *testing.T, s *server) {
				events := observe(t, s.Server)
				busy := s.busy(t)
				first := s.hold(t)
				second := s.hold(t)
				// The second had its last request before the first.
				r := bufio.NewReader(first)
				eventually(t, "the first was busy later", func() bool {
					if resp := roundTrip(t, first, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
						t.Fatal(resp.Status)
					}
					all := s.Accounts()
					slices.SortFunc(all, func(a, b *pool.Conn) int { return cmp.Compare(a.ID(), b.ID()) })
					return all[1].LastActivity().After(all[2].LastActivity())
				})
				s.hold(t)
				eventually(t, "the second is closed", func() bool { return events.count(mux.EventRemoved, protocols.HTTP1, "made_room") == 1 })
				if n, err := second.Read(make([]byte, 1)); n > 0 || err == nil {
					t.Errorf("the second: %d bytes, %v", n, err)
				}
				if resp := roundTrip(t, first, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK || resp.Close {
					t.Errorf("the first: %s, close %t", resp.Status, resp.Close)
				}
				// Of fresh ones too, one after the other. The busy one stays.
				for range 10 {
					s.hold(t)
				}
				eventually(t, "no more than the limit", func() bool { return s.active("http1") == 3 })
				eventually(t, "eleven have made room", func() bool { return events.count(mux.EventRemoved, protocols.HTTP1, "made_room") == 11 })
				_ = busy.Close()
				eventually(t, "two", func() bool { return s.active("http1") == 2 })
			}, limits(edit), limits(func(c *mux.Config) { c.HTTP2.MaxAgeGrace = 80 * time.Millisecond })) // It sweeps often.
		})
	}
}

// TestLoweredLimitMakesRoom: connections above a limit that was lowered stay until others
// come, and as many of them leave then as there are too many.
func TestLoweredLimitMakesRoom(t *testing.T) {
	t.Parallel()
	const open, limit = 12, 3
	for name, edit := range map[string]func(*mux.Config){
		"HTTP/1.1":   func(c *mux.Config) { c.HTTP1.MaxConnections = limit },
		"all":        func(c *mux.Config) { c.Limits.MaxConnections = limit },
		"all, wait":  func(c *mux.Config) { c.Limits.MaxConnections, c.Limits.OnLimit = limit, pool.Wait },
		"a client's": func(c *mux.Config) { c.Limits.PerAddress = limit },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, limits(func(c *mux.Config) { // It counts clients from the start, and sweeps often.
				c.Limits.PerAddress, c.HTTP2.MaxAgeGrace = 100, 80*time.Millisecond
			}))
			busy := s.busy(t)
			defer busy.Close()
			for range open {
				s.hold(t)
			}
			s.reload(t, edit)
			if n := s.active("http1"); n != 1+open {
				t.Errorf("%d connections are open when nobody has come, want %d", n, 1+open)
			}
			s.hold(t)
			eventually(t, "no more than the limit", func() bool { return s.active("http1") == limit })
		})
	}
}

// TestIdleHTTP2MakesRoom: clients of HTTP/2 and gRPC are told by GOAWAY, and lose no
// request.
func TestIdleHTTP2MakesRoom(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP2.MaxConnections, c.GRPC.MaxConnections = 1, 1 }))
	conn := s.dial(t)
	first := newH2Client(t, conn, conn)
	first.get(1, "/echo")
	_ = first.header(1)
	eventually(t, "idle", func() bool { return s.Connections()[0].State == "idle" })
	if resp, err := s.client(t, 2).Get("http://" + s.addr + "/echo"); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the second: %v, %v", resp, err)
	}
	first.get(3, "/echo") // It crosses the GOAWAY.
	if got := first.header(3)[":status"]; got != "200" {
		t.Errorf("a request that crosses the GOAWAY: %s", got)
	}
	if got := first.goneAway(); got != http2.ErrCodeNo {
		t.Errorf("GOAWAY %v", got)
	}
	a, b := testpb.NewTestServiceClient(s.grpcClient(t)), testpb.NewTestServiceClient(s.grpcClient(t))
	for range 10 {
		for i, c := range []testpb.TestServiceClient{a, b} {
			if _, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			eventually(t, "idle", func() bool { return s.Stats().Requests["grpc"].InFlight == 0 })
		}
	}
}

// TestLastingMakeRoom: clients that were told to make room, and go on with requests that
// last, keep nobody out.
func TestLastingMakeRoom(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		s.SetLeaving(2, 0)
		var lasting []*h2Client
		for range 2 {
			conn := s.dial(t, "h2")
			c := newH2Client(t, conn, conn)
			c.get(1, "/echo")
			_ = c.header(1)
			lasting = append(lasting, c)
		}
		s.hold(t)
		s.hold(t)
		// One of them was told its last stream, because they are half of all that may leave.
		first, second := lasting[0], lasting[1]
		first.get(3, "/busy") // It crosses the GOAWAY.
		if got := first.header(3)[":status"]; got != "200" {
			t.Errorf("a request that crosses the GOAWAY: %s", got)
		}
		for second.goAway == nil {
			second.step()
		}
		if last := second.goAway.LastStreamID; last != 1 {
			t.Errorf("the last stream is %d", last)
		}
		s.hold(t)
		s.hold(t)
	}, limits(func(c *mux.Config) { c.Limits.MaxConnections = 2 }))
}

// TestLastingMayBecomeWebSocket: a connection that has become a WebSocket since the search
// for those that go on with requests is not cut.
func TestLastingMayBecomeWebSocket(t *testing.T) {
	s := start(t, false)
	ws := s.webSocket(t)
	eventually(t, "the pool", func() bool { return s.active("websocket") == 1 })
	if s.CutLasting(s.Accounts()[0]) {
		t.Error("it was cut")
	}
	if err := ws.Ping(ws.CloseRead(t.Context())); err != nil {
		t.Error(err)
	}
}

// TestToldBecomesNoWebSocket: a connection that has given up its place among all becomes no
// WebSocket, which would be there above the limit for as long as it likes.
func TestToldBecomesNoWebSocket(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		s.SetFresh(time.Hour)
		s.busy(t)
		first := s.hold(t)
		eventually(t, "idle", func() bool {
			return slices.ContainsFunc(s.Connections(), func(c mux.ConnInfo) bool { return c.State == "idle" })
		})
		s.hold(t) // The first is fresh, and not closed: its client may have a request on the way.
		resp := roundTrip(t, first, bufio.NewReader(first), "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
			t.Errorf("%s, closed %t", resp.Status, resp.Close)
		}
		eventually(t, "no more than the limit", func() bool { return len(s.Accounts()) == 2 })
	}, limits(func(c *mux.Config) { c.Limits.MaxConnections = 2 }))
}

// TestGoneMakeRoom: clients that have gone, behind a byte of a next request that hides it from
// net/http, keep nobody out for as long as their handlers run.
func TestGoneMakeRoom(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	for name, leave := range map[string]func(*net.TCPConn) error{
		"reset": func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
		"end":   (*net.TCPConn).CloseWrite,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{}) // The handlers do not see that their clients have gone.
			handler := http.NewServeMux()
			handler.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush()
				<-release
			})
			handler.HandleFunc("/echo", func(http.ResponseWriter, *http.Request) {})
			s := start(t, false, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 2 }), mux.WithHandler(handler),
				mux.Configure(func(c *mux.Config) { c.HTTP2.MaxAgeGrace = 80 * time.Millisecond })) // It sweeps often.
			for range 2 {
				conn := s.busy(t)
				received := func() (n uint64) {
					for _, a := range s.Accounts() {
						n += a.Received()
					}
					return n
				}
				before := received()
				send(t, conn, "G")
				eventually(t, "net/http has it", func() bool { return received() == before+1 })
				if err := leave(conn.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "another client is served", func() bool { return s.status(t, "/echo") == http.StatusOK })
			close(release)
		})
	}
}

// TestYoungUndecidedStay: an HTTP/2 client that has just connected, and waits for the server's
// SETTINGS as gRPC's libraries do, leaves behind connections that are idle.
func TestYoungUndecidedStay(t *testing.T) {
	t.Parallel()
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 8 }))
	s.SetPatience(time.Hour, time.Hour)
	events := observe(t, s.Server)
	for range 7 {
		s.hold(t)
	}
	eventually(t, "all are idle", func() bool {
		return !slices.ContainsFunc(s.Connections(), func(c mux.ConnInfo) bool { return c.State != "idle" })
	})
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.sync()
	s.hold(t)
	eventually(t, "an idle one has made room", func() bool { return events.count(mux.EventRemoved, protocols.HTTP1, "made_room") == 1 })
	c.get(1, "/echo")
	if got := c.header(1)[":status"]; got != "200" {
		t.Errorf("status %s", got)
	}
}

// TestUndecidedBesideSilence: where the server is not full, an HTTP/2 client that has sent no
// request yet does not leave for connections that are silent. It does not either while it may
// be within its first round trips.
func TestUndecidedBesideSilence(t *testing.T) {
	for name, form := range map[string]struct {
		slow            time.Duration
		silent, clients int
	}{
		"silent ones": {0, 3, 1},
		"young":       {time.Hour, 0, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 8 })) // A quarter is 2.
			s.SetPatience(time.Hour, form.slow)
			for range form.silent {
				s.dial(t)
			}
			var clients []*h2Client
			for range form.clients {
				conn := s.dial(t)
				c := newH2Client(t, conn, conn)
				c.sync()
				clients = append(clients, c)
			}
			s.hold(t)
			for _, c := range clients {
				c.get(1, "/echo")
				if got := c.header(1)[":status"]; got != "200" || c.goAway != nil {
					t.Errorf("status %s, %v", got, c.goAway)
				}
			}
		})
	}
}

// TestUndecidedAboveShare: of undecided clients only those leave that are too many, however many
// silent connections follow.
func TestUndecidedAboveShare(t *testing.T) {
	const share, clients = 4, 6
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 4 * share }))
	s.SetPatience(time.Hour, time.Hour) // All are young.
	var all []*h2Client
	for range clients {
		conn := s.dial(t)
		c := newH2Client(t, conn, conn)
		c.sync()
		all = append(all, c)
	}
	s.SetPatience(time.Hour, 0)
	for range clients {
		s.dial(t)
		time.Sleep(20 * time.Millisecond) // A search rests behind another one.
	}
	s.hold(t)
	left := 0
	for _, info := range s.Connections() {
		if info.BytesReceived > 0 && info.Requests == 0 {
			left++
		}
	}
	if left != share-1 {
		t.Errorf("%d of %d are left, want %d", left, clients, share-1)
	}
	for _, c := range all[clients-left:] {
		c.get(1, "/echo")
		if got := c.header(1)[":status"]; got != "200" {
			t.Errorf("status %s", got)
		}
	}
}

// TestUndecidedMakeRoom: undecided connections go first where places run out, by a GOAWAY
// without an error, and never take more than their share.
func TestUndecidedMakeRoom(t *testing.T) {
	undecided := func(t *testing.T, s *server) *h2Client {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		for c.settings == nil {
			c.step()
		}
		c.must(c.WritePing(false, [8]byte{1})) // The answer shows that the server waits.
		for {
			f, err := c.ReadFrame()
			c.must(err)
			if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
				return c
			}
		}
	}
	for name, test := range map[string]struct{ total, busy, undecided, gone int }{
		"share": {16, 0, 7, 4},
		"full":  {8, 7, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bothForms(t, func(t *testing.T, s *server) {
				if name == "share" {
					s.SetPatience(time.Hour, 0) // None is too young.
				}
				var clients []*h2Client
				for range test.busy {
					s.busy(t)
				}
				for range test.undecided {
					clients = append(clients, undecided(t, s))
				}
				s.hold(t)
				for _, c := range clients[:test.gone] {
					if got := c.goneAway(); got != http2.ErrCodeNo {
						t.Errorf("GOAWAY %v", got)
					}
				}
				for _, c := range clients[test.gone:] {
					c.get(1, "/echo")
					if got := c.header(1)[":status"]; got != "200" || c.goAway != nil {
						t.Errorf("one within the share: %s, %v", got, c.goAway)
					}
				}
			}, limits(func(c *mux.Config) { c.Limits.MaxConnections = test.total }))
		})
	}
}

// TestMuteMakeRoom: a client that stops within what comes before its first request, or
// within the head of a request, keeps nobody out. One that goes on has its answer.
func TestMuteMakeRoom(t *testing.T) {
	t.Parallel()
	const total = 3
	hello := "\x16\x03\x01\x02\x00\x01" // the beginning of a ClientHello
	head := "GET /echo HTTP/1.1\r\nHost: x\r\n"
	tests := map[string]struct {
		opening, mode   string
		withTLS, second bool
		limit           func(*mux.Config) *int
	}{
		"silent":               {},
		"method":               {opening: "GE"},
		"request line":         {opening: "GET /echo HTTP/1.1\r\n"},
		"HTTP/1.1, its limit":  {opening: head, limit: func(c *mux.Config) *int { return &c.HTTP1.MaxConnections }},
		"second head":          {opening: head, second: true},
		"HTTP/2 preface":       {opening: http2.ClientPreface[:10]},
		"HTTP/2 frame":         {opening: http2.ClientPreface + "\x00\x00\x06\x04\x00"},
		"PROXY header":         {opening: "PROXY TCP4 127", mode: listeners.ProxyOptional},
		"TLS, silent":          {withTLS: true},
		"TLS, a record's head": {withTLS: true, opening: hello},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listeners.Config{}
			if test.mode != "" {
				l = behindProxy(test.mode, "127.0.0.0/8")
			}
			s := startOn(t, test.withTLS, []listeners.Config{l}, limits(func(c *mux.Config) {
				c.Sniff.Timeout, c.Sniff.TLSTimeout, c.HTTP1.HeaderTimeout = time.Minute, time.Minute, time.Minute
				most := &c.Limits.MaxConnections
				if test.limit != nil {
					most = test.limit(c)
				}
				*most = total
			}))[0]
			s.SetPatience(100*time.Millisecond, time.Hour)
			busy := s.busy(t)
			var mute []net.Conn
			for range total - 1 {
				conn, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				if test.second {
					_ = roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
				}
				send(t, conn, test.opening)
				mute = append(mute, conn)
			}
			eventually(t, "they are there", func() bool {
				return len(s.Connections()) == total && (test.limit == nil || s.active("http1") == total)
			})
			began := time.Now()
			eventually(t, "one more is served", func() bool {
				resp, err := s.client(t, 1).Get(map[bool]string{false: "http://", true: "https://"}[test.withTLS] + s.addr + "/echo")
				if err == nil {
					_ = resp.Body.Close()
				}
				return err == nil && resp.StatusCode == http.StatusOK
			})
			eventually(t, "one has made room", func() bool {
				closed := s.Stats().Closed
				return closed["sniffing"]["made_room"]+closed["http1"]["made_room"] > 0
			})
			if test.opening == head && !test.second { // Those were told while they were idle.
				first := mute[0]
				send(t, first, "\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(first), nil)
				switch {
				case err != nil && time.Since(began) < time.Second: // From then on the server may close it.
					t.Errorf("one that goes on: %v", err)
				case err == nil && resp.StatusCode != http.StatusOK:
					t.Errorf("one that goes on: %s", resp.Status)
				}
			}
			_ = busy.Close()
		})
	}
}

// slowConn writes the first bytes at once, and then one byte after the other, so that its
// client is never mute. It does so until it is closed.
type slowConn struct {
	net.Conn
	slow atomic.Bool
}

const slowPace = 40 * time.Millisecond

// Write implements [net.Conn].
func (c *slowConn) Write(p []byte) (int, error) {
	if !c.slow.Load() {
		return c.Conn.Write(p)
	}
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		time.Sleep(slowPace) // What is under test is time.
	}
	return len(p), nil
}

// dialSlow opens a connection that is slow from the moment at which the test says so, past
// its TLS handshake where handshake says so.
func (s *server) dialSlow(t *testing.T, handshake bool) (conn net.Conn, slow *slowConn) {
	t.Helper()
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	slow = &slowConn{Conn: raw}
	if !handshake {
		return slow, slow
	}
	return tls.Client(slow, &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1", DynamicRecordSizingDisabled: true}), slow
}

// TestSlowMakeRoom: a client that sends what comes before its first request, or the head of
// a request, byte by byte and never ends keeps nobody out.
func TestSlowMakeRoom(t *testing.T) {
	t.Parallel()
	const total = 3
	head := "GET /echo HTTP/1.1\r\nHost: x\r\nX: "
	long := strings.Repeat("a", 16000) // More than a test can send.
	zeros := strings.Repeat("\x00", 16000)
	settings := http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	all := func(c *mux.Config) *int { return &c.Limits.MaxConnections }
	http1 := func(c *mux.Config) *int { return &c.HTTP1.MaxConnections }
	tests := map[string]struct {
		opening, rest, mode string
		withTLS, handshake  bool // The handshake comes before the opening.
		second              bool // A request of HTTP/1.1 does.
		wait                bool
		limit               func(*mux.Config) *int
	}{
		"method":               {rest: long, limit: all},
		"request line":         {opening: "GET /", rest: long, limit: all},
		"head":                 {opening: head, rest: long, limit: all},
		"head, wait":           {opening: head, rest: long, limit: all, wait: true},
		"head, its limit":      {opening: head, rest: long, limit: http1},
		"second head":          {opening: head, rest: long, limit: http1, second: true},
		"second head over TLS": {opening: head, rest: long, limit: http1, second: true, withTLS: true, handshake: true},
		"WebSocket":            {opening: strings.TrimSuffix(handshake, "\r\n") + "X: ", rest: long, limit: http1},
		"HTTP/2 preface":       {opening: http2.ClientPreface + "\x00\x3e\x82\x04\x00\x00\x00\x00\x00", rest: zeros, limit: all},
		"HTTP/2 HEADERS":       {opening: settings + "\x00\x3e\x82\x01\x00\x00\x00\x00\x01", rest: zeros, limit: all},
		"HTTP/2 CONTINUATION": {
			opening: settings + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" + "\x00\x3e\x82\x09\x00\x00\x00\x00\x01", rest: zeros, limit: all,
		},
		"PROXY header": {
			opening: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x01\x00", rest: zeros, mode: listeners.ProxyOptional, limit: all,
		},
		"TLS handshake": {opening: "\x16\x03\x01\x3e\x82\x01", rest: zeros, withTLS: true, limit: all},
		"TLS record":    {rest: head + long, withTLS: true, handshake: true, limit: all},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listeners.Config{}
			if test.mode != "" {
				l = behindProxy(test.mode, "127.0.0.0/8")
			}
			s := startOn(t, test.withTLS, []listeners.Config{l}, limits(func(c *mux.Config) {
				c.Sniff.Timeout, c.Sniff.TLSTimeout, c.HTTP1.HeaderTimeout = time.Hour, time.Hour, time.Hour
				*test.limit(c) = total
				if test.wait {
					c.Limits.OnLimit = pool.Wait
				}
			}))[0]
			busy := s.busy(t)
			var left atomic.Int32
			var writers sync.WaitGroup
			t.Cleanup(writers.Wait)
			for range total - 1 {
				conn, slow := s.dialSlow(t, test.handshake)
				if test.second {
					_ = roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
				} else if c, ok := conn.(*tls.Conn); ok {
					if err := c.Handshake(); err != nil {
						t.Fatal(err)
					}
				}
				send(t, conn, test.opening)
				slow.slow.Store(true)
				writers.Go(func() {
					_, _ = io.WriteString(conn, test.rest)
					left.Add(1)
				})
			}
			eventually(t, "all have come", func() bool { return s.Stats().Pools["sniffing"].Accepted == total })
			eventually(t, "newcomers are served, until no slow one is left", func() bool {
				time.Sleep(slowPace)     // The slow ones have sent a byte each.
				client := s.client(t, 1) // Another connection.
				client.Timeout = 5 * time.Second
				resp, err := client.Get(s.scheme() + "://" + s.addr + "/echo")
				if err == nil {
					_ = resp.Body.Close()
				}
				return err == nil && resp.StatusCode == http.StatusOK && left.Load() == total-1
			})
			_ = busy.Close()
		})
	}
}

// TestSlowIsServed: a client that sends a head slowly has its answer, where another
// connection has been idle for longer, or there is room.
func TestSlowIsServed(t *testing.T) {
	t.Parallel()
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 3 }))
	s.SetPatience(time.Hour, time.Second) // It is not mute, however busy the machine is.
	idle := s.hold(t)
	conn, slow := s.dialSlow(t, false)
	send(t, conn, "GET /echo HTTP/1.1\r\nHost: x\r\nX: ")
	slow.slow.Store(true)
	send(t, conn, strings.Repeat("a", int(3*time.Second/slowPace)))
	s.hold(t)
	s.hold(t)
	if n, err := idle.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("the idle one: %d bytes, %v", n, err)
	}
	if resp := roundTrip(t, conn, bufio.NewReader(conn), "\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Errorf("the slow one: %s", resp.Status)
	}
}

// dialMute opens a connection that sends nothing, and waits until the server has it.
func (s *server) dialMute(t *testing.T) net.Conn {
	t.Helper()
	before := s.Stats().Pools["sniffing"].Accepted
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	eventually(t, "accepted", func() bool { return s.Stats().Pools["sniffing"].Accepted == before+1 })
	return conn
}

// inState returns how many connections the server shows in a state.
func (s *server) inState(state string) (n int) {
	for _, c := range s.Connections() {
		if c.State == state {
			n++
		}
	}
	return n
}

// goesOn reports how a connection is answered that dialMute has opened.
func (s *server) goesOn(t *testing.T, conn net.Conn) error {
	t.Helper()
	if s.scheme() == "https" {
		conn = tls.Client(conn, &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1"})
	}
	if _, err := io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return err
}

// TestHandshakesMayTakeTheirShare: connections that are not recognised yet are cut only
// where a limit is full, however many there are, and however long they take.
func TestHandshakesMayTakeTheirShare(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		s.SetPatience(0, 0)
		var far []net.Conn
		for range 10 {
			far = append(far, s.dialMute(t))
		}
		for range 4 {
			s.hold(t)
		}
		for i, conn := range far {
			if err := s.goesOn(t, conn); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		}
	}, limits(func(c *mux.Config) { c.Limits.MaxConnections = 16 }))
}

// TestYoungMakeRoomLast: where a limit is full, a client that may be far away, and within
// its handshake, is cut behind connections without a request that are older, and behind
// idle ones; and the youngest of them first.
func TestYoungMakeRoomLast(t *testing.T) {
	isClosed := func(t *testing.T, what string, conn net.Conn) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		var timeout net.Error
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: %d bytes, %v", what, n, err)
		}
	}
	bothForms(t, func(t *testing.T, s *server) {
		s.SetPatience(0, time.Hour)
		s.busy(t)
		first, second, third := s.dialMute(t), s.dialMute(t), s.dialMute(t)
		newcomer := s.hold(t)
		isClosed(t, "the youngest", third)
		eventually(t, "idle", func() bool { return s.inState("idle") == 1 })
		s.hold(t)
		isClosed(t, "the idle one", newcomer)
		eventually(t, "idle", func() bool { return s.inState("idle") == 1 })
		if err := s.goesOn(t, second); err != nil {
			t.Errorf("the second: %v", err)
		}
		s.SetPatience(0, 0)
		s.hold(t)
		isClosed(t, "the first, which is old now", first)
	}, limits(func(c *mux.Config) { c.Limits.MaxConnections, c.HTTP2.MaxAgeGrace = 4, 80*time.Millisecond })) // It sweeps often.
}

// TestLaterHeadLeavesByItsTime: a client that pauses within the head of a later request
// leaves behind one that has been idle for longer, however old its connection is.
func TestLaterHeadLeavesByItsTime(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 2 }))
	s.SetPatience(time.Nanosecond, time.Hour) // The sweep and others see it as mute at once.
	const request = "GET /echo HTTP/1.1\r\nHost: x\r\n"
	first, second := s.dial(t), s.dial(t)
	in := bufio.NewReader(first)
	_ = roundTrip(t, first, in, request+"\r\n")
	_ = roundTrip(t, second, bufio.NewReader(second), request+"\r\n")
	eventually(t, "idle", func() bool { return s.inState("idle") == 2 })
	time.Sleep(400 * time.Millisecond) // What is under test is time, and the last byte's is known to a fifth of a second.
	send(t, first, request)
	eventually(t, "the head has begun", func() bool {
		return slices.ContainsFunc(s.Connections(), func(c mux.ConnInfo) bool { return c.BytesReceived > uint64(len(request)+2) })
	})
	s.hold(t)
	if resp := roundTrip(t, first, in, "\r\n"); resp.StatusCode != http.StatusOK {
		t.Errorf("the one that goes on: %s", resp.Status)
	}
}

// TestRefusedMakeNoRoom: connections that are being refused take no place, and are not
// taken for some that could make room. There are more than one search finds.
func TestRefusedMakeNoRoom(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) {
		c.Sniff.Timeout = time.Minute
		c.Limits.MaxConnections, c.Limits.PerAddress = 2, 2
	}))
	s.SetPatience(0, 0)
	from := func(last byte) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}}
		conn, err := dialer.DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	busy := from(2)
	if resp := roundTrip(t, busy, bufio.NewReader(busy), "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	other := from(2)
	if resp := roundTrip(t, other, bufio.NewReader(other), "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	for range 70 {
		from(2)
	}
	eventually(t, "all have come", func() bool { return s.Stats().Pools["sniffing"].Accepted == 72 })
	_ = other.Close()
	eventually(t, "one has left", func() bool { return s.active("http1") == 1 })
	idle := from(3)
	if resp := roundTrip(t, idle, bufio.NewReader(idle), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	eventually(t, "idle", func() bool { return s.inState("idle") == 1 })
	s.hold(t)
}

// TestManyIdleKeepNobodyOut: connections that cost nothing keep no client out, however
// many come.
func TestManyIdleKeepNobodyOut(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 50 }))
	for i := range 300 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
			t.Fatal(fmt.Sprint("connection ", i, ": ", resp.Status))
		}
	}
	eventually(t, "the limit", func() bool { return s.active("http1") == 50 })
}
