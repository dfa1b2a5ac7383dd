package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestShutdownBeforeServing: nobody has to notice the end of a server that has not served.
func TestShutdownBeforeServing(t *testing.T) {
	taken := listen(t)
	for name, tt := range map[string]struct {
		address string
		prepare func(*mux.Server) error
	}{
		"new":       {"127.0.0.1:0", func(*mux.Server) error { return nil }},
		"listening": {"127.0.0.1:0", (*mux.Server).Listen},
		"could not bind": {taken.Addr().String(), func(m *mux.Server) error {
			if err := m.ListenAndServe(); err == nil {
				return errors.New("no error")
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := mux.New(mux.WithLogger(discard), mux.WithAddress(tt.address), mux.Configure(func(c *mux.Config) {
				c.Drain.Delay = time.Hour
				c.Drain.Timeout = 2 * time.Hour
			}))
			if err := tt.prepare(m); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- m.Shutdown(context.Background()) }()
			if err := within(t, "Shutdown", ended); err != nil {
				t.Error(err)
			}
			if err := m.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
				t.Errorf("ListenAndServe after that: %v", err)
			}
		})
	}
}

// TestListenAndServeAgain after a failed bind.
func TestListenAndServeAgain(t *testing.T) {
	taken := listen(t)
	m := mux.New(mux.WithLogger(discard), mux.Configure(noDelay), mux.Configure(func(c *mux.Config) {
		c.Listeners[0].Address = taken.Addr().String()
	}))
	for range 2 {
		if err := m.ListenAndServe(); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Fatalf("on an address that is taken: %v", err)
		}
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	serveToEnd(t, m, m.ListenAndServe)
	eventually(t, "serving", func() bool { return m.Phase() == mux.PhaseServing })
}

// TestHTTP2OverPipe: a pipe holds no byte, so a server that waits for its client to read
// must go on reading itself.
func TestHTTP2OverPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newServer(t, false)
		l := newPipeListener()
		served := make(chan error, 1)
		go func() { served <- m.Serve(l) }()

		transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
			return l.dial(), nil
		}}
		transport.Protocols.SetUnencryptedHTTP2(true)
		for range 3 {
			resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Post("http://pipe/echo", "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
			if err != nil {
				t.Error(err)
				break
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.ProtoMajor != 2 {
				t.Errorf("%s: %v", resp.Proto, err)
			}
			_ = resp.Body.Close()
		}
		transport.CloseIdleConnections()

		cc, err := grpc.NewClient("passthrough:pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.dial(), nil }))
		if err != nil {
			t.Fatal(err)
		}
		patience, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 3 {
			if _, err := testpb.NewTestServiceClient(cc).UnaryCall(patience, &testpb.SimpleRequest{}); err != nil {
				t.Error(err)
			}
		}
		_ = cc.Close()
		_ = m.Close()
		<-served
	})
}

// TestCustomAddr: a custom listener has the address that is served, of the type that a
// listener of its network has.
func TestCustomAddr(t *testing.T) {
	m := mux.New(mux.WithLogger(discard), mux.Configure(noDelay))
	custom := m.Match("custom", mux.ALPN("custom"))
	if addr, ok := custom.Addr().(*net.TCPAddr); !ok || addr.String() != mux.DefaultAddress {
		t.Errorf("before: %T %v", custom.Addr(), custom.Addr())
	}
	s := serve(t, m)
	eventually(t, "served", func() bool {
		addr, ok := custom.Addr().(*net.TCPAddr)
		return ok && addr.String() == s.addr
	})
	opened := mux.New(mux.WithLogger(discard), mux.Configure(noDelay), mux.Configure(func(c *mux.Config) { c.Listeners[0].Address = "127.0.0.1:0" }))
	custom = opened.MatchAfter("custom", mux.Any())
	if err := opened.Listen(); err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if got, want := custom.Addr().String(), opened.Addrs()[0].String(); got != want {
		t.Errorf("open: %s, want %s", got, want)
	}
	unix := mux.New(mux.Configure(func(c *mux.Config) { c.Listeners[0].Address = "unix:/run/x.sock" }))
	if addr, ok := unix.Match("custom").Addr().(*net.UnixAddr); !ok || addr.Name != "/run/x.sock" {
		t.Errorf("unix: %#v", addr)
	}
}

// TestFallbackGetsWhatStalls: bytes that could still become HTTP when the time is over.
func TestFallbackGetsWhatStalls(t *testing.T) {
	m := mux.New(mux.WithLogger(discard), mux.Configure(noDelay), mux.Configure(func(c *mux.Config) { c.Sniff.Timeout = 50 * time.Millisecond }))
	fallback := m.MatchAfter("fallback", mux.Any())
	s := serve(t, m)
	for _, said := range []string{"PING", "LOGIN joe", "PRI * HT", "GET /", "PING\r\n"} {
		send(t, s.dial(t), said)
		got := make(chan string, 1)
		go func() {
			conn, err := fallback.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			b := make([]byte, len(said))
			n, _ := io.ReadFull(conn, b)
			got <- string(b[:n])
		}()
		if diff := within(t, said, got); diff != said {
			t.Errorf("the fallback read %q, want %q", diff, said)
		}
	}
	if n := s.rejected("sniffing", "sniff_timeout"); n != 0 {
		t.Errorf("%d count as refused", n)
	}
}

