package mux_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// seen is the part of a ConnInfo that the test compares.
type seen struct {
	Protocol, Version, ServerName string
	Received, Sent                bool // More than a TLS handshake takes.
}

// TestServeTLSListener: connections of a TLS listener that the caller passed to Serve
// have their TLS identity, count their bytes, and leave the statistics at the end.
func TestServeTLSListener(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	ca := newAuthority(t)
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithHandler(routes()),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }))
	s := serveOn(t, m, tls.NewListener(listen(t), &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "server.test")},
		NextProtos:   []string{"h2", "http/1.1"},
	}))
	s.roots = ca.pool
	for _, version := range []int{1, 2} {
		resp, err := s.client(t, version).Post("https://"+s.addr+"/echo", "text/plain", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if n != size || err != nil || resp.ProtoMajor != version || resp.Header.Get("X-Tls") == "" {
			t.Errorf("%s: %d bytes, %v, TLS %q", resp.Proto, n, err, resp.Header.Get("X-Tls"))
		}
	}
	cc := s.grpcClient(t)
	resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, size)}})
	if err != nil || resp.GetUsername() != "grpc" {
		t.Errorf("gRPC: %q, %v", resp.GetUsername(), err)
	}

	var got []seen
	for _, c := range s.Connections() {
		if c.TLS == nil {
			t.Fatalf("%s: no TLS", c.Protocol)
		}
		got = append(got, seen{c.Protocol, c.TLS.Version, c.TLS.ServerName, c.BytesReceived > size, c.BytesSent > size})
	}
	want := []seen{
		{"http1", "TLS 1.3", "", true, true},
		{"http2", "TLS 1.3", "", true, true},
		{"grpc", "TLS 1.3", "", true, true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
	for _, protocol := range []string{"http1", "http2", "grpc"} {
		eventually(t, "bytes of "+protocol, func() bool {
			p := s.Stats().Pools[protocol]
			return p.BytesReceived > size && p.BytesSent > size
		})
	}
	if err := m.Shutdown(t.Context()); err != nil {
		t.Errorf("drain: %v", err)
	}
	s.noneLeft(t)
}

// wrappedTLS is what go-spiffe's listener returns: more methods around a *tls.Conn.
type wrappedTLS struct{ *tls.Conn }

// hiddenTLS has no method for the handshake.
type hiddenTLS struct {
	net.Conn
	inner *tls.Conn
}

func (c hiddenTLS) ConnectionState() tls.ConnectionState { return c.inner.ConnectionState() }

// TestServeWrappedTLS: a connection whose listener wraps a *tls.Conn has its TLS identity,
// for requests and calls. What its handshake has agreed on does not bind, as in net/http.
func TestServeWrappedTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	handler := http.NewServeMux()
	handler.HandleFunc("/identity", handleIdentity)
	clientConfig := func(alpn ...string) *tls.Config {
		return &tls.Config{RootCAs: ca.pool, ServerName: "server.test", Certificates: []tls.Certificate{ca.issue(t, "alice")}, NextProtos: alpn}
	}
	for name, wrap := range map[string]func(*tls.Conn) net.Conn{
		"handshake": func(c *tls.Conn) net.Conn { return wrappedTLS{c} },
		"hidden":    func(c *tls.Conn) net.Conn { return hiddenTLS{c, c} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithHandler(handler),
				mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, identityService{}) }))
			l := tls.NewListener(listen(t), &tls.Config{
				Certificates: []tls.Certificate{ca.issue(t, "server.test")}, NextProtos: []string{"h2", "http/1.1", "spiffe"},
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
			})
			s := serveOn(t, m, wrapListener{l, func(c net.Conn) net.Conn { return wrap(c.(*tls.Conn)) }})
			s.roots = ca.pool
			check := func(what, alpn string, b []byte) {
				t.Helper()
				var got identity
				if err := json.Unmarshal(b, &got); err != nil {
					t.Fatalf("%s: %q: %v", what, b, err)
				}
				want := identity{"TLS 1.3", got.Cipher, alpn, "server.test", "CN=alice", ""}
				if diff := cmp.Diff(want, got); diff != "" || got.Cipher == "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			for version, alpn := range map[int]string{1: "http/1.1", 2: "h2"} {
				c := s.client(t, version)
				c.Transport.(*http.Transport).TLSClientConfig = clientConfig(alpn)
				resp, err := c.Get("https://" + s.addr + "/identity")
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				check(resp.Proto, alpn, b)
			}
			conn, err := tls.Dial("tcp", s.addr, clientConfig("spiffe"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /identity HTTP/1.1\r\nHost: x\r\n\r\n")
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			check("HTTP/1.1 under another name", "spiffe", b)
			for transport, via := range map[string][]grpc.DialOption{"native": nil, "shared": {grpc.WithUnaryInterceptor(viaProxy)}} {
				cc, err := grpc.NewClient(s.addr, append(via, grpc.WithTransportCredentials(credentials.NewTLS(clientConfig())))...)
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				resp, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{})
				if err != nil {
					t.Fatalf("%s: %v", transport, err)
				}
				check(transport+" gRPC", "h2", resp.GetPayload().GetBody())
			}
		})
	}
}

