package mux_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
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

// TestMatcherSniffTime: a custom matcher may wait as long as the configuration says, and no longer.
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

// TestMatcherPanics: a matcher that panics has not matched, and the connection is the next one's.
func TestMatcherPanics(t *testing.T) {
	var log syncBuffer
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(recordingLog(&log)))
	m.Match("broken", func(io.Reader) bool { panic("matcher's fault") })
	after := m.MatchAfter("after", func(r io.Reader) bool { panic("another's fault") }, cmux.Any())
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
	go serveEach(m.MatchAfter("pass-through", cmux.Any()), func(conn net.Conn) {
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

// TestTLSNobodyWants: a TLS client that no matcher takes gets an alert.
func TestTLSNobodyWants(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	m.MatchAfter("after", cmux.PrefixMatcher("nothing like it"))
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
