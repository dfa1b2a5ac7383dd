package mux_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// configured serves the test handlers with the configuration that edit makes.
func configured(t *testing.T, edit func(*mux.Config)) *server {
	t.Helper()
	m := mux.New(
		mux.Configure(func(c *mux.Config) {
			noDelay(c)
			c.Listeners = []listeners.Config{{Address: freeAddress(t)}}
			edit(c)
		}),
		mux.WithHandler(routes()), mux.WithLogger(discard),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) }),
	)
	if err := m.Listen(); err != nil {
		t.Fatal(err)
	}
	s := &server{Server: m, addr: m.Addrs()[0].String()}
	served := make(chan error, 1)
	go func() { served <- m.ListenAndServe() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-served; !errors.Is(err, mux.ErrServerClosed) {
			t.Errorf("ListenAndServe: %v", err)
		}
		s.noneLeft(t)
	})
	eventually(t, "serving", func() bool { return s.Phase() == "serving" })
	return s
}

// freeAddress returns an address without a listener. Its port is below those that Linux gives
// to clients and to listeners without a port, so that no test beside this one gets it.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(12_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// reload changes the configuration.
func (s *server) reload(t *testing.T, edit func(*mux.Config)) mux.Version {
	t.Helper()
	c := s.Config()
	edit(&c)
	v, err := s.Reload(c, "test")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestReloadRuntime: limits and timeouts change for open connections, and no connection
// is refused or closed.
func TestReloadRuntime(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	_ = roundTrip(t, conn, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	s.busy(t)
	v := s.reload(t, func(c *mux.Config) {
		c.HTTP1.MaxConnections = 1
		c.HTTP1.MaxRequests = 3
		c.Drain.Spread = time.Millisecond
		c.Health.DegradedAbove = 0.5
	})
	if v.Outcome != mux.OutcomeApplied || v.Number != 2 || len(v.Changes) != 4 {
		t.Errorf("%+v", v)
	}
	for i := range 2 {
		resp := roundTrip(t, conn, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, resp.Body)
		if want := i == 1; resp.Close != want {
			t.Errorf("request %d of 3: Connection: close %v", i+2, resp.Close)
		}
	}
	if got := s.status(t, "/echo"); got != http.StatusServiceUnavailable {
		t.Errorf("above the new limit: %d", got)
	}
	if got := s.Config().Drain.Spread; got != time.Millisecond {
		t.Errorf("drain.spread %v", got)
	}
	if v := s.reload(t, func(*mux.Config) {}); v.Outcome != mux.OutcomeUnchanged {
		t.Errorf("%+v", v)
	}
}

// TestReloadServers: new connections get servers with the new settings. Old connections
// end by themselves, and an open stream goes on.
func TestReloadServers(t *testing.T) {
	t.Parallel()
	s := configured(t, func(c *mux.Config) { c.GRPC.MaxRecvBytes = 1000 })
	old := testpb.NewTestServiceClient(s.grpcClient(t))
	stream, err := old.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(size int) error {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}); err != nil {
			return err
		}
		_, err := stream.Recv()
		return err
	}
	if err := exchange(10); err != nil {
		t.Fatal(err)
	}
	s.reload(t, func(c *mux.Config) {
		c.GRPC.MaxRecvBytes = 1 << 20
		c.HTTP2.MaxStreams = 17
	})
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.get(1, "/echo")
	_ = c.header(1)
	if got := c.settings[http2.SettingMaxConcurrentStreams]; got != 17 {
		t.Errorf("a new connection may have %d streams", got)
	}
	if _, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 2000)}}); err != nil {
		t.Errorf("a new connection's call: %v", err)
	}
	// The old connection gets GOAWAY, which moves the next call, and keeps its stream.
	eventually(t, "calls of the old client are on a new connection", func() bool {
		_, err := old.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 2000)}})
		return err == nil
	})
	if err := exchange(10); err != nil {
		t.Errorf("the old stream: %v", err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Error(err)
	}
	eventually(t, "the old servers are gone", func() bool { return s.Backends() == 1 })
}

