package mux_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestOrders: in whatever order the protocols come, each connection is recognised and
// counted once.
func TestOrders(t *testing.T) {
	s := start(t, false)
	ask1 := func(t *testing.T, parts ...string) {
		t.Helper()
		conn := s.dial(t)
		for i, part := range parts {
			if i > 0 {
				time.Sleep(5 * time.Millisecond) // It should be a packet of its own, but need not.
			}
			send(t, conn, part)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		_ = conn.Close()
		if got := resp.Header.Get("X-Protocol"); got != "http1" {
			t.Errorf("served as %q", got)
		}
	}
	kinds := map[byte]struct {
		tag string
		ask func(t *testing.T)
	}{
		'1': {"http1", func(t *testing.T) { t.Helper(); ask1(t, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n") }},
		// Its first packet does not decide.
		's': {"http1", func(t *testing.T) { t.Helper(); ask1(t, "G", "ET /echo HTTP/1.1\r\nHost: x\r\n\r\n") }},
		'2': {"http2", func(t *testing.T) {
			t.Helper()
			client := s.client(t, 2)
			resp, err := client.Get("http://" + s.addr + "/echo")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			client.CloseIdleConnections()
			if got := resp.Header.Get("X-Protocol"); got != "http2" {
				t.Errorf("served as %q", got)
			}
		}},
		'g': {"grpc", func(t *testing.T) {
			t.Helper()
			cc := s.grpcClient(t)
			resp, err := grpc_testing.NewTestServiceClient(cc).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_ = cc.Close()
			if got := resp.GetUsername(); got != "grpc" {
				t.Errorf("served as %q", got)
			}
		}},
	}
	want := map[string]uint64{}
	for _, order := range []string{"1g1g1g", "gggggg", "111111", "s1s2sgs", "222222", "1", "gg2s1g2s1"} {
		for i := range order {
			kind := kinds[order[i]]
			kind.ask(t)
			want[kind.tag]++
		}
	}
	eventually(t, "all connections to be gone", func() bool { return s.Stats().Health["total"].Active == 0 })
	stats := s.Stats()
	for tag, n := range want {
		if got := stats.Pools[tag].Accepted; got != n {
			t.Errorf("%s: %d connections, want %d", tag, got, n)
		}
	}
	if len(stats.Rejected) != 0 {
		t.Errorf("rejected %v", stats.Rejected)
	}
}

// TestUnrecognised: connections that never show a protocol are counted, and do not delay
// the end.
func TestUnrecognised(t *testing.T) {
	s := start(t, false, quickSniff(50*time.Millisecond))
	silent, garbage, gone := s.dial(t), s.dial(t), s.dial(t)
	_ = gone.Close()
	if _, err := garbage.Write([]byte("\x00\x01\x02\x03 no protocol\r\n")); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []io.Reader{silent, garbage} {
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("read %d bytes, %v; want the end", n, err)
		}
	}
	eventually(t, "all connections to be gone", func() bool { return s.Stats().Pools["sniffing"].Active == 0 })
	stats := s.Stats()
	if n := stats.Rejected["sniffing"]["no_match"]; n == 0 {
		t.Errorf("rejected %v, want one that matches nothing", stats.Rejected)
	}
	if got := stats.Pools["http1"].Accepted; got != 0 {
		t.Errorf("%d connections count as HTTP/1.1", got)
	}
	late := s.dial(t) // Close comes while the server recognises it.
	eventually(t, "the connection to be accepted", func() bool { return s.Stats().Pools["sniffing"].Active == 1 })
	_ = late
}

// rejections are ways to be rejected, with the count of each.
var rejections = []struct {
	name    string
	tls     bool
	edit    func(*mux.Config)
	do      func(*testing.T, *server)
	tag     string
	reason  string
	nothing bool // It is not counted: no peer is at fault.
}{
	{name: "leaves without a word", do: probe, tag: "sniffing", reason: "silent"},
	{name: "leaves without a word, TLS", tls: true, do: probe, tag: "sniffing", reason: "silent"},
	{name: "says nothing", edit: hurriedSniff, do: speak(""), tag: "sniffing", reason: "silent"},
	{name: "no protocol", do: speak("\x00\x01\x02"), tag: "sniffing", reason: "no_match"},
	{name: "leaves half-way", do: leave("GET / HT"), tag: "sniffing", reason: "no_match"},
	{name: "too slow", edit: hurriedSniff, do: speak("GET / HT"), tag: "sniffing", reason: "sniff_timeout"},
	{
		name: "too large", edit: func(c *mux.Config) { c.Sniff.MaxBytes = 1024 },
		do: speak(strings.Repeat("\r\n", 1024)), tag: "sniffing", reason: "sniff_too_large",
	},
	{name: "TLS on a plaintext port", do: speak("\x16\x03\x01\x00\x00"), tag: "sniffing", reason: "no_match"},
	{name: "plaintext on a TLS port", tls: true, do: plaintext, tag: "sniffing", reason: "tls_handshake"},
	{name: "TLS twice", tls: true, do: speak("\x16\x03\x01\x00\x00"), tag: "sniffing", reason: "no_match"},
	{name: "cut by the drain", edit: hurriedDrain, do: slowAtDrain, tag: "sniffing", reason: "draining"},
	{name: "limit of a protocol", edit: func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }, do: oneTooMany, tag: "http1", reason: "limit"},
	{name: "limit of all", edit: func(c *mux.Config) { c.Limits.MaxConnections = 1 }, do: oneTooMany, tag: "http1", reason: "limit"},
	{name: "idle HTTP/2", edit: func(c *mux.Config) { c.HTTP2.IdleTimeout = 50 * time.Millisecond }, do: speak(undecided), nothing: true},
}

// TestRejectedOnce: a rejected connection counts once, for one reason. The server's end
// adds nothing.
func TestRejectedOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range rejections {
		t.Run(tt.name, func(t *testing.T) {
			edit := tt.edit
			if edit == nil {
				edit = func(*mux.Config) {}
			}
			s := start(t, tt.tls, mux.Configure(patient), mux.Configure(edit))
			tt.do(t, s)
			want := map[string]map[string]uint64{tt.tag: {tt.reason: 1}}
			if tt.nothing {
				want = map[string]map[string]uint64{}
			}
			eventually(t, "counted, and gone", func() bool {
				st := s.Stats()
				return len(st.Rejected) == len(want) && st.Pools["sniffing"].Active == 0
			})
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
		})
	}
}

// hurriedSniff shortens the sniff timeout.
func hurriedSniff(c *mux.Config) {
	c.Sniff.Timeout, c.HTTP1.IdleTimeout = 50*time.Millisecond, 50*time.Millisecond
}

// hurriedDrain shortens the time that a drain gives unrecognised connections. They have
// three quarters of it, which leaves 200 ms to close them on a busy machine.
func hurriedDrain(c *mux.Config) { c.Drain.StepTimeout = 800 * time.Millisecond }

// probe opens a connection and closes it, as a balancer's health check does.
func probe(t *testing.T, s *server) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// speak sends b, and reads until the server closes.
func speak(b string) func(*testing.T, *server) {
	return func(t *testing.T, s *server) {
		conn := s.dial(t)
		send(t, conn, b)
		_, _ = io.Copy(io.Discard, conn)
	}
}

// leave sends b, and closes.
func leave(b string) func(*testing.T, *server) {
	return func(t *testing.T, s *server) {
		conn := s.dial(t)
		send(t, conn, b)
		_ = conn.Close()
	}
}

// plaintext speaks HTTP to a TLS port.
func plaintext(t *testing.T, s *server) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %s", resp.Status)
	}
}

