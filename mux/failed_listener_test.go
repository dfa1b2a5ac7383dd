package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

var errBroken = errors.New("broken")

// breaking is a socket whose Accept fails for good from some time on, as a wrapper's may.
type breaking struct {
	*net.TCPListener

	broken atomic.Bool
}

func (l *breaking) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err == nil && l.broken.Load() {
		_ = c.Close()
		err = errBroken
	}
	return c, err
}

// fail has the Accept that is under way fail, and all others.
func (l *breaking) fail(t *testing.T) {
	t.Helper()
	l.broken.Store(true)
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
	}
}

// kept is an HTTP/1.1 connection that is kept alive.
type kept struct {
	conn net.Conn
	r    *bufio.Reader
}

func newKept(t *testing.T, s *server) *kept {
	t.Helper()
	conn := s.dial(t)
	k := &kept{conn, bufio.NewReader(conn)}
	k.get(t)
	return k
}

// get exchanges a request and its response.
func (k *kept) get(t *testing.T) {
	t.Helper()
	resp := roundTrip(t, k.conn, k.r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s, %v", resp.Status, err)
	}
}

func listenBreaking(t *testing.T) *breaking {
	t.Helper()
	return &breaking{TCPListener: listen(t).(*net.TCPListener)}
}

// breakingSockets has mux.WithListen open breaking sockets.
type breakingSockets struct {
	mu   sync.Mutex // guards what follows
	open []*breaking
}

func (s *breakingSockets) listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, &breaking{TCPListener: l.(*net.TCPListener)})
	return s.open[len(s.open)-1], nil
}

// last returns the socket that was opened last at an address.
func (s *breakingSockets) last(address string) (found *breaking) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.open {
		if l.Addr().String() == address {
			found = l
		}
	}
	return found
}

// startBreaking serves configured addresses on breaking sockets.
func startBreaking(t *testing.T, options []mux.Option, configs ...listeners.Config) (m *mux.Server, sockets *breakingSockets, served <-chan error) {
	t.Helper()
	sockets = new(breakingSockets)
	m = mux.New(append(options, mux.WithListen(sockets.listen), mux.Configure(noDelay), mux.Configure(func(c *mux.Config) { c.Listeners = configs }))...)
	if err := m.Listen(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.ListenAndServe() }()
	t.Cleanup(func() { _ = m.Close() })
	eventually(t, "serving", func() bool { return m.Phase() == lifecycle.PhaseServing })
	return m, sockets, done
}

// expectBroken waits until Serve or ListenAndServe says why its listener has failed.
func expectBroken(t *testing.T, served <-chan error) {
	t.Helper()
	if err := within(t, "the end of serving", served); !errors.Is(err, errBroken) || errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("served: %v", err)
	}
}

// TestFailedListenerIsClosed: a listener that has failed is closed at once, so that its
// clients are refused and its address is free. Its connections, and the server's other
// listeners, go on. The address may be served again.
func TestFailedListenerIsClosed(t *testing.T) {
	for name, beside := range map[string]bool{"alone": false, "beside another one": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mux.New(mux.Configure(patient), mux.WithLogger(discard))
			l := listenBreaking(t)
			s := serveOn(t, m, l)
			idle := newKept(t, s.server)
			var other *running
			if beside {
				other = serveOn(t, m, listen(t))
				other.status(t, "/livez")
			}
			l.fail(t)
			expectBroken(t, s.served)
			s.stopsListening(t)
			idle.get(t)
			if beside {
				if got := other.status(t, "/livez"); got != http.StatusOK {
					t.Errorf("the other listener: %d", got)
				}
			}
			again, err := net.Listen("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			if got := serveOn(t, m, again).status(t, "/livez"); got != http.StatusOK {
				t.Errorf("served again: %d", got)
			}
			if err := m.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			s.noneLeft(t)
		})
	}
}

// TestFailedListenerAtReload: a reload that makes new servers tells the clients of a listener
// that has failed to leave, and leaves the listener alone.
func TestFailedListenerAtReload(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	l := listenBreaking(t)
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(recordingLog(&log))), l)
	idle := newKept(t, s.server)
	other := serveOn(t, s.Server, listen(t))
	l.fail(t)
	expectBroken(t, s.served)
	s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams = 20 })
	if _, err := idle.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	if got := other.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("the other listener: %d", got)
	}
	if got := strings.Count(log.String(), "listener failed"); got != 1 {
		t.Errorf("%d failures in the log:\n%s", got, log.String())
	}
}