// TestReloadAddress: a new address is served before the old one is released. Requests in
// flight at the old address end by themselves, and idle connections are closed.
func TestReloadAddress(t *testing.T) {
	t.Parallel()
	s := configured(t, func(*mux.Config) {})
	idle := s.dial(t)
	r := bufio.NewReader(idle)
	_ = roundTrip(t, idle, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	inFlight := get(s.client(t, 1), "http://"+s.addr+"/slow")
	eventually(t, "in flight", func() bool { return s.Stats().Requests["http1"].InFlight == 1 })
	former, moved := s.addr, freeAddress(t)
	s.reload(t, func(c *mux.Config) { c.Listeners[0].Address = moved })
	s.addr = moved
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("the new address: %d", got)
	}
	if got := s.Addrs(); len(got) != 1 || got[0].String() != moved {
		t.Errorf("addresses %v", got)
	}
	if got := within(t, "the request in flight", inFlight); got != "slow" && got != "" {
		t.Errorf("in flight: %q", got)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("the idle connection: %v", err)
	}
	eventually(t, "the old address is released", func() bool {
		l, err := net.Listen("tcp", former)
		if err == nil {
			_ = l.Close()
		}
		return err == nil
	})
}

// TestReloadBrought: a listener that was passed to Serve keeps its socket, and Serve goes
// on.
func TestReloadBrought(t *testing.T) {
	s := start(t, false)
	eventually(t, "serving", func() bool { return s.Phase() == "serving" })
	for i := range 3 {
		s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams = uint32(20 + i) })
		conn := s.dial(t)
		c := newH2Client(t, conn, conn)
		c.get(1, "/echo")
		_ = c.header(1)
		if got := c.settings[http2.SettingMaxConcurrentStreams]; got != uint32(20+i) {
			t.Errorf("%d streams", got)
		}
	}
}

// TestReloadWebSocket: WebSockets of a replaced server are closed with 1001. Others stay
// open.
func TestReloadWebSocket(t *testing.T) {
	t.Parallel()
	s := configured(t, func(c *mux.Config) {
		c.Listeners = append(c.Listeners, listeners.Config{Address: freeAddress(t)})
	})
	going := s.webSocket(t)
	other := &server{Server: s.Server, addr: s.Addrs()[1].String()}
	staying := other.webSocket(t)
	ended := make(chan error, 1)
	go func() {
		_, _, err := going.Read(t.Context())
		ended <- err
	}()
	s.reload(t, func(c *mux.Config) { c.Listeners[0].Protocols = []string{"http1"} })
	if err := within(t, "1001", ended); !strings.Contains(fmt.Sprint(err), "StatusGoingAway") {
		t.Error(err)
	}
	if err := echoed(t, staying, "still here"); err != nil {
		t.Error(err)
	}
	_ = staying.CloseNow()
	if !slices.Contains(s.Config().Listeners[0].Protocols, "http1") {
		t.Error("not in force")
	}
}

// TestReloadOfLimitsHolds: a later reload of another key keeps the limits of an earlier
// one, also with on_limit: wait.
func TestReloadOfLimitsHolds(t *testing.T) {
	s := start(t, false)
	eventually(t, "serving", func() bool { return s.Phase() == "serving" })
	s.reload(t, func(c *mux.Config) {
		c.Limits.MaxConnections, c.Limits.OnLimit = 2, pool.Wait
		c.WebSocket.MaxConnections = 1
	})
	s.reload(t, func(c *mux.Config) { c.HTTP1.MaxRequests = 1000 })
	ws := s.webSocket(t)
	client := s.client(t, 1)
	if _, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", &websocket.DialOptions{HTTPClient: client}); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a second WebSocket: %v", err)
	}
	client.CloseIdleConnections()
	eventually(t, "one connection", func() bool { return len(s.Connections()) == 1 })
	second, third := s.busy(t), s.dial(t)
	send(t, third, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = third.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection too many: %v", err)
	}
	_ = second.Close()
	_ = third.SetReadDeadline(time.Now().Add(20 * time.Second))
	if resp, err := http.ReadResponse(bufio.NewReader(third), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("once there is room: %v, %v", resp, err)
	}
	_ = ws.CloseNow()
}

