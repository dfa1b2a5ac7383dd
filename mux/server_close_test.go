package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
)

// TestCloseBreaksBlockedWrite: Close does not wait for a handler that blocks in Write, on
// TLS that the caller of Serve brought.
func TestCloseBreaksBlockedWrite(t *testing.T) {
	ca := newAuthority(t)
	stall := &stallListener{Listener: listen(t), stalled: make(chan struct{})}
	ended := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		stall.on.Store(true)
		_, err := w.Write(make([]byte, 1<<20))
		ended <- err
	})
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard), mux.WithHandler(handler)),
		tls.NewListener(stall, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server.test")}}))
	s.roots = ca.pool
	send(t, s.dial(t), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	within(t, "the handler to be stuck", stall.stalled)
	if err := within(t, "Close", s.closing()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := within(t, "the handler", ended); err == nil {
		t.Error("the write did not fail")
	}
	within(t, "Serve", s.served)
	s.noStepLate(t)
	s.noneLeft(t)
}

// stallListener accepts connections whose Write blocks until they are closed, once on is
// set.
type stallListener struct {
	net.Listener
	on      atomic.Bool
	once    sync.Once
	stalled chan struct{} // closed when a Write blocks
}

func (l *stallListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: conn, l: l, closed: make(chan struct{})}, nil
}

type stallConn struct {
	net.Conn
	l      *stallListener
	once   sync.Once
	closed chan struct{}
}

func (c *stallConn) Write(b []byte) (int, error) {
	if !c.l.on.Load() {
		return c.Conn.Write(b)
	}
	c.l.once.Do(func() { close(c.l.stalled) })
	<-c.closed
	return 0, net.ErrClosed
}

func (c *stallConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestCloseMeetsAccept: Close also closes a connection that is accepted while Close
// closes the others.
func TestCloseMeetsAccept(t *testing.T) {
	l := &lateListener{release: make(chan struct{})}
	met := make(chan struct{})
	client, server := net.Pipe()
	defer client.Close()
	l.first = &hookedConn{Conn: server, onClose: sync.OnceFunc(func() {
		close(l.release)
		<-met
	})}
	client, server = net.Pipe()
	defer client.Close()
	meet := sync.OnceFunc(func() { close(met) })
	l.late = &hookedConn{Conn: server, onClose: meet, onRemoteAddr: meet}
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)), l)
	eventually(t, "accepted", func() bool { return s.active("sniffing") == 1 })
	if err := within(t, "Close", s.closing()); err != nil {
		t.Errorf("Close: %v", err)
	}
	within(t, "Serve", s.served)
	s.noStepLate(t)
	s.noneLeft(t)
}

// lateListener accepts one connection, and a second one on release.
type lateListener struct {
	first, late net.Conn
	accepts     int // Belongs to the goroutine that accepts.
	release     chan struct{}
}

func (l *lateListener) Accept() (net.Conn, error) {
	switch l.accepts++; l.accepts {
	case 1:
		return l.first, nil
	case 2:
		<-l.release
		return l.late, nil
	}
	return nil, net.ErrClosed
}

// SetDeadline makes the server believe that it can wake Accept without closing the
// listener.
func (*lateListener) SetDeadline(time.Time) error { return nil }

func (*lateListener) Close() error { return nil }

func (*lateListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// hookedConn calls its hooks before the method itself.
type hookedConn struct {
	net.Conn
	onClose, onRemoteAddr func() // nil: nothing
}

func (c *hookedConn) Close() error {
	c.onClose()
	return c.Conn.Close()
}

func (c *hookedConn) RemoteAddr() net.Addr {
	if c.onRemoteAddr != nil {
		c.onRemoteAddr()
	}
	return c.Conn.RemoteAddr()
}

var draining = map[string]uint64{"draining": 1}

// unrecognised are connections without a recognised protocol, whose clients do not react
// to the end of the stream.
var unrecognised = []struct {
	name  string
	bytes string
	tls   bool
	// rejected is how Close counts the connection. HTTP/2 without a request goes to its
	// server, which ends it if it can do so in time.
	rejected map[string]uint64
}{
	{name: "undecided HTTP/2", bytes: undecided},
	{name: "silent", rejected: draining},
	{name: "half a request", bytes: "GET / HT", rejected: draining},
	{name: "stalled TLS handshake", bytes: "\x16\x03\x01", tls: true, rejected: draining},
}

// waiting starts a server with one connection that has sent bytes and no more.
func waiting(t *testing.T, bytes string, withTLS bool, edit func(*mux.Config)) *server {
	t.Helper()
	s := start(t, withTLS, mux.Configure(patient), mux.Configure(edit))
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	send(t, conn, bytes)
	eventually(t, "the server has read it all", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].BytesReceived == uint64(len(bytes))
	})
	return s
}