// slowAtDrain is in the middle of its first bytes when the drain runs out of patience.
func slowAtDrain(t *testing.T, s *server) {
	conn := s.dial(t)
	send(t, conn, "G")
	eventually(t, "sniffing", func() bool { return s.active("sniffing") == 1 })
	if got := within(t, "the drain", s.drain(t.Context())); !errors.Is(got.err, mux.ErrForced) {
		t.Errorf("drain: %v, want ErrForced", got.err)
	}
}

// oneTooMany opens two connections where there is room for one.
func oneTooMany(t *testing.T, s *server) {
	const request = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
	s.busy(t)
	second := s.dial(t)
	if resp := roundTrip(t, second, bufio.NewReader(second), request); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("second: %s", resp.Status)
	}
	_, _ = io.Copy(io.Discard, second)
}

// TestFallbackIsNotRejected: a connection that MatchAfter takes does not count as
// rejected, although no built-in protocol matched.
func TestFallbackIsNotRejected(t *testing.T) {
	m := mux.New(mux.Configure(patient), mux.WithLogger(discard))
	go serveEach(m.MatchAfter("after", cmux.Any()), func(net.Conn) {})
	s := serve(t, m)
	for _, first := range []string{"\x00\x01\x02", "\x16\x03\x01\x00\x00"} {
		speak(first)(t, s)
	}
	eventually(t, "taken and closed", func() bool { return s.Stats().Pools["after"].Closed == 2 })
	if got := s.Stats().Rejected; len(got) != 0 {
		t.Errorf("rejected %v", got)
	}
}

// TestStalledClientHello: half a ClientHello is a failed handshake, and not a silent
// connection.
func TestStalledClientHello(t *testing.T) {
	ca := newAuthority(t)
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)),
		tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}))
	leave("\x16\x03\x01")(t, s.server)
	probe(t, s.server)
	want := map[string]map[string]uint64{"sniffing": {"tls_handshake": 1, "silent": 1}}
	eventually(t, "both are gone", func() bool { return s.Stats().Pools["sniffing"].Closed == 2 })
	if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
}

