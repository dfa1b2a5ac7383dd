package mux_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// freePort returns a port that is free at every address.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// at returns the default configuration with other addresses.
func at(addresses ...string) mux.Config {
	c := mux.DefaultConfig()
	c.Drain.Delay, c.Drain.Spread = 0, 0
	c.Listeners = nil
	for _, address := range addresses {
		l := listeners.DefaultConfig()
		l.Address = address
		c.Listeners = append(c.Listeners, l)
	}
	return c
}

// serveConfigured serves a configuration until the end of the test.
func serveConfigured(t *testing.T, c mux.Config, more ...mux.Option) *mux.Server {
	t.Helper()
	s := mux.New(append(more, mux.Configure(func(own *mux.Config) { *own = c }), mux.WithLogger(discard))...)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServe() }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, mux.ErrServerClosed) {
			t.Error(err)
		}
	})
	eventually(t, "it serves", func() bool { return s.Phase() == mux.PhaseServing })
	return s
}

// getLivez makes a request over a connection of its own.
func getLivez(port string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://127.0.0.1:" + port + "/livez")
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// askSteadily has clients connect anew for each request until stop is called. It counts the
// answers, and reports an error of each client.
func askSteadily(t *testing.T, n int, port string) (answers *atomic.Int64, stop func()) {
	t.Helper()
	answers = new(atomic.Int64)
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range n {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := getLivez(port); err != nil {
					t.Error(err)
					return
				}
				answers.Add(1)
			}
		})
	}
	return answers, func() {
		cancel()
		clients.Wait()
	}
}

// TestReloadOverlap moves a listener to addresses that overlap with its own, back and
// forth, while clients connect anew for each request.
func TestReloadOverlap(t *testing.T) {
	port, second := freePort(t), freePort(t)
	s := serveConfigured(t, at("127.0.0.1:"+port))
	_, stop := askSteadily(t, 8, port)
	steps := [][]string{
		{"0.0.0.0:" + port}, {"127.0.0.1:" + port}, {":" + port}, {"0.0.0.0:" + port, "[::]:" + port}, {"[::]:" + port},
		{"localhost:" + port}, {"127.0.0.1:" + port, "0.0.0.0:" + second}, {"127.0.0.1:" + second, "0.0.0.0:" + port}, {"127.0.0.1:" + port},
	}
	for range 3 {
		for _, addresses := range steps {
			if _, err := s.Reload(at(addresses...), "test"); err != nil {
				t.Fatalf("%v: %v", addresses, err)
			}
			for _, address := range addresses {
				_, at, _ := net.SplitHostPort(address)
				if err := getLivez(at); err != nil {
					t.Errorf("%v: %v", addresses, err)
				}
			}
		}
	}
	stop()
	// The old sockets must be gone: another process may have the address of IPv6.
	eventually(t, "the other addresses are free", func() bool {
		l, err := net.Listen("tcp", "[::1]:"+port)
		if err == nil {
			_ = l.Close()
		}
		return err == nil
	})
}

// TestReloadOverlapFails has the last address taken: the old state serves, and its port is
// its own.
func TestReloadOverlapFails(t *testing.T) {
	port := freePort(t)
	s := serveConfigured(t, at("127.0.0.1:"+port))
	taken := listen(t)
	for range 3 {
		if _, err := s.Reload(at("0.0.0.0:"+port, taken.Addr().String()), "test"); err == nil {
			t.Fatal("an address in use was taken")
		}
		resp, err := http.Get("http://127.0.0.1:" + port + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if l, err := net.Listen("tcp", "127.0.0.2:"+port); err != nil {
			t.Errorf("the address of the change that failed is taken: %v", err)
		} else {
			_ = l.Close()
		}
	}
}

func TestListenersCollide(t *testing.T) {
	err := at("127.0.0.1:80", "0.0.0.0:80").Validate()
	want := "mux: listeners[1]: address: 0.0.0.0:80 cannot be listened on beside 127.0.0.1:80, which is that of listeners[0]"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := at("[::]:80", "0.0.0.0:80", "127.0.0.1:0", "127.0.0.1:0").Validate(); err != nil {
		t.Error(err)
	}
}