// TestReloadOfServeAlone: where all listeners were passed to Serve, a reload does not
// open the configured address.
func TestReloadOfServeAlone(t *testing.T) {
	address := freeAddress(t)
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Listeners = []listeners.Config{{Address: address}} }))
	eventually(t, "serving", func() bool { return s.Phase() == "serving" })
	s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams, c.Limits.MaxConnections = 17, 99 })
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("the configured address is open")
	}
	if got := s.Addrs(); len(got) != 0 {
		t.Errorf("addresses %v", got)
	}
}

// writePair writes a certificate and its key.
func writePair(t *testing.T, pair tls.Certificate, cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReloadSeveralCertificates: each certificate is a change of its own, which names it.
func TestReloadSeveralCertificates(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	file := func(i int, name string) string { return filepath.Join(dir, fmt.Sprint(i, name)) }
	write := func(i int, name string) { writePair(t, ca.issue(t, name), file(i, ".pem"), file(i, ".key")) }
	var c listeners.TLSConfig
	for i, name := range []string{"a.test", "b.test", "c.test"} {
		write(i, name)
		c.Certificates = append(c.Certificates, listeners.CertificateConfig{Cert: file(i, ".pem"), Key: file(i, ".key")})
	}
	s := configured(t, func(conf *mux.Config) {
		conf.Listeners[0].TLS = c
		// It shares the certificates of the other, whose changes are listed once.
		conf.Listeners = append(conf.Listeners, listeners.Config{Address: freeAddress(t), TLS: c})
	})
	describe := func(i int) string {
		one := s.Certificates()[s.addr][i]
		return fmt.Sprintf("%s (ECDSA), expires %s", one.Subject, one.NotAfter.UTC().Format(time.RFC3339))
	}
	change := func(was, is string) mux.Change {
		return mux.Change{Path: "certificates", Old: was, New: is, Apply: mux.ApplyRuntime, How: "new handshakes meet what the files hold now"}
	}
	before := []string{describe(0), describe(1), describe(2)}
	write(1, "b.test")
	write(2, "d.test")
	v := s.reload(t, func(*mux.Config) {})
	want := []mux.Change{change(before[1], describe(1)), change(before[2], describe(2))}
	if diff := cmp.Diff(want, v.Changes); diff != "" || !strings.HasPrefix(describe(2), "CN=d.test (ECDSA)") {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(s.Certificates()); n != 2 {
		t.Errorf("certificates of %d listeners, want 2", n)
	}
	gone := describe(0)
	v = s.reload(t, func(c *mux.Config) { c.Listeners[0].TLS.Certificates = c.Listeners[0].TLS.Certificates[1:] })
	if len(v.Changes) != 2 || v.Changes[0].Path != "listeners[0].tls.certificates" {
		t.Errorf("%+v", v.Changes)
	} else if diff := cmp.Diff(change(gone, ""), v.Changes[1]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestReloadInlineKey changes a key that Config.Shown hides.
func TestReloadInlineKey(t *testing.T) {
	from, to := mux.DefaultConfig(), mux.DefaultConfig()
	const begin = "-----BEGIN PRIVATE KEY-----\n"
	from.Listeners[0].TLS.Certificates = []listeners.CertificateConfig{{Cert: "c", Key: begin + "a"}}
	to.Listeners[0].TLS.Certificates = []listeners.CertificateConfig{{Cert: "c", Key: begin + "b"}}
	s := mux.New(mux.Configure(func(c *mux.Config) { *c = from }))
	changes, err := s.Plan(to)
	if err != nil || len(changes) != 1 || changes[0].Path != "listeners[0].tls.certificates" || changes[0].New != "(hidden)" || changes[0].Apply != mux.ApplyRuntime {
		t.Errorf("%+v, %v", changes, err)
	}
}

// TestReloadOtherFiles: where a reload names other files of certificates and ticket keys, the
// listener goes on as it is. New handshakes meet the new files, and no client is told to leave.
func TestReloadOtherFiles(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	pair := func(name string) listeners.CertificateConfig {
		writePair(t, ca.issue(t, name), file(name+".pem"), file(name+".key"))
		return listeners.CertificateConfig{Cert: file(name + ".pem"), Key: file(name + ".key")}
	}
	a, b, c := pair("a.test"), pair("b.test"), pair("c.test")
	for name, digits := range map[string]string{"one.keys": "11", "two.keys": "22"} {
		if err := os.WriteFile(file(name), []byte(strings.Repeat(digits, 32)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	same := file("same.key")
	data, err := os.ReadFile(c.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(same, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s := configured(t, func(conf *mux.Config) {
		conf.Listeners[0].TLS = listeners.TLSConfig{Mode: "manual", Cert: a.Cert, Key: a.Key}
	})
	s.roots = ca.pool
	ws := s.webSocket(t)
	for _, step := range []struct {
		edit  func(*listeners.TLSConfig)
		name  string
		paths []string
	}{
		{func(c *listeners.TLSConfig) { c.Cert, c.Key = b.Cert, b.Key }, "b.test", []string{"cert", "key", "certificates"}},
		{func(conf *listeners.TLSConfig) {
			conf.Cert, conf.Key, conf.Certificates = "", "", []listeners.CertificateConfig{c, b}
		}, "c.test", []string{"cert", "key", "certificates", "certificates"}},
		{func(c *listeners.TLSConfig) { c.TicketKeys = file("one.keys") }, "c.test", []string{"ticket_keys", "certificates"}},
		{func(c *listeners.TLSConfig) { c.TicketKeys = file("two.keys") }, "c.test", []string{"ticket_keys", "certificates"}},
		// What the files hold is the same.
		{func(conf *listeners.TLSConfig) {
			conf.Certificates = []listeners.CertificateConfig{{Cert: c.Cert, Key: same}, b}
		}, "c.test", []string{"certificates"}},
	} {
		v := s.reload(t, func(c *mux.Config) { step.edit(&c.Listeners[0].TLS) })
		var paths []string
		for _, change := range v.Changes {
			paths = append(paths, strings.TrimPrefix(change.Path, "listeners[0].tls."))
			if change.Apply != mux.ApplyRuntime {
				t.Errorf("%+v", change)
			}
		}
		if diff := cmp.Diff(step.paths, paths); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{ServerName: step.name, RootCAs: ca.pool})
		if err != nil {
			t.Fatalf("%v: %v", step.paths, err)
		}
		_ = conn.Close()
		if n := s.Roots(); n != 1 {
			t.Errorf("%d sockets or generations of them, want 1", n)
		}
	}
	// From now on the last files are read, and no others.
	if err := os.Remove(a.Key); err != nil {
		t.Fatal(err)
	}
	if v := s.reload(t, func(*mux.Config) {}); v.Outcome != mux.OutcomeUnchanged {
		t.Errorf("%+v", v)
	}
	if err := os.Remove(b.Key); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Reload(s.Config(), "test"); err == nil {
		t.Errorf("a file that is gone: %+v", v)
	}
	v := s.reload(t, func(conf *mux.Config) {
		conf.Listeners[0].TLS.Certificates = []listeners.CertificateConfig{{Cert: c.Cert, Key: same}}
	})
	if n := s.Roots(); n != 1 || v.Outcome != mux.OutcomeApplied {
		t.Errorf("%d roots, %+v", n, v)
	}
	// The client is told where the listener changes in another way.
	s.reload(t, func(c *mux.Config) { c.Listeners[0].TLS.MinVersion = "1.3" })
	_, _, err = ws.Read(t.Context())
	if got := websocket.CloseStatus(err); got != websocket.StatusGoingAway {
		t.Errorf("the WebSocket got %v, %v", got, err)
	}
}

// TestUnknownNames counts handshakes for names that no certificate has.
func TestUnknownNames(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, ca.issue(t, "a.test"), cert, key)
	s := configured(t, func(c *mux.Config) { c.Listeners[0].TLS = listeners.TLSConfig{Cert: cert, Key: key} })
	dial := func(name string, trusts bool) {
		t.Helper()
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{ServerName: name, RootCAs: ca.pool, InsecureSkipVerify: trusts})
		if err == nil {
			_ = conn.Close()
		}
		if (err == nil) != (trusts || name == "a.test") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dial("a.test", false)
	dial("127.0.0.1", true) // It sends no name.
	dial("b.test", true)
	dial("b.test", false) // The client ends the handshake.
	eventually(t, "two names are counted", func() bool { return s.Stats().UnknownNames >= 2 })
	s.reload(t, func(c *mux.Config) { c.Listeners[0].Protocols = []string{"http1"} })
	dial("c.test", true)
	eventually(t, "a third is counted", func() bool { return s.Stats().UnknownNames >= 3 })
	if n := s.Stats().UnknownNames; n != 3 {
		t.Errorf("%d unknown names, want 3", n)
	}
}

// TestReloadCertificates: every reload reads changed files. With a broken file nothing
// changes.
func TestReloadCertificates(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func() { writePair(t, ca.issue(t, "server.test"), cert, key) }
	write()
	s := configured(t, func(c *mux.Config) { c.Listeners[0].TLS = listeners.TLSConfig{Cert: cert, Key: key} })
	if v := s.reload(t, func(*mux.Config) {}); v.Outcome != mux.OutcomeUnchanged {
		t.Errorf("%+v", v)
	}
	first := s.Certificates()[s.addr][0]
	write()
	v := s.reload(t, func(c *mux.Config) { c.HTTP1.MaxRequests = 7 })
	second := s.Certificates()[s.addr][0]
	if len(v.Changes) != 2 || v.Changes[1].Path != "certificates" || second.Equal(first) {
		t.Errorf("%+v", v)
	}
	// Where the socket is served another way, the new listener has read the files.
	write()
	v = s.reload(t, func(c *mux.Config) { c.Listeners[0].Protocols = []string{"http1"} })
	third := s.Certificates()[s.addr][0]
	if len(v.Changes) != 2 || v.Changes[1].Path != "certificates" || third.Equal(second) {
		t.Errorf("%+v", v)
	}
	if err := os.WriteFile(key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := s.Config()
	c.HTTP1.MaxRequests = 8
	if v, err := s.Reload(c, "test"); err == nil || s.Config().HTTP1.MaxRequests != 7 || !s.Certificates()[s.addr][0].Equal(third) {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestReloadBesideDrain: a drain that begins while a configuration is put in force does not
// close the sockets that change hands. Until it ends accepting, connections are served.
func TestReloadBesideDrain(t *testing.T) {
	t.Parallel()
	s := start(t, false)
	s.hold(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	if err := s.OnDrain(lifecycle.StepAnnounce, "hold", func(context.Context) error {
		close(begun)
		<-goOn
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var drained <-chan drainResult
	s.OnReload(func(_, _ mux.Config) (mux.ReloadPart, error) {
		drained = s.drain(t.Context())
		within(t, "the drain", begun)
		return mux.ReloadPart{}, nil
	})
	s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams++ })
	conn := s.dial(t)
	if resp := roundTrip(t, conn, bufio.NewReader(conn), "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	close(goOn)
	if r := within(t, "the end", drained); r.err != nil {
		t.Error(r.err)
	}
}