// TestFailedConfiguredListener: ListenAndServe goes on until the last listener has failed.
// Those that have are closed, and listed no more.
func TestFailedConfiguredListener(t *testing.T) {
	t.Parallel()
	m, sockets, served := startBreaking(t, []mux.Option{mux.WithLogger(discard)}, listeners.Config{Address: "127.0.0.1:0"}, listeners.Config{Address: "127.0.0.1:0"})
	addrs := m.Addrs()
	for i, addr := range addrs {
		s := &server{Server: m, addr: addr.String()}
		if got := s.status(t, "/livez"); got != http.StatusOK {
			t.Errorf("status %d", got)
		}
		sockets.last(s.addr).fail(t)
		s.stopsListening(t)
		if left := m.Addrs(); len(left) != len(addrs)-1-i || len(left) > 0 && left[0] != addrs[1] {
			t.Errorf("open: %v", left)
		}
	}
	expectBroken(t, served)
}

// TestReloadOpensFailedListener: a reload opens the address of a listener that has failed
// anew, whatever it changes.
func TestReloadOpensFailedListener(t *testing.T) {
	t.Parallel()
	m, sockets, _ := startBreaking(t, []mux.Option{mux.WithLogger(discard)}, listeners.Config{Address: freeAddress(t)}, listeners.Config{Address: freeAddress(t)})
	s := &server{Server: m, addr: m.Addrs()[0].String()}
	for i, edit := range []func(*mux.Config){
		func(c *mux.Config) { c.Limits.MaxConnections = 100 },
		func(c *mux.Config) { c.HTTP2.MaxStreams = 20 },
		func(c *mux.Config) { c.Listeners[0].Protocols = []string{"http1"} },
	} {
		sockets.last(s.addr).fail(t)
		s.stopsListening(t)
		s.reload(t, edit)
		if got := s.status(t, "/livez"); got != http.StatusOK || len(m.Addrs()) != 2 {
			t.Errorf("behind reload %d: %d, open: %v", i, got, m.Addrs())
		}
	}
}

// TestListenerFailsDuringReload: whichever comes first, the failure of a listener or the
// reload that serves it another way, the socket is closed when it fails, and the next reload
// opens the address.
func TestListenerFailsDuringReload(t *testing.T) {
	t.Parallel()
	m, sockets, _ := startBreaking(t, []mux.Option{mux.WithLogger(discard)}, listeners.Config{Address: freeAddress(t)}, listeners.Config{Address: freeAddress(t)})
	s := &server{Server: m, addr: m.Addrs()[0].String()}
	for i := range 20 {
		var failing sync.WaitGroup
		failing.Go(func() { sockets.last(s.addr).fail(t) })
		s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams = uint32(20 + i) })
		failing.Wait()
		eventually(t, "failed", func() bool {
			// The reload may have served the socket another way, or have opened the address.
			sockets.last(s.addr).fail(t)
			return len(m.Addrs()) == 1
		})
		s.stopsListening(t)
		s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams = uint32(100 + i) })
		if got := s.status(t, "/livez"); got != http.StatusOK {
			t.Fatalf("round %d: %d", i, got)
		}
	}
}

// TestListenerFailsDuringDrain: a listener that fails within drain.delay is closed, and fails
// no step of the drain.
func TestListenerFailsDuringDrain(t *testing.T) {
	t.Parallel()
	l := listenBreaking(t)
	s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard)), l)
	begun, release := make(chan struct{}), make(chan struct{})
	err := s.OnDrain(lifecycle.StepDrainDelay, "hold", func(context.Context) error {
		close(begun)
		<-release
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "serving", func() bool { return s.Phase() == lifecycle.PhaseServing })
	drained := s.drain(t.Context())
	within(t, "the drain to begin", begun)
	l.fail(t)
	s.stopsListening(t)
	close(release)
	for _, step := range within(t, "the drain", drained).report.Steps {
		if step.Err != nil && step.Name != lifecycle.StepDrainDelay { // The hook may overstay its time.
			t.Errorf("%s: %v", step.Name, step.Err)
		}
	}
	if err := within(t, "Serve", s.served); !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
}
