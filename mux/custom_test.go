package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/mux"
)

// serveEach calls handle with each connection of l, and closes it.
func serveEach(l net.Listener, handle func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			handle(conn)
		}()
	}
}

// TestMatcherSniffTime: a custom matcher may wait for the first byte as long as the sniffer.
func TestMatcherSniffTime(t *testing.T) {
	const banner = "SSH-2.0-client\r\n"
	for _, tt := range []struct {
		name   string
		sniff  time.Duration
		speaks time.Duration // after the accept
		want   time.Duration // until the end of the connection
		ssh    uint64
	}{
		{"shorter than the default", time.Second, 2 * time.Second, time.Second, 0},
		{"longer than the default", 8 * time.Second, 7 * time.Second, 7 * time.Second, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			serve := func(m *mux.Server, l net.Listener) error {
				go serveEach(m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-")), func(net.Conn) {})
				return m.Serve(l)
			}
			timed(t, func() *mux.Server {
				return mux.New(mux.Configure(noDelay), mux.WithLogger(discard), quickSniff(tt.sniff))
			}, serve, func(t *testing.T, m *mux.Server, l *pipeListener) {
				conn, began := l.dial(), time.Now()
				defer conn.Close()
				speak := time.AfterFunc(tt.speaks, func() { _, _ = io.WriteString(conn, banner) })
				defer speak.Stop()
				if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the peer sees %v", err)
				}
				if got := time.Since(began); got != tt.want {
					t.Errorf("ended after %v, want %v", got, tt.want)
				}
				if got := m.Stats().Pools["ssh"].Accepted; got != tt.ssh {
					t.Errorf("%d connections matched, want %d", got, tt.ssh)
				}
			})
		})
	}
}

// TestMatcherSniffBytes: a custom matcher may read sniff.max_bytes and no more, above and
// below the default.
func TestMatcherSniffBytes(t *testing.T) {
	for _, limit := range []int{1 << 10, 64 << 10} {
		read := make(chan int64, 1)
		m := mux.New(mux.Configure(patient), mux.WithLogger(discard), mux.Configure(func(c *mux.Config) { c.Sniff.MaxBytes = limit }))
		l := m.Match("all", func(r io.Reader) bool {
			n, _ := io.Copy(io.Discard, r)
			read <- n
			return true
		})
		s := serve(t, m)
		go serveEach(l, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		conn := s.dial(t)
		send(t, conn, strings.Repeat("x", 2*limit))
		if got := within(t, "the matcher", read); got != int64(limit) {
			t.Errorf("the matcher read %d bytes, want %d", got, limit)
		}
		_ = conn.Close()
	}
}

// TestMatcherPanics: a matcher that panics counts as no match, and the next matcher gets
// the connection.
func TestMatcherPanics(t *testing.T) {
	var log syncBuffer
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(recordingLog(&log)))
	m.Match("broken", func(io.Reader) bool { panic("matcher's fault") })
	after := m.MatchAfter("after", func(r io.Reader) bool { panic("another's fault") }, mux.Any())
	go serveEach(after, func(conn net.Conn) { _, _ = io.WriteString(conn, "after") })
	s := serve(t, m)
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("HTTP: %d", got)
	}
	conn := s.dial(t)
	send(t, conn, "\x00\x01")
	if got, err := io.ReadAll(conn); string(got) != "after" {
		t.Errorf("fallback: %q, %v", got, err)
	}
	for _, want := range []string{"matcher's fault", "another's fault"} {
		eventually(t, want+" in the log", func() bool { return strings.Contains(log.String(), want) })
	}
}

// TestTLSPassThrough: on a plaintext port, MatchAfter gets a TLS client's bytes before
// the server has answered anything.
func TestTLSPassThrough(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	go serveEach(m.MatchAfter("pass-through", mux.Any()), func(conn net.Conn) {
		tc := tls.Server(conn, config)
		defer tc.Close()
		_, _ = io.WriteString(tc, "passed")
	})
	s := serve(t, m)
	s.roots = ca.pool
	got, err := io.ReadAll(s.dial(t))
	if err != nil || string(got) != "passed" {
		t.Errorf("through TLS: %q, %v", got, err)
	}
	if got := s.Stats().Rejected; len(got) != 0 {
		t.Errorf("rejected %v", got)
	}
}