// noStepLate reports steps of the finished drain that timed out or failed. Close does not
// return them.
func (s *server) noStepLate(t *testing.T) {
	t.Helper()
	report, _ := s.Drain(t.Context())
	for _, step := range report.Steps {
		if step.Status == lifecycle.StatusTimedOut || step.Status == lifecycle.StatusFailed {
			t.Errorf("step %s: %s, %v", step.Name, step.Status, step.Err)
		}
	}
}

// TestCloseAtOnce: Close waits for no timeout. A connection that it cuts counts once.
func TestCloseAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range unrecognised {
		t.Run(tt.name, func(t *testing.T) {
			s := waiting(t, tt.bytes, tt.tls, func(*mux.Config) {})
			if err := within(t, "Close", s.closing()); err != nil {
				t.Errorf("Close: %v", err)
			}
			s.noStepLate(t)
			s.noneLeft(t)
			// A handshake that ran into its own timeout would have another reason.
			if tt.rejected != nil {
				want := map[string]map[string]uint64{"sniffing": tt.rejected}
				if diff := cmp.Diff(want, s.Stats().Rejected); diff != "" {
					t.Errorf("rejected (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestForceAtOnce: the end of its context ends a drain as soon as Close would.
func TestForceAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range unrecognised {
		t.Run(tt.name, func(t *testing.T) {
			s := waiting(t, tt.bytes, tt.tls, func(c *mux.Config) { c.Drain.Delay = time.Hour; c.Drain.Timeout = 2 * time.Hour })
			ctx, force := context.WithCancel(t.Context())
			defer force()
			done := s.drain(ctx)
			eventually(t, "draining", func() bool { return s.Phase() == lifecycle.PhaseDraining })
			force()
			got := within(t, "the drain", done)
			if !errors.Is(got.err, lifecycle.ErrForced) {
				t.Errorf("drain: %v, want ErrForced", got.err)
			}
			s.noStepLate(t)
			if n := got.report.ForcedTotal(); n != 1 {
				t.Errorf("forced %v, want one", got.report.Forced)
			}
		})
	}
}

// TestCloseRefusesNewcomers: a client that sees its connection end, and connects again at
// once, is refused, as by net/http.
func TestCloseRefusesNewcomers(t *testing.T) {
	s := start(t, false, mux.Configure(patient))
	conn := s.hold(t)
	// Until then the response could be one that lasts until the connection ends, which a reset cuts.
	eventually(t, "the connection is idle", func() bool { return s.Connections()[0].State == pool.StateIdle.String() })
	closed := s.closing()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the open connection: %v", err)
	}
	if again, err := net.Dial("tcp", s.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, want it refused", err)
		if err == nil {
			_ = again.Close()
		}
	}
	if err := within(t, "Close", closed); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestCloseUnderLoad: Close closes connections at every stage of accepting and
// recognition, and none stays in the statistics.
func TestCloseUnderLoad(t *testing.T) {
	const (
		rounds  = 4
		dialers = 4
		enough  = 40  // connections before Close is called
		most    = 250 // connections of one dialer
	)
	for name, first := range map[string]string{
		"undecided HTTP/2": undecided,
		"HTTP/1.1":         "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for range rounds {
				s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)), listen(t))
				var wg sync.WaitGroup
				var dialed atomic.Int64
				leave := make(chan struct{})
				for range dialers {
					wg.Go(func() {
						for range most {
							conn, err := net.Dial("tcp", s.addr)
							if err != nil {
								break
							}
							defer conn.Close()
							_, _ = io.WriteString(conn, first)
							dialed.Add(1)
						}
						<-leave
					})
				}
				eventually(t, "under load", func() bool { return dialed.Load() >= enough })
				if err := within(t, "Close", s.closing()); err != nil {
					t.Errorf("Close: %v", err)
				}
				if err := within(t, "Serve", s.served); !errors.Is(err, mux.ErrServerClosed) {
					t.Errorf("Serve: %v", err)
				}
				s.noStepLate(t)
				s.noneLeft(t)
				close(leave)
				wg.Wait()
			}
		})
	}
}
