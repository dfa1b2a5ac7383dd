package mux_test

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

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

// freeAddress returns an address without a listener.
func freeAddress(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
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

// TestReloadPlan: the plan has every key that differs and how it is applied, and no
// secrets.
func TestReloadPlan(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	c := s.Config()
	address := c.Listeners[0].Address
	if p, err := s.Plan(c); err != nil || len(p) != 0 {
		t.Errorf("no change: %v, %v", p, err)
	}
	c.HTTP1.MaxAge = time.Minute
	c.HTTP1.Progress.MinBodyRate = 7
	c.GRPC.MaxRecvBytes = 5
	c.Listeners[0].Protocols = []string{"http1"}
	c.Listeners[0].TLS = listeners.TLSConfig{Mode: "manual", Cert: "cert.pem", Key: "-----BEGIN SECRET", KeyPassphrase: "secret"}
	c.Listeners = append(c.Listeners, listeners.Config{Address: "127.0.0.1:1"})
	p, err := s.Plan(c)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, change := range p {
		got[change.Path] = change.Old + " -> " + change.New + " " + change.Apply
		if change.How == "" {
			t.Errorf("%s: how?", change.Path)
		}
		if strings.Contains(change.New, "SECRET") || strings.Contains(change.New, "secret") {
			t.Errorf("%s shows a secret: %s", change.Path, change.New)
		}
	}
	for path, want := range map[string]string{
		"http1.max_age":          "0s -> 1m0s runtime",
		"http1.min_body_rate":    "240 -> 7 runtime",
		"grpc.max_recv_bytes":    "4194304 -> 5 restart",
		"listeners[0].protocols": "[http1 http2 grpc websocket] -> [http1] restart",
		"listeners[0].tls.mode":  "off -> manual restart",
		"listeners[1].address":   " -> 127.0.0.1:1 restart",
		"listeners[0].tls.cert":  " -> cert.pem runtime",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
	if _, ok := got["listeners[0].tls.key_passphrase"]; !ok {
		t.Errorf("no change of the passphrase in %v", got)
	}
	c.HTTP1.MaxAge, c.HTTP2.MaxStreams = -1, 0
	if _, err := s.Plan(c); err == nil || !strings.Contains(err.Error(), "http1.max_age") || !strings.Contains(err.Error(), "http2.max_streams") {
		t.Errorf("faults: %v", err)
	}
	if address != s.Config().Listeners[0].Address {
		t.Error("the plan has changed something")
	}
}

// TestReloadRuntime: limits and times change for open connections, and no connection is
// refused or closed.
func TestReloadRuntime(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	_ = roundTrip(t, conn, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	v := s.reload(t, func(c *mux.Config) {
		c.HTTP1.MaxConnections = 1
		c.HTTP1.MaxRequests = 3
		c.Drain.Spread = time.Millisecond
		c.Health.DegradedAbove = 0.5
	})
	if v.Outcome != mux.OutcomeApplied || v.Number != 2 || len(v.Changes) != 4 {
		t.Errorf("%+v", v)
	}
	if got := s.status(t, "/livez"); got != http.StatusServiceUnavailable {
		t.Errorf("above the new limit: %d", got)
	}
	for i := range 2 {
		resp := roundTrip(t, conn, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, resp.Body)
		if want := i == 1; resp.Close != want {
			t.Errorf("request %d of 3: Connection: close %v", i+2, resp.Close)
		}
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
	// The old connection is told, which moves its next call, and keeps its stream.
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

// TestReloadKeepsSocket: no connection is refused or lost while the listener's settings
// change many times.
func TestReloadKeepsSocket(t *testing.T) {
	t.Parallel()
	s := configured(t, func(c *mux.Config) { c.Drain.Spread = 20 * time.Millisecond })
	var stop atomic.Bool
	failed := make(chan error, 4)
	for range 4 {
		go func() {
			for !stop.Load() {
				if err := oneRequest(s.addr); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	const changes = 40
	all := []string{"http1", "http2", "grpc", "websocket"}
	for i := range changes {
		s.reload(t, func(c *mux.Config) {
			c.Listeners[0].Protocols = all[:1+i%4]
			c.HTTP1.IdleTimeout = time.Duration(i+1) * time.Minute
		})
	}
	stop.Store(true)
	for range 4 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "one generation is left", func() bool { return s.Backends() == 1 })
}

// oneRequest makes a request on a new connection.
func oneRequest(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// TestReloadFails: a failed change leaves everything as it was.
func TestReloadFails(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	taken := listen(t)
	defer taken.Close()
	refusal := errors.New("not on a Friday")
	var opened, closed int
	s.OnReload(func(_, _ mux.Config) (mux.ReloadPart, error) {
		opened++
		return mux.ReloadPart{Undo: func() { closed++ }, Commit: func() { t.Error("committed") }}, nil
	})
	s.OnReload(func(_, to mux.Config) (mux.ReloadPart, error) {
		if to.HTTP1.MaxConnections == 13 {
			return mux.ReloadPart{}, refusal
		}
		if to.HTTP1.MaxConnections == 14 {
			panic("fourteen")
		}
		return mux.ReloadPart{}, nil
	})
	before := s.Config()
	free := freeAddress(t)
	for name, edit := range map[string]func(*mux.Config){
		"not valid": func(c *mux.Config) { c.HTTP1.MaxAge = -1 },
		"address taken": func(c *mux.Config) {
			c.Listeners = append([]listeners.Config{{Address: free}}, listeners.Config{Address: taken.Addr().String()})
		},
		"no certificate": func(c *mux.Config) {
			c.Listeners[0].TLS = listeners.TLSConfig{Mode: "manual", Cert: "/nowhere.pem", Key: "/nowhere.key"}
		},
		"refused":  func(c *mux.Config) { c.HTTP1.MaxConnections = 13 },
		"panicked": func(c *mux.Config) { c.HTTP1.MaxConnections = 14 },
	} {
		c := s.Config()
		edit(&c)
		c.Limits.PerAddress = 99
		v, err := s.Reload(c, "test")
		if err == nil || v.Outcome != mux.OutcomeFailed || v.Err != err.Error() {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		if name == "refused" && !errors.Is(err, refusal) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, s.Config()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
		if got := s.status(t, "/livez"); got != http.StatusOK {
			t.Errorf("%s: %d", name, got)
		}
		if l, err := net.Listen("tcp", free); err != nil {
			t.Errorf("%s: what was bound was not given back: %v", name, err)
		} else {
			_ = l.Close()
		}
	}
	if opened != 4 || closed != opened {
		t.Errorf("a function of OnReload was asked %d times and undone %d times", opened, closed)
	}
}

// TestHistory: the last 20 versions are kept, and a rollback puts one of them in force
// again.
func TestHistory(t *testing.T) {
	s := configured(t, func(*mux.Config) {})
	first := s.Config().Limits.PerAddress
	for i := range 25 {
		s.reload(t, func(c *mux.Config) { c.Limits.PerAddress = 1000 + i })
	}
	history := s.History().Versions
	if len(history) != 20 || history[19].Number != 26 || history[0].Number != 7 {
		t.Fatalf("%d versions, from %d to %d", len(history), history[0].Number, history[len(history)-1].Number)
	}
	v, err := s.Rollback(20, "operator")
	if err != nil || v.Number != 27 || v.Origin != "operator, rollback to 20" {
		t.Errorf("%+v, %v", v, err)
	}
	if got := s.Config().Limits.PerAddress; got != 1018 {
		t.Errorf("per_address %d", got)
	}
	if _, err := s.Rollback(1, "operator"); err == nil {
		t.Errorf("rolled back to a version that is forgotten, with per_address %d", first)
	}
	c := s.Config()
	c.HTTP1.MaxAge = -1
	failed, _ := s.Reload(c, "test")
	if _, err := s.Rollback(failed.Number, "operator"); err == nil || !strings.Contains(err.Error(), "never in force") {
		t.Error(err)
	}
}

// TestReloadAtTheWrongTime: Reload fails before the server serves and from the drain on.
func TestReloadAtTheWrongTime(t *testing.T) {
	m := mux.New(mux.WithLogger(discard))
	c := m.Config()
	c.HTTP1.MaxRequests = 5
	if _, err := m.Reload(c, "test"); !errors.Is(err, mux.ErrNotServing) {
		t.Errorf("before: %v", err)
	}
	_ = m.Close()
	if _, err := m.Reload(c, "test"); !errors.Is(err, mux.ErrNotServing) {
		t.Errorf("after: %v", err)
	}
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
	second, third := s.hold(t), s.dial(t)
	if _, err := io.WriteString(third, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
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

// TestReloadExtra: the embedder's own keys change together with the server's, are in the
// same version, and are rolled back.
func TestReloadExtra(t *testing.T) {
	s := configured(t, func(c *mux.Config) { c.Extra = "a" })
	inForce := "a"
	s.OnReload(func(from, to mux.Config) (mux.ReloadPart, error) {
		if from.Extra != inForce {
			t.Errorf("from %v, in force is %s", from.Extra, inForce)
		}
		was, is := from.Extra.(string), to.Extra.(string)
		part := mux.ReloadPart{Commit: func() { inForce = is }}
		if was != is {
			part.Changes = []mux.Change{{Path: "own", Old: was, New: is, Apply: mux.ApplyRuntime, How: "at once"}}
		}
		return part, nil
	})
	v := s.reload(t, func(c *mux.Config) { c.Extra, c.HTTP1.MaxRequests = "b", 7 })
	if len(v.Changes) != 2 || v.Changes[0].Path != "http1.max_requests" || v.Changes[1].Path != "own" || inForce != "b" {
		t.Errorf("%+v, in force %s", v, inForce)
	}
	if v := s.reload(t, func(c *mux.Config) { c.Extra = "c" }); v.Number != 3 || len(v.Changes) != 1 || inForce != "c" {
		t.Errorf("%+v, in force %s", v, inForce)
	}
	if v := s.reload(t, func(*mux.Config) {}); v.Number != 3 || v.Outcome != mux.OutcomeUnchanged {
		t.Errorf("%+v", v)
	}
	faulty := errors.New("not YAML")
	v, err := s.ReloadFunc("file", func(c mux.Config) (mux.Config, error) {
		c.Extra = "d"
		return c, faulty
	})
	if !errors.Is(err, faulty) || v.Number != 4 || v.Err != "not YAML" || inForce != "c" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err = s.Rollback(2, "operator"); err != nil || v.Number != 5 || inForce != "b" || s.Config().Extra != "b" {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestReloadCertificates: every reload reads changed files. With a broken file nothing
// changes.
func TestReloadCertificates(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func() {
		t.Helper()
		pair := ca.issue(t, "server.test")
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
	write()
	s := configured(t, func(c *mux.Config) { c.Listeners[0].TLS = listeners.TLSConfig{Cert: cert, Key: key} })
	if v := s.reload(t, func(*mux.Config) {}); v.Outcome != mux.OutcomeUnchanged {
		t.Errorf("%+v", v)
	}
	first := s.Certificates()[s.addr]
	write()
	v := s.reload(t, func(c *mux.Config) { c.HTTP1.MaxRequests = 7 })
	second := s.Certificates()[s.addr]
	if len(v.Changes) != 2 || v.Changes[1].Path != "certificates" || second.Equal(first) {
		t.Errorf("%+v", v)
	}
	if err := os.WriteFile(key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := s.Config()
	c.HTTP1.MaxRequests = 8
	if v, err := s.Reload(c, "test"); err == nil || s.Config().HTTP1.MaxRequests != 7 || !s.Certificates()[s.addr].Equal(second) {
		t.Errorf("%+v, %v", v, err)
	}
}
