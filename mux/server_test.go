package mux_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// meetShutdown runs serve functions and Shutdown at nearly the same time, in round i with
// a delay of its own. It reports errors.
func meetShutdown(t *testing.T, i int, m *mux.Server, serve ...func() error) {
	t.Helper()
	var wg sync.WaitGroup
	for _, serve := range serve {
		wg.Go(func() {
			if err := serve(); !errors.Is(err, mux.ErrServerClosed) {
				t.Errorf("serving: %v", err)
			}
		})
	}
	wg.Go(func() {
		time.Sleep(time.Duration(i%20) * 100 * time.Microsecond)
		if err := m.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	wg.Wait()
}

// shutdownRounds is how often Shutdown meets the start of a server.
const shutdownRounds = 150

// TestServeMeetsShutdown: Serve and Shutdown at the same moment.
func TestServeMeetsShutdown(t *testing.T) {
	t.Parallel()
	for i := range shutdownRounds {
		m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
		first, second := listen(t), listen(t)
		meetShutdown(t, i, m, func() error { return m.Serve(first) }, func() error { return m.Serve(second) })
		for _, l := range []net.Listener{first, second} {
			if err := l.(*net.TCPListener).SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("round %d: a listener is open: %v", i, err)
			}
		}
	}
}

// TestListenMeetsShutdown: ListenAndServe and Shutdown at the same moment.
func TestListenMeetsShutdown(t *testing.T) {
	t.Parallel()
	for i := range shutdownRounds {
		m := mux.New(mux.Configure(func(c *mux.Config) { noDelay(c); c.Listeners[0].Address = "127.0.0.1:0" }), mux.WithLogger(discard))
		meetShutdown(t, i, m, m.ListenAndServe)
		for _, addr := range m.Addrs() {
			// Another process may have got the port by now. It does not keep it.
			(&server{Server: m, addr: addr.String()}).stopsListening(t)
		}
	}
}

// TestServeReturnsWhenListenerFails: Serve does not wait for a silent client.
func TestServeReturnsWhenListenerFails(t *testing.T) {
	l := listen(t)
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)), l)
	send(t, s.dial(t), undecided)
	eventually(t, "undecided", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].BytesSent > 0 // The server's SETTINGS.
	})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	err := within(t, "Serve", s.served)
	if err == nil || errors.Is(err, mux.ErrServerClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	s.noneLeft(t)
}

// twoListeners serves two configured addresses.
func twoListeners(t *testing.T, options ...mux.Option) (m *mux.Server, first, second *server, served <-chan error) {
	t.Helper()
	m = mux.New(append(options, mux.Configure(noDelay), mux.Configure(func(c *mux.Config) {
		c.Listeners = []listeners.Config{{Address: "127.0.0.1:0"}, {Address: "127.0.0.1:0"}}
	}))...)
	if err := m.Listen(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.ListenAndServe() }()
	t.Cleanup(func() { _ = m.Close() })
	addrs := m.Addrs()
	first, second = &server{Server: m, addr: addrs[0].String()}, &server{Server: m, addr: addrs[1].String()}
	for _, s := range []*server{first, second} {
		if got := s.status(t, "/livez"); got != http.StatusOK {
			t.Fatalf("%s: %d", s.addr, got)
		}
	}
	return m, first, second, done
}

// TestOneListenerFails: the failure of one listener is logged at once, and the other one
// goes on.
func TestOneListenerFails(t *testing.T) {
	var log syncBuffer
	m, first, second, served := twoListeners(t, mux.WithLogger(recordingLog(&log)))
	if err := m.FailListener(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "logged", func() bool {
		return strings.Contains(log.String(), "listener failed") && strings.Contains(log.String(), first.addr)
	})
	if strings.Contains(log.String(), second.addr) {
		t.Errorf("the other listener is in the log:\n%s", log.String())
	}
	if got := second.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("the other listener: %d", got)
	}
	select {
	case err := <-served:
		t.Errorf("ListenAndServe: %v", err)
	default:
	}
	if err := m.Shutdown(t.Context()); err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := within(t, "ListenAndServe", served); !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("ListenAndServe: %v", err)
	}
}

// TestListenAndServeTwice: the second call returns an error, and does not disturb the
// first.
func TestListenAndServeTwice(t *testing.T) {
	m, first, _, served := twoListeners(t, mux.WithLogger(discard))
	second := make(chan error, 1)
	go func() { second <- m.ListenAndServe() }()
	if err := within(t, "the second call", second); err == nil || errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("second ListenAndServe: %v", err)
	}
	if got := first.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("the first call's listener: %d", got)
	}
	if err := m.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := within(t, "the first call", served); !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("first ListenAndServe: %v", err)
	}
}

// closeNoting is a listener that reports its end.
type closeNoting struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

func (l *closeNoting) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// TestServeDuringDrain: Serve closes a late listener at once, and returns ErrServerClosed
// when the drain is over.
func TestServeDuringDrain(t *testing.T) {
	s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard)), listen(t))
	begun, release := make(chan struct{}), make(chan struct{})
	err := s.OnDrain(lifecycle.StepDrainDelay, "hold", func(context.Context) error {
		close(begun)
		<-release
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done := s.drain(t.Context())
	within(t, "the drain to begin", begun)
	type result struct {
		err   error
		phase lifecycle.Phase
	}
	late := &closeNoting{Listener: listen(t), closed: make(chan struct{})}
	returned := make(chan result, 1)
	go func() {
		err := s.Serve(late)
		returned <- result{err, s.Phase()}
	}()
	within(t, "the listener closed", late.closed)
	close(release)
	got := within(t, "Serve", returned)
	if !errors.Is(got.err, mux.ErrServerClosed) || got.phase != lifecycle.PhaseStopped {
		t.Errorf("Serve: %v in phase %s", got.err, got.phase)
	}
	<-done
}

// TestListenAllOrNothing: where one bind fails, Listen closes the earlier listeners and
// names the address.
func TestListenAllOrNothing(t *testing.T) {
	taken := listen(t)
	defer taken.Close()
	free := listen(t)
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

// TestServerOf: ServerOf returns the server of each protocol, with the native server
// behind it.
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

// momentaryError says Temporary, and no more.
type momentaryError struct{}

func (momentaryError) Error() string   { return "a moment" }
func (momentaryError) Temporary() bool { return true }

// momentaryListener fails once.
type momentaryListener struct {
	net.Listener
	failed bool
}

func (l *momentaryListener) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, momentaryError{}
	}
	return l.Listener.Accept()
}

// TestServeOutlastsTemporary: an error of Accept that says no more than Temporary does not
// end Serve, as grpc-go's goes on.
func TestServeOutlastsTemporary(t *testing.T) {
	m, _ := newServer(t, false)
	s := serveOn(t, m, &momentaryListener{Listener: listen(t)})
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("status %d", got)
	}
}
