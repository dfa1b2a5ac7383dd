package mux_test

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// eventLog collects events.
type eventLog struct {
	mu     sync.Mutex
	events []mux.Event
}

func observe(t *testing.T, s *mux.Server) *eventLog {
	t.Helper()
	l := new(eventLog)
	t.Cleanup(s.Observe(func(e mux.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, e)
	}))
	return l
}

// count returns how many events of a kind there were for a reason.
func (l *eventLog) count(kind mux.EventKind, tag protocols.Protocol, reason string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind && e.Protocol == string(tag) && e.Reason == reason {
			n++
		}
	}
	return n
}

// TestTimeoutReasons: the event of a connection that a timeout has closed names that
// timeout.
func TestTimeoutReasons(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.HTTP1.HeaderTimeout, c.HTTP1.IdleTimeout = time.Second, 100*time.Millisecond
		c.Sniff.Timeout = time.Second
	}))
	events := observe(t, s.Server)
	idle := s.dial(t)
	r := bufio.NewReader(idle)
	_ = roundTrip(t, idle, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	half := s.dial(t)
	send(t, half, "GET / HTTP/1.1\r\nHost: x\r\n")
	eventually(t, "both are closed", func() bool {
		return events.count(mux.EventRemoved, protocols.HTTP1, "idle_timeout") == 1 &&
			events.count(mux.EventRemoved, protocols.HTTP1, "header_timeout") == 1
	})
	for _, reason := range []string{"idle_timeout", "header_timeout"} {
		if n := events.count(mux.EventTimeout, protocols.HTTP1, reason); n != 1 {
			t.Errorf("%s: %d timeouts", reason, n)
		}
	}
	if got := s.Stats().Closed["http1"]; got["idle_timeout"] != 1 || got["header_timeout"] != 1 {
		t.Errorf("closed: %v", got)
	}
}

// TestObserverAtClose: an observer may call the server, also when a drain drops the queue
// of a custom listener.
func TestObserverAtClose(t *testing.T) {
	t.Parallel()
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-")) // The test never accepts.
	l := listen(t)
	go func() { _ = m.Serve(l) }()
	m.Observe(func(e mux.Event) {
		if e.Kind == mux.EventRemoved {
			_ = m.Stats()
		}
	})
	s := &server{Server: m, addr: l.Addr().String()}
	conn := s.dial(t)
	send(t, conn, "SSH-2.0-x\r\n")
	eventually(t, "queued", func() bool { return m.Stats().Pools["ssh"].Active == 1 })
	done := make(chan error, 1)
	go func() { done <- m.Shutdown(t.Context()) }()
	select {
	case err := <-done:
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Fatal("the drain hangs: the observer is called under the server's lock")
	}
}

// TestTimersAreObservable: every timeout that runs out is an event with its reason.
func TestTimersAreObservable(t *testing.T) {
	t.Parallel()
	short := mux.Configure(func(c *mux.Config) {
		c.HTTP2.IdleTimeout, c.GRPC.MaxIdle = 200*time.Millisecond, 200*time.Millisecond
		c.HTTP2.PingInterval, c.HTTP2.PingTimeout = 0, 0
	})
	t.Run("HTTP/2 idle", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, short)
		events := observe(t, s.Server)
		resp, err := s.client(t, 2).Get("http://" + s.addr + "/echo")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		eventually(t, "closed", func() bool { return s.active("http2") == 0 })
		eventually(t, "the timeout is told", func() bool { return events.count(mux.EventTimeout, protocols.HTTP2, "idle_timeout") == 1 })
	})
	t.Run("gRPC idle", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, short)
		events := observe(t, s.Server)
		if _, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "closed", func() bool { return s.active("grpc") == 0 })
		eventually(t, "the timeout is told", func() bool { return events.count(mux.EventTimeout, protocols.GRPC, "idle_timeout") == 1 })
	})
	t.Run("gRPC age", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, mux.Configure(func(c *mux.Config) { c.GRPC.MaxAge, c.GRPC.MaxAgeGrace = 200*time.Millisecond, 100*time.Millisecond }))
		if _, err := testpb.NewTestServiceClient(s.grpcClient(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "closed", func() bool { return s.active("grpc") == 0 })
		if s.Stats().Closed["grpc"]["max_age"] == 0 {
			t.Errorf("closed %v", s.Stats().Closed)
		}
	})
}

// TestCloseReasonsAreListed: what connections were closed for stands in the list of reasons.
func TestCloseReasonsAreListed(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.Limits.MaxConnections = 1 }))
	behindBusy(t, s)
	speaks("SSH-2.0-x\r\n\r\n")(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.noneLeft(t)
	closed := s.Stats().Closed
	if len(closed) == 0 {
		t.Error("nothing was closed")
	}
	for tag, reasons := range closed {
		for reason := range reasons {
			if !slices.Contains(mux.CloseReasons(), reason) {
				t.Errorf("%s: %s is not listed", tag, reason)
			}
		}
	}
}

// TestAllCloseReasonsAreListed: CloseReasons has each reason that reasons.go declares.
func TestAllCloseReasonsAreListed(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, d := range file.Decls {
		constants, ok := d.(*ast.GenDecl)
		if !ok || constants.Tok != token.CONST {
			continue
		}
		for _, s := range constants.Specs {
			spec, ok := s.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "reason") {
				continue
			}
			declared++
			reason, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil || !slices.Contains(mux.CloseReasons(), reason) {
				t.Errorf("%s %q is not listed, %v", spec.Names[0].Name, reason, err)
			}
		}
	}
	if declared == 0 {
		t.Error("no reason was found")
	}
}
