package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// localClient returns an HTTP client of one version, in the process.
func localClient(t *testing.T, m *mux.Server, version int) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(version == 1)
	p.SetUnencryptedHTTP2(version == 2)
	tr := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return m.Dial(ctx) }}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// localCalls returns a gRPC client in the process.
func localCalls(t *testing.T, m *mux.Server) testpb.TestServiceClient {
	t.Helper()
	return countedCalls(t, m, new(atomic.Int32))
}

// countedCalls is localCalls, and counts the connections that are made.
func countedCalls(t *testing.T, m *mux.Server, dials *atomic.Int32) testpb.TestServiceClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:mux", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			dials.Add(1)
			return m.Dial(ctx)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return testpb.NewTestServiceClient(cc)
}

// checkLocal uses every HTTP version and gRPC.
func checkLocal(t *testing.T, m *mux.Server) {
	t.Helper()
	for version := 1; version <= 2; version++ {
		client := localClient(t, m, version)
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://mux/echo")
		if err != nil {
			t.Errorf("HTTP/%d: %v", version, err)
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != version {
			t.Errorf("HTTP/%d: %s %s, %v", version, resp.Proto, resp.Status, err)
		}
	}
	if _, err := localCalls(t, m).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
		t.Errorf("call: %v", err)
	}
}

// TestDial: in-process connections are served before a listener is, without TLS, above the
// limits, and by the new servers of a reload.
func TestDial(t *testing.T) {
	m, roots := newServer(t, true, mux.Configure(func(c *mux.Config) {
		c.Limits.MaxConnections = 1
		c.HTTP1.MaxConnections = 1
	}))
	checkLocal(t, m)
	s0 := &server{Server: m}
	if m.Phase() != mux.PhaseNew {
		t.Errorf("the server is %s", m.Phase())
	}
	eventually(t, "none left", func() bool { return s0.counts()["http1"] == 0 })
	s := serve(t, m)
	s.roots = roots
	eventually(t, "serving", func() bool { return m.Phase() == mux.PhaseServing })
	if got := m.Servers()[0].Addresses; len(got) != 1 || got[0] != s.addr {
		t.Errorf("addresses: %v", got)
	}
	s.hold(t)
	checkLocal(t, m)

	local := localCalls(t, m)
	stream, err := local.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	echo := func() {
		t.Helper()
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	c := m.Config()
	c.GRPC.MaxRecvBytes++
	c.HTTP2.MaxStreams++
	if _, err := m.Reload(c, "test"); err != nil {
		t.Fatal(err)
	}
	checkLocal(t, m)
	echo() // What is under way goes on.
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the stream: %v", err)
	}
}

// TestDialInDrain: what serves others by in-process connections, as grpc-gateway does on a
// port of its own, works as long as the drain waits for anything.
func TestDialInDrain(t *testing.T) {
	s := start(t, false, mux.Configure(patient))
	var dials atomic.Int32
	warm := countedCalls(t, s.Server, &dials)
	if _, err := warm.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := warm
		if r.URL.Path == "/cold" {
			client = localCalls(t, s.Server)
		}
		if _, err := client.UnaryCall(r.Context(), &testpb.SimpleRequest{}); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}))
	defer gateway.Close()
	ask := func(path string) {
		t.Helper()
		resp, err := http.Get(gateway.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
	held, echo := s.echoCall(t)
	echo("before")
	waiting := s.begun(t, mux.StepWaitConnections)
	ended := s.drain(context.Background())
	within(t, "the drain to wait", waiting)
	for range 3 {
		ask("/warm")
		ask("/cold")
	}
	echo("in the drain")
	inFlight, err := warm.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := inFlight.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := inFlight.Recv(); err != nil {
		t.Fatal(err)
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("the client was told to leave before the others had left: %d connections", n)
	}
	if err := held.CloseSend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no more in-process connections", func() bool {
		conn, err := s.Dial(t.Context())
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, mux.ErrServerClosed)
	})
	if err := inFlight.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := inFlight.Recv(); err != nil {
		t.Errorf("what is under way does not go on: %v", err)
	}
	if err := inFlight.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if got := within(t, "the drain", ended); got.err != nil || len(got.report.Forced) > 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
	if _, err := s.Dial(t.Context()); !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("after the drain: %v", err)
	}
}

// TestDrainOfInProcessAlone: a drain tells in-process clients also where no listener was
// served.
func TestDrainOfInProcessAlone(t *testing.T) {
	m, _ := newServer(t, false)
	conn, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c := newH2Client(t, conn, bufio.NewReader(conn)) // What is written in one piece is read in one.
	c.ready()
	c.get(1, "/echo")
	_ = c.rest(1)
	ended := (&server{Server: m}).drain(context.Background())
	if last, codes := c.goAways(nil); len(last) == 0 || codes[0] != http2.ErrCodeNo {
		t.Errorf("GOAWAYs %d, %v", last, codes)
	}
	if got := within(t, "the drain", ended); got.err != nil || len(got.report.Forced) > 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}

// TestDialAtClose: Close does not wait for in-process connections.
func TestDialAtClose(t *testing.T) {
	m, _ := newServer(t, false)
	stream, err := localCalls(t, m).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	silent, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a silent connection: %v", err)
	}
}

// TestDialBesideReload: a reload that makes other servers while Dial waits for the old ones
// does not end Dial.
func TestDialBesideReload(t *testing.T) {
	s := start(t, false)
	first, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	eventually(t, "it has ended", func() bool { return len(s.Connections()) == 0 })
	ctx := &hookedContext{Context: t.Context(), hook: func() {
		s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams++ })
		time.Sleep(100 * time.Millisecond) // The old servers accept no more.
	}}
	var cancel context.CancelFunc
	ctx.Context, cancel = context.WithTimeout(ctx.Context, 20*time.Second)
	defer cancel()
	conn, err := s.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if ctx.hook != nil {
		t.Error("Dial has not asked the context")
	}
}

// A hookedContext calls hook before it is first waited for.
type hookedContext struct {
	context.Context

	hook func()
}

func (c *hookedContext) Done() <-chan struct{} {
	if hook := c.hook; hook != nil {
		c.hook = nil
		hook()
	}
	return c.Context.Done()
}
