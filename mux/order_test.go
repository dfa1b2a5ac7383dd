package mux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// ordered is a server whose methods are called in some order, and what must be true of it.
type ordered struct {
	*mux.Server

	sockets sockets
	paths   [2]string // of a Unix socket: the configured one, and that of the reload
	kept    string    // the address that stays; empty until it is open
	brought string    // the address that Serve was called with

	open     bool // the configured listeners are open
	serves   bool // ListenAndServe was called
	dials    bool // Dial was called
	reloaded bool
	ended    bool
	returned []chan error // of Serve and ListenAndServe
}

// orderedCalls are the calls, by name. Each checks what it returns.
var orderedCalls = map[string]func(*testing.T, *ordered){
	"Listen": func(t *testing.T, o *ordered) {
		err := o.Listen()
		switch {
		case o.ended:
			o.mustBeClosed(t, err)
		case o.open != (err != nil):
			t.Errorf("open %v: %v", o.open, err)
		}
		o.open = true
	},
	"Serve": func(t *testing.T, o *ordered) {
		l := listen(t)
		o.brought = l.Addr().String()
		o.begin(t, func() error { return o.Serve(l) })
	},
	"Dial": func(t *testing.T, o *ordered) {
		conn, err := o.Server.Dial(t.Context())
		if o.ended {
			o.mustBeClosed(t, err)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		o.dials = true
		_ = conn.Close()
	},
	"Reload": func(t *testing.T, o *ordered) {
		c := o.Config()
		c.Listeners[1].Address = "unix:" + o.paths[1]
		c.HTTP1.MaxHeaderBytes = 1024
		_, err := o.Reload(c, "test")
		o.reloaded = (o.serves || o.dials || o.brought != "") && !o.ended
		if o.reloaded != (err == nil) || err != nil && !errors.Is(err, mux.ErrNotServing) {
			t.Errorf("Reload: %v", err)
		}
	},
	"ListenAndServe": func(t *testing.T, o *ordered) {
		o.open, o.serves = true, true
		o.begin(t, o.ListenAndServe)
	},
}

func (o *ordered) mustBeClosed(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, mux.ErrServerClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// begin calls a method that serves.
func (o *ordered) begin(t *testing.T, serve func() error) {
	t.Helper()
	returned := make(chan error, 1)
	go func() { returned <- serve() }()
	if o.ended {
		o.mustBeClosed(t, within(t, "a call after the end", returned))
		return
	}
	o.returned = append(o.returned, returned)
	eventually(t, "serving", func() bool { return o.Phase() == mux.PhaseServing })
}

// check asks every address.
func (o *ordered) check(t *testing.T) {
	t.Helper()
	path, other := o.paths[0], o.paths[1]
	if o.reloaded {
		path, other = other, path
	}
	open := o.open && !o.ended
	if open {
		eventually(t, "listening", func() bool { return len(o.Addrs()) == 2 })
		var got []string
		for addr, c := range o.Listeners() {
			got = append(got, c.Address, addr.String())
		}
		if o.kept == "" {
			o.kept = got[1]
		}
		if want := []string{"127.0.0.1:0", o.kept, "unix:" + path, path}; !slices.Equal(got, want) {
			t.Errorf("listeners %q, want %q", got, want)
		}
	} else if got := o.Addrs(); len(got) > 0 && !o.ended {
		t.Errorf("addresses %q of a server that does not listen", got)
	}
	o.mustBe(t, open, o.serves, "unix", path)
	o.mustBe(t, false, false, "unix", other)
	if o.kept != "" {
		o.mustBe(t, open, o.serves, "tcp", o.kept)
	}
	if o.brought != "" {
		o.mustBe(t, !o.ended, !o.ended, "tcp", o.brought)
	}
	if o.dials && !o.ended {
		conn, err := o.Server.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o.ask(t, "Dial", conn)
	}
}

// mustBe checks whether an address is open, and served.
func (o *ordered) mustBe(t *testing.T, open, served bool, network, address string) {
	t.Helper()
	if !open {
		eventually(t, address+" is closed", func() bool {
			conn, err := net.Dial(network, address)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
		return
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Errorf("%s: %v", address, err)
		return
	}
	if !served {
		_ = conn.Close()
		return
	}
	o.ask(t, address, conn)
}

// ask makes a request that the server takes before the reload alone: net/http takes 4 KiB
// above its limit.
func (o *ordered) ask(t *testing.T, address string, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make(chan error, 1)
	go func() { // A pipe takes no more of it than the server reads.
		_, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "+strings.Repeat("x", 9<<10)+"\r\n\r\n")
		sent <- err
	}()
	want := http.StatusOK
	if o.reloaded {
		want = http.StatusRequestHeaderFieldsTooLarge
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != want {
		t.Errorf("%s: %v, %v; want %d", address, resp, err, want)
	}
	_ = conn.Close()
	<-sent
}

// TestEveryOrder: in whichever order the methods of a server are called, each address is
// served once, by the configuration in force, and what is not wanted any more is closed.
func TestEveryOrder(t *testing.T) {
	dir := t.TempDir()
	names := []string{"Dial", "Listen", "ListenAndServe", "Reload", "Serve"}
	for i, order := range arrangements(names) {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			t.Parallel()
			o := &ordered{paths: [2]string{filepath.Join(dir, fmt.Sprint("a", i)), filepath.Join(dir, fmt.Sprint("b", i))}}
			o.Server = mux.New(mux.WithLogger(discard), mux.WithListen(o.sockets.listen), mux.Configure(noDelay), mux.Configure(func(c *mux.Config) {
				c.Listeners = []listeners.Config{{Address: "127.0.0.1:0"}, {Address: "unix:" + o.paths[0]}}
			}))
			for _, name := range order {
				orderedCalls[name](t, o)
				o.check(t)
			}
			ended := make(chan error, 1)
			go func() {
				if i%2 == 0 {
					ended <- o.Close()
				} else {
					ended <- o.Shutdown(context.Background())
				}
			}()
			if err := within(t, "the end", ended); err != nil {
				t.Errorf("the end: %v", err)
			}
			o.ended = true
			for _, returned := range o.returned {
				o.mustBeClosed(t, within(t, "Serve", returned))
			}
			o.brought = ""
			o.check(t)
			for _, name := range names {
				orderedCalls[name](t, o)
			}
			o.sockets.mustBeClosed(t)
		})
	}
}

// arrangements returns every subset of names in every order.
func arrangements(names []string) [][]string {
	all := [][]string{{}}
	for _, first := range names {
		rest := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == first })
		for _, behind := range arrangements(rest) {
			all = append(all, append([]string{first}, behind...))
		}
	}
	return all
}

// sockets opens listeners, and knows which of them are open.
type sockets struct{ opened, open atomic.Int64 }

// countedSocket is a listener that notes its close. Methods of the socket beside those of
// net.Listener remain.
type countedSocket struct {
	net.Listener
	closed sync.Once
	open   *atomic.Int64
}

func (s *sockets) listen(ctx context.Context, address string) (net.Listener, error) {
	network, path, isPath := strings.Cut(address, ":")
	if network != "unix" || !isPath {
		network, path = "tcp", address
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, path)
	if err != nil {
		return nil, err
	}
	s.opened.Add(1)
	s.open.Add(1)
	return &countedSocket{Listener: l, open: &s.open}, nil
}

// Close implements [net.Listener].
func (c *countedSocket) Close() error {
	c.closed.Do(func() { c.open.Add(-1) })
	return c.Listener.Close()
}

// SetDeadline lets a reload keep the socket.
func (c *countedSocket) SetDeadline(t time.Time) error {
	return c.Listener.(interface{ SetDeadline(t time.Time) error }).SetDeadline(t)
}

func (s *sockets) mustBeClosed(t *testing.T) {
	t.Helper()
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d of %d sockets are still open", n, s.opened.Load())
	}
}