// splitHello sends its first record, the ClientHello, as records of 50 bytes, each in a
// segment of its own.
type splitHello struct {
	net.Conn
	begun bool
}

func (c *splitHello) Write(p []byte) (int, error) {
	if c.begun {
		return c.Conn.Write(p)
	}
	c.begun = true
	for payload := range slices.Chunk(p[5:], 50) {
		if _, err := c.Conn.Write(append([]byte{p[0], p[1], p[2], 0, byte(len(payload))}, payload...)); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// TestClientHelloSNI: on a plaintext port, a listener gets the TLS clients of its names
// with all their bytes, and ends TLS itself. The port also serves HTTP, and sends an
// alert to clients of other names.
func TestClientHelloSNI(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "*.example.com")}}
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.Configure(func(c *mux.Config) { c.Sniff.MaxBytes = 4 << 10 }))
	own := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.ServerName)
	})}
	defer own.Close()
	matched := tls.NewListener(m.Match("tls", mux.ClientHelloSNI("*.Example.com")), config)
	go func() { _ = own.Serve(matched) }()
	s := serve(t, m)
	get := func(name string, protocols []string, through func(net.Conn) net.Conn) (string, error) {
		client := http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: ca.pool, ServerName: name, NextProtos: protocols},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
				return through(conn), err
			},
		}}
		resp, err := client.Get("https://" + s.addr)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	asIs := func(conn net.Conn) net.Conn { return conn }
	inPieces := func(conn net.Conn) net.Conn { return &splitHello{Conn: conn} }
	for name, through := range map[string]func(net.Conn) net.Conn{"a.example.com": asIs, "B.example.com": inPieces} {
		if got, err := get(name, nil, through); err != nil || !strings.EqualFold(got, name) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("HTTP: %d", got)
	}
	// A ClientHello above sniff.max_bytes has no name.
	long := slices.Repeat([]string{strings.Repeat("x", 200)}, 25)
	for _, tt := range []struct {
		name      string
		protocols []string
	}{{"a.example.org", nil}, {"a.example.com", long}} {
		if _, err := get(tt.name, tt.protocols, asIs); err == nil || !strings.Contains(err.Error(), "handshake failure") {
			t.Errorf("%s with %d protocols: %v", tt.name, len(tt.protocols), err)
		}
	}
	want := map[string]map[string]uint64{"sniffing": {"no_match": 2}}
	eventually(t, "counted", func() bool { return s.Stats().Rejected["sniffing"]["no_match"] > 1 })
	if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
	if got := s.Stats().Pools["tls"].Accepted; got != 2 {
		t.Errorf("%d connections matched, want 2", got)
	}
}

// TestUnwantedTLS: a TLS client without a matcher gets an alert.
func TestUnwantedTLS(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	m.MatchAfter("after", cmux.HTTP1Fast("BREW"), cmux.PrefixMatcher("nothing like it"))
	s := serve(t, m)
	_, err := tls.Dial("tcp", s.addr, &tls.Config{ServerName: "server.test"})
	if err == nil || !strings.Contains(err.Error(), "handshake failure") {
		t.Errorf("TLS to a plaintext port: %v", err)
	}
	want := map[string]map[string]uint64{"sniffing": {"no_match": 1}}
	eventually(t, "counted", func() bool { return len(s.Stats().Rejected) > 0 })
	if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
}