// TestNextProtos: what WithTLS adds to ALPN is what net/http adds.
func TestNextProtos(t *testing.T) {
	authority := newAuthority(t)
	for _, offered := range [][]string{nil, {"acme-tls/1"}, {"custom"}} {
		config := &tls.Config{Certificates: []tls.Certificate{authority.issue(t, "localhost")}, NextProtos: offered}
		direct := listen(t)
		srv := &http.Server{Handler: routes(), TLSConfig: config.Clone()}
		go srv.ServeTLS(direct, "", "")
		defer srv.Close()
		muxed := serve(t, mux.New(mux.WithLogger(discard), mux.Configure(noDelay), mux.WithTLS(config)))
		for _, asked := range [][]string{{"h2"}, {"http/1.1"}, {"h2", "http/1.1"}, offered} {
			negotiate := func(addr string) string {
				conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: authority.pool, ServerName: "localhost", NextProtos: asked})
				if err != nil {
					return err.Error()
				}
				defer conn.Close()
				return conn.ConnectionState().NegotiatedProtocol
			}
			if got, want := negotiate(muxed.addr), negotiate(direct.Addr().String()); got != want {
				t.Errorf("offered %q, asked %q: %q, net/http %q", offered, asked, got, want)
			}
		}
	}
}

// refused returns the error of a start that is to fail.
func refused(t *testing.T, m *mux.Server, serve func() error) error {
	t.Helper()
	t.Cleanup(func() { _ = m.Close() })
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	return within(t, "the error", ended)
}

// TestNoCertificate: TLS without a certificate does not start, as in net/http.
func TestNoCertificate(t *testing.T) {
	if err := (&http.Server{TLSConfig: &tls.Config{}}).ServeTLS(listen(t), "", ""); err == nil {
		t.Error("net/http serves")
	}
	m := mux.New(mux.WithLogger(discard), mux.WithAddress("127.0.0.1:0"), mux.WithTLS(&tls.Config{}))
	for name, serve := range map[string]func() error{
		"Serve": func() error { return m.Serve(listen(t)) }, "Listen": m.Listen, "ListenAndServe": m.ListenAndServe,
	} {
		if err := refused(t, m, serve); err == nil || !strings.Contains(err.Error(), "no certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTLSTimeout bounds a handshake, and sniff.timeout does not.
func TestTLSTimeout(t *testing.T) {
	s := start(t, true, mux.Configure(func(c *mux.Config) { c.Sniff.TLSTimeout, c.Sniff.Timeout = 50*time.Millisecond, time.Hour }))
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "\x16\x03\x01")
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Error(err)
	}
	eventually(t, "counted", func() bool { return s.rejected("sniffing", "tls_handshake") == 1 })
}

// TestOptionsThatCannotTakeEffect keep the server from starting, and it says what to do.
func TestOptionsThatCannotTakeEffect(t *testing.T) {
	m := mux.New(mux.WithLogger(discard), mux.WithGRPC(nil, grpc.Creds(credentials.NewTLS(&tls.Config{}))))
	for _, name := range []string{"Serve", "again"} {
		if err := refused(t, m, func() error { return m.Serve(listen(t)) }); err == nil || !strings.Contains(err.Error(), "mux.WithTLS") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if info, _ := m.ServerOf("grpc"); info.Native != nil {
		t.Error("there is a server")
	}
}

// TestServerOfBeforeServing: code that asks for a *grpc.Server gets the one that serves.
func TestServerOfBeforeServing(t *testing.T) {
	m, _ := newServer(t, false)
	info, _ := m.ServerOf("grpc")
	before, ok := info.Native.(*grpc.Server)
	if !ok {
		t.Fatalf("before: %T", info.Native)
	}
	if _, ok := before.GetServiceInfo()["grpc.testing.TestService"]; !ok {
		t.Error("it does not know the service")
	}
	m.Match("still possible", mux.ALPN("x"))
	s := serve(t, m)
	eventually(t, "serving", func() bool { return s.Phase() == mux.PhaseServing })
	if info, _ = m.ServerOf("grpc"); info.Native != before {
		t.Error("another server serves")
	}

	unused := mux.New(mux.WithLogger(discard))
	unused.ServerOf("grpc")
	if err := unused.Close(); err != nil { // It ends the goroutines, for which TestMain looks.
		t.Error(err)
	}
}