// TestEveryOrderAtOnce: the same beside each other, with everything else that a server can be
// asked. All calls return, and no socket stays open.
func TestEveryOrderAtOnce(t *testing.T) {
	const rounds = 30
	for range rounds {
		seed := rand.Uint64()
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { callAtOnce(t, rand.New(rand.NewPCG(seed, 0))) }) {
			return
		}
	}
}

func callAtOnce(t *testing.T, random *rand.Rand) {
	var opened sockets
	m := mux.New(mux.WithLogger(discard), mux.WithHandler(routes()), mux.WithListen(opened.listen), mux.WithAddress("127.0.0.1:0"),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }))
	brought := []net.Listener{listen(t), listen(t)}
	ctx := t.Context()
	reload := func(edit func(*mux.Config)) func() {
		return func() {
			_, _ = m.ReloadFunc("test", func(c mux.Config) (mux.Config, error) {
				edit(&c)
				return c, nil
			})
		}
	}
	servers := reload(func(c *mux.Config) { c.HTTP2.MaxStreams++ })
	moved := reload(func(c *mux.Config) { c.Listeners[0].Address = "localhost:0" })
	calls := []func(){
		func() { _ = m.Serve(brought[0]) },
		func() { _ = m.Serve(brought[1]) },
		func() { _ = m.ListenAndServe() },
		func() { _ = m.Listen() },
		servers, servers, moved,
		reload(func(c *mux.Config) { c.HTTP1.IdleTimeout += time.Second }),
		func() {
			if conn, err := m.Dial(ctx); err == nil {
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				_, _ = io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		},
		func() { _ = oneRequest(brought[0].Addr().String()) },
		func() {
			m.Stats()
			m.Connections()
			m.Addrs()
			m.History()
			m.Servers()
			m.Certificates()
		},
		func() { m.Disconnect(everything, 0); m.Disconnect(everything, time.Hour) },
		func() { _, _ = m.Rollback(1, "test") },
		func() { _ = m.Shutdown(ctx) },
	}
	if random.IntN(3) == 0 {
		calls = append(calls, func() { _ = m.Close() })
	}
	var returned sync.WaitGroup
	for _, call := range calls {
		pause := time.Duration(random.IntN(10)) * time.Millisecond
		returned.Go(func() {
			time.Sleep(pause)
			call()
		})
	}
	all := make(chan struct{})
	go func() {
		returned.Wait()
		close(all)
	}()
	within(t, "all calls return", all)
	opened.mustBeClosed(t)
	for _, l := range brought {
		_ = l.Close() // Serve may not have had it: the end was faster than its start.
	}
}