// TestServeTLSListenerGauges: connections of such a listener leave the statistics when
// their clients close them.
func TestServeTLSListenerGauges(t *testing.T) {
	ca := newAuthority(t)
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)),
		tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}))
	s.roots = ca.pool
	const connections = 5
	for range connections {
		if got := s.status(t, "/livez"); got != http.StatusOK {
			t.Fatalf("status %d", got)
		}
	}
	eventually(t, "all have left", func() bool {
		p := s.Stats().Pools["http1"]
		return p.Active == 0 && p.Closed == connections
	})
}

// zeros is a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// selfMade returns a TLS configuration for servers on 127.0.0.1.
func selfMade(t *testing.T) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{newAuthority(t).issue(t, "server.test")}}
}

// TestOptionalTLSCountsPlaintext: on a port with optional TLS, the bytes of plaintext
// native gRPC count, although gRPC reads past most wrappers.
func TestOptionalTLSCountsPlaintext(t *testing.T) {
	const size = 256 << 10
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithTLS(selfMade(t)),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }))
	l, served := listen(t), make(chan error, 1)
	go func() { served <- m.ServeOptional(l) }()
	s := &server{Server: m, addr: l.Addr().String()}
	resp, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, size)}})
	if err != nil || resp.GetUsername() != "grpc" {
		t.Errorf("call: %q, %v", resp.GetUsername(), err)
	}
	eventually(t, "bytes counted", func() bool {
		p := s.Stats().Pools["grpc"]
		return p.BytesReceived > size && p.BytesSent > size
	})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-served
}

// TestOptionalTLSSniffTimeOnce: the sniff timeout counts once from the first byte, which tells
// TLS from plaintext.
func TestOptionalTLSSniffTimeOnce(t *testing.T) {
	const sniff = 10 * time.Second
	config := selfMade(t)
	timed(t,
		func() *mux.Server {
			return mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithTLS(config), mux.Configure(func(c *mux.Config) { c.Sniff.Timeout = sniff }))
		},
		(*mux.Server).ServeOptional,
		func(t *testing.T, m *mux.Server, l *pipeListener) {
			conn, began := l.dial(), time.Now()
			defer conn.Close()
			time.Sleep(sniff - time.Second)
			send(t, conn, "G")
			time.Sleep(sniff - time.Second)
			send(t, conn, "E")
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the peer sees %v", err)
			}
			if got := time.Since(began); got != 2*sniff-time.Second {
				t.Errorf("closed after %v, want %v", got, 2*sniff-time.Second)
			}
			synctest.Wait() // The server counts it after the close.
			want := map[string]map[string]uint64{"sniffing": {"sniff_timeout": 1}}
			if diff := cmp.Diff(want, m.Stats().Rejected); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
		})
}

// TestBadCertificate: an unreadable certificate fails the start. The server does not fall
// back to plaintext.
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

// TestPlaintextOnTLSPort: a plaintext HTTP client gets a 400 that says why.
func TestPlaintextOnTLSPort(t *testing.T) {
	s := start(t, true)
	plaintext(t, s)
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

// TestOptionalTLS: one port serves plaintext and TLS.
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

// TestInadequateSecurity: HTTP/2 is not spoken over TLS that RFC 9113 section 9.2.2
// forbids for it. HTTP/1.1 is.
func TestInadequateSecurity(t *testing.T) {
	s := start(t, true)
	weak := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
	tests := []struct {
		name   string
		suites []uint16
		alpn   string
		speak  string // the client's first bytes
		want   string // in the answer
	}{
		{"HTTP/2", weak, "h2", get2(t, "/echo"), string([]byte{0, 0, 0, byte(http2.ErrCodeInadequateSecurity)})},
		{"gRPC", weak, "h2", firstCall(t, "grpc-go/1.85.0", 0), string([]byte{0, 0, 0, byte(http2.ErrCodeInadequateSecurity)})},
		{"HTTP/1.1", weak, "http/1.1", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"},
		{"adequate", nil, "h2", get2(t, "/echo"), "\x01\x05\x00\x00\x00\x01" /* HEADERS that end the stream */},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", s.addr, &tls.Config{
				RootCAs: s.roots, NextProtos: []string{tt.alpn}, MaxVersion: tls.VersionTLS12, CipherSuites: tt.suites,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			send(t, conn, tt.speak)
			var got []byte
			for buf := make([]byte, 4096); !strings.Contains(string(got), tt.want); {
				n, err := conn.Read(buf)
				if got = append(got, buf[:n]...); n == 0 && err != nil {
					t.Fatalf("%q, %v", got, err)
				}
			}
		})
	}
	eventually(t, "both are counted", func() bool {
		return s.rejected("http2", "inadequate_security") == 1 && s.rejected("grpc", "inadequate_security") == 1
	})
}

// get2 is what a client of HTTP/2 sends first.
func get2(t *testing.T, path string) string {
	var out bytes.Buffer
	c := &h2Client{Framer: http2.NewFramer(&out, nil), t: t}
	c.encoder = hpack.NewEncoder(&c.block)
	out.WriteString(http2.ClientPreface)
	c.must(c.WriteSettings())
	c.get(1, path)
	return out.String()
}