// TestCustomQueueAtDrain: a drain lets a custom listener accept and serve its queued
// connections.
func TestCustomQueueAtDrain(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	custom := m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	s := serve(t, m)
	const queued = 50
	conns := make([]net.Conn, queued)
	for i := range conns {
		conns[i] = s.dial(t)
		send(t, conns[i], "SSH-2.0-client\r\n")
	}
	eventually(t, "all are queued", func() bool { return s.active("ssh") == queued })
	done := s.drain(t.Context())
	eventually(t, "draining", func() bool { return s.Phase() != "serving" })
	go func() {
		for {
			nc, err := custom.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(nc, "served")
			_ = nc.Close()
		}
	}()
	for i, conn := range conns {
		if b, err := io.ReadAll(conn); string(b) != "served" {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
	}
	if got := within(t, "the drain", done); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}

// TestDrainWithoutTaker: a custom listener without an Accept call does not delay a drain,
// even with a full queue.
func TestDrainWithoutTaker(t *testing.T) {
	t.Parallel()
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	s := serve(t, m)
	const (
		connections = 150
		places      = 128
	)
	for range connections {
		send(t, s.dial(t), "SSH-2.0-client\r\n")
	}
	eventually(t, "no place left", func() bool { return s.active("ssh") > places })
	if got := within(t, "the drain", s.drain(t.Context())); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}

// TestNames: Match panics for reserved names.
func TestNames(t *testing.T) {
	for _, name := range []string{"total", "refused"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", name)
				}
			}()
			mux.New(mux.WithLogger(discard)).Match(name, cmux.Any())
		}()
	}
}

// TestMatch: a custom protocol gets its connections, with every byte.
func TestMatch(t *testing.T) {
	m := mux.New(mux.Configure(noDelay))
	l := m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	s := serve(t, m)
	accepted := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			accepted <- err.Error()
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		accepted <- line
	}()
	const banner = "SSH-2.0-client\r\n"
	conn := s.dial(t)
	send(t, conn, banner)
	if got := <-accepted; got != banner {
		t.Errorf("accepted %q", got)
	}
	if got := s.Stats().Pools["ssh"].Accepted; got != 1 {
		t.Errorf("%d connections in the pool ssh, want 1", got)
	}
	if got := s.status(t, "/readyz"); got != http.StatusOK {
		t.Errorf("HTTP beside it: %d", got)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the drain: %v", err)
	}
}

// TestMatchBySNIAndALPN: a matcher can decide by the server name and ALPN of the TLS
// handshake, before and beside the built-in protocols.
func TestMatchBySNIAndALPN(t *testing.T) {
	ca := newAuthority(t)
	m := mux.New(mux.Configure(noDelay), mux.WithTLS(&tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "*.example.com"), ca.issue(t, "server.test")},
		NextProtos:   []string{"h2", "http/1.1", "acme-tls/1"},
	}))
	answer := func(l net.Listener, text string) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			info, _ := mux.ConnOf(conn)
			fmt.Fprint(conn, text, " ", info.Protocol, " ", info.TLS.ServerName)
			_ = conn.Close()
		}
	}
	go answer(m.Match("acme", mux.ALPN("acme-tls/1")), "challenge")
	go answer(m.Match("tenant", mux.SNI("*.Example.com")), "tenant")
	s := serve(t, m)
	for _, tt := range []struct{ name, alpn, want string }{
		{"a.example.com", "", "tenant tenant a.example.com"},
		{"server.test", "acme-tls/1", "challenge acme server.test"},
	} {
		config := &tls.Config{RootCAs: ca.pool, ServerName: tt.name}
		if tt.alpn != "" {
			config.NextProtos = []string{tt.alpn}
		}
		conn, err := tls.Dial("tcp", s.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
		_ = conn.Close()
	}
	s.roots = ca.pool
	c := s.client(t, 2)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "server.test"
	resp, err := c.Get("https://" + s.addr + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("HTTP beside them: %s %s", resp.Proto, resp.Status)
	}
}

// TestMatchEndsWithListeners: when the last listener has failed, custom listeners end, as
// no connection comes any more.
func TestMatchEndsWithListeners(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	custom := m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	first, second := listen(t), listen(t)
	one, two := serveOn(t, m, first), serveOn(t, m, second)
	for _, s := range []*running{one, two} {
		if got := s.status(t, "/livez"); got != http.StatusOK {
			t.Fatalf("status %d", got)
		}
	}
	accepted, ended := make(chan net.Conn, 1), make(chan error, 1)
	go func() {
		for {
			conn, err := custom.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- conn
		}
	}()
	_ = first.Close()
	if err := within(t, "the first Serve", one.served); errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	conn := two.dial(t)
	send(t, conn, "SSH-2.0-client\r\n")
	_ = within(t, "the other listener's connection", accepted).Close()
	_ = second.Close()
	if err := within(t, "Accept", ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}
