package mux_test

import (
	"context"
	"crypto/tls"
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

// TestMatcherSniffTime: a custom matcher may wait as long as the configuration says, and
// no longer.
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
				return mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.Configure(func(c *mux.Config) { c.Sniff.Timeout = tt.sniff }))
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

// TestMatcherSniffBytes: a custom matcher may read as much as the configuration
// says, more than the default or less.
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

// TestMatcherPanics: a matcher that panics has not matched, and the connection is the
// next one's.
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
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// TestTLSPassThrough: on a plaintext port, MatchAfter gets a TLS client's bytes,
// and the client has not been told anything before.
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
// with all that they have sent, and ends TLS itself. HTTP beside it is served, and
// clients of other names get an alert.
func TestClientHelloSNI(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "*.example.com")}}
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.Configure(func(c *mux.Config) { c.Sniff.MaxBytes = 4 << 10 }))
	own := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.ServerName)
	})}
	defer own.Close()
	go func() { _ = own.Serve(tls.NewListener(m.Match("tls", mux.ClientHelloSNI("*.Example.com")), config)) }()
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
	// One whose ClientHello is above sniff.max_bytes has no name.
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

// TestUnwantedTLS: a TLS client that no matcher takes gets an alert.
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
