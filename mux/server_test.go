package mux_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// TestMatch: an embedder's own protocol gets its connections, with every byte.
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
	if _, err := io.WriteString(conn, banner); err != nil {
		t.Fatal(err)
	}
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

// TestListenAllOrNothing: one bind that fails closes those before it, and says which.
func TestListenAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	s := mux.New(mux.Configure(func(c *mux.Config) {
		c.Listeners = []listeners.Config{{Address: address}, {Address: taken.Addr().String()}}
	}))
	if err := s.ListenAndServe(); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("ListenAndServe: %v", err)
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the first address is still open: %v", err)
	}
	_ = again.Close()
}

// TestBadCertificate: a certificate that cannot be read fails the start; there is no plaintext instead.
func TestBadCertificate(t *testing.T) {
	s := mux.New(mux.Configure(func(c *mux.Config) {
		c.Listeners = []listeners.Config{{
			Address: "127.0.0.1:0",
			TLS:     listeners.TLSConfig{Mode: "auto", Cert: "/nowhere/cert.pem", Key: "/nowhere/key.pem"},
		}}
	}))
	if err := s.ListenAndServe(); err == nil || !strings.Contains(err.Error(), "/nowhere/cert.pem") {
		t.Errorf("ListenAndServe: %v", err)
	}
	if got := s.Addrs(); len(got) != 0 {
		t.Errorf("open: %v", got)
	}
}

// TestInvalidConfig: every fault is named at once.
func TestInvalidConfig(t *testing.T) {
	err := mux.New(mux.Configure(func(c *mux.Config) {
		c.HTTP2.MaxStreams = 0
		c.GRPC.Transport = "carrier pigeon"
		c.Drain.Delay = -1
	})).ListenAndServe()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"http2.max_streams", "grpc.transport", "drain.delay"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

// TestPlaintextOnTLSPort: an HTTP client is told what is wrong.
func TestPlaintextOnTLSPort(t *testing.T) {
	s := start(t, true)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp := roundTrip(t, conn, bufio.NewReader(conn), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %s", resp.Status)
	}
	eventually(t, "counted", func() bool { return s.Stats().Rejected["sniffing"]["tls_handshake"] == 1 })
}

// TestTLSOnPlaintextPort: a TLS client gets an alert.
func TestTLSOnPlaintextPort(t *testing.T) {
	s := start(t, false)
	_, err := s.client(t, 1).Get("https://" + s.addr)
	if err == nil || !strings.Contains(err.Error(), "handshake failure") {
		t.Errorf("TLS to a plaintext port: %v", err)
	}
}

// TestOptionalTLS: plaintext and TLS on one port.
func TestOptionalTLS(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.Configure(func(c *mux.Config) {
		c.Listeners = []listeners.Config{{
			Address: "127.0.0.1:0",
			TLS:     listeners.TLSConfig{Mode: "self-signed", Optional: true},
		}}
	}))
	if err := m.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- m.ListenAndServe() }()
	s := &server{Server: m, addr: m.Addrs()[0].String()}
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("plaintext: %d", got)
	}
	c := s.client(t, 1)
	tr, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("transport is a %T", c.Transport)
	}
	tr.TLSClientConfig.InsecureSkipVerify = true
	resp, err := c.Get("https://" + s.addr + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("TLS: %s", resp.Status)
	}
	c.CloseIdleConnections()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("ListenAndServe: %v", err)
	}
}

// TestMatchBySNIAndALPN: what the TLS handshake said can decide, before and beside the built-in protocols.
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

// TestServerOf: the server of each protocol can be looked up, with the native server behind it.
func TestServerOf(t *testing.T) {
	s := start(t, false)
	eventually(t, "serving", func() bool { return s.Phase() == lifecycle.PhaseServing })
	for protocol, native := range map[string]func(any) bool{
		"http1":     func(v any) bool { _, ok := v.(*http.Server); return ok },
		"http2":     func(v any) bool { _, ok := v.(*http.Server); return ok },
		"websocket": func(v any) bool { _, ok := v.(*http.Server); return ok },
		"grpc":      func(v any) bool { _, ok := v.(*grpc.Server); return ok },
	} {
		info, ok := s.ServerOf(protocol)
		if !ok || info.Protocol != protocol || info.Status != "serving" || !native(info.Native) {
			t.Errorf("%s: %+v, %v", protocol, info, ok)
		}
	}
	if _, ok := s.ServerOf("gopher"); ok {
		t.Error("a server of an unknown protocol")
	}
}