// TestCloseReasons: a closed connection counts under the reason that the package names.
func TestCloseReasons(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.Sniff.Timeout = 100 * time.Millisecond
		c.HTTP1.MaxConnections = 1
	}))
	slow := s.dial(t)
	send(t, slow, "GE")
	eventually(t, "given up", func() bool { return s.Stats().Pools["sniffing"].Closed == 1 })
	if got := s.Stats().Closed["sniffing"]; got["sniff_timeout"] != 1 {
		t.Errorf("not recognised in time: %v", got)
	}
	s.busy(t)
	if got := s.status(t, "/echo"); got != http.StatusServiceUnavailable {
		t.Fatal(got)
	}
	eventually(t, "refused", func() bool { return s.Stats().Pools["refused"].Closed == 1 })
	if got := s.Stats().Closed["refused"]; got["refused"] != 1 {
		t.Errorf("refused: %v", got)
	}
	secure := start(t, true)
	conn, err := net.Dial("tcp", secure.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "\x16\x03\x01\x00\x05hello")
	eventually(t, "failed", func() bool { return len(secure.Stats().Closed["sniffing"]) == 1 })
	if got := secure.Stats().Closed["sniffing"]; got["tls_handshake"] != 1 {
		t.Errorf("a broken handshake: %v", got)
	}
}

// manySilent is how many silent connections the tests open.
const manySilent = 400

// TestManySilentConnections: silent connections wait before they reach a server and delay
// no other. They are served when they speak.
func TestManySilentConnections(t *testing.T) {
	const silent = manySilent
	s := start(t, false, mux.WithLogger(discard), mux.Configure(patient))
	conns := make([]net.Conn, silent)
	for i := range conns {
		conns[i] = s.dial(t)
	}
	eventually(t, "all connections to be there", func() bool { return s.Stats().Pools["sniffing"].Active == silent })
	for _, conn := range []net.Conn{s.dial(t), conns[0], conns[silent/2], conns[silent-1]} {
		resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = resp.Body.Close()
		if got := resp.Header.Get("X-Protocol"); got != "http1" {
			t.Errorf("served as %q", got)
		}
	}
}

// TestManySilentConnectionsEnd: every silent connection is closed when its time is over. The
// times of recognition do not count it.
func TestManySilentConnectionsEnd(t *testing.T) {
	s := start(t, false, mux.WithLogger(discard), quickSniff(100*time.Millisecond))
	var conns []net.Conn
	for range manySilent {
		conns = append(conns, s.dial(t))
	}
	for _, conn := range conns {
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("read %d bytes, %v; want the end", n, err)
		}
	}
	eventually(t, "no connection is left", func() bool { return s.Stats().Health["total"].Active == 0 })
	if n := s.Stats().Sniffs.Count; n > 0 {
		t.Errorf("%d were recognised", n)
	}
}

// TestMalformedFirstRequest: a first request that is malformed gets net/http's answer. What
// is plainly no HTTP gets none.
func TestMalformedFirstRequest(t *testing.T) {
	served := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method) }
	const rest = " / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for name, tt := range map[string]struct{ text, want string }{
		"method of 65 bytes":   {strings.Repeat("M", 65) + rest, "HTTP/1.1 200 OK"},
		"method of 300 bytes":  {strings.Repeat("M", 300) + rest, "HTTP/1.1 200 OK"},
		"character in method":  {"G(T" + rest, "HTTP/1.1 400 Bad Request"},
		"Unicode in method":    {"G\u00c9T" + rest, "HTTP/1.1 400 Bad Request"},
		"NUL in target":        {"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		"NUL in version":       {"GET / HTTP/1.1\x00\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		"space in target":      {"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		"another major number": {"G(T / HTTP/3.0\r\n\r\n", "HTTP/1.1 400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := answersAlike(t, served, tt.text); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%q, want %s", got, tt.want)
			}
		})
	}
	s := start(t, false, mux.WithHandler(http.HandlerFunc(served)))
	for _, text := range []string{`{"method": "GET"}`, "\x00\x01\x02", "EHLO x\r\n", "user@host\r\n", "<?xml?>\n"} {
		conn := s.dial(t)
		send(t, conn, text)
		if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
			t.Errorf("%q: answered %q, %v", text, got, err)
		}
	}
}

// TestPrefaceAlone: an HTTP/2 client that waits for the server's SETTINGS before it sends its
// own is greeted, as by net/http, and served.
func TestPrefaceAlone(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		for _, path := range []string{"/echo", "/livez"} {
			conn := s.dial(t, "h2")
			send(t, conn, http2.ClientPreface)
			c := &h2Client{Framer: http2.NewFramer(conn, conn), t: t, window: 65535, streams: make(map[uint32]*h2Stream)}
			c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			c.encoder = hpack.NewEncoder(&c.block)
			f, err := c.ReadFrame()
			c.must(err)
			c.must(c.WriteSettings())
			if settings, ok := f.(*http2.SettingsFrame); ok {
				c.readSettings(settings)
			}
			if path == "/livez" { // The sniffer answers the SETTINGS.
				for c.acks == 0 {
					c.step()
				}
			}
			c.get(1, path)
			if got := c.header(1)[":status"]; got != "200" {
				t.Errorf("%s: %s", path, got)
			}
			c.sync()
			if c.acks != 1 {
				t.Errorf("%s: %d ACKs of one SETTINGS", path, c.acks)
			}
		}
	})
}
