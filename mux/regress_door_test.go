package mux_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// TestStreamHandshakeBeforeTold: a WebSocket over HTTP/2 that a client opens before it is told to leave.
func TestStreamHandshakeBeforeTold(t *testing.T) {
	t.Parallel()
	if !inOwnProcess(t) {
		return
	}
	s := start(t, false, mux.Configure(overHTTP2), mux.Configure(func(c *mux.Config) { c.Drain.Spread = 3 * time.Second }))
	const clients = 6
	var all []*h2Client
	for range clients {
		c := s.http2(t)
		c.get(1, "/echo")
		c.header(1)
		all = append(all, c)
	}
	ctx, force := context.WithCancel(t.Context())
	defer force()
	done := s.drain(ctx)
	eventually(t, "telling", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	time.Sleep(20 * time.Millisecond)
	for i, c := range all {
		if c.goAway != nil {
			continue
		}
		c.connect(3, "/ws", "origin", "http://x")
		if got := c.header(3)[":status"]; got != "200" {
			t.Errorf("client %d, which was not told before: status %s", i, got)
		}
	}
	force()
	<-done
}

// TestProxyHeaderAtDrain: a PROXY header in progress.
func TestProxyHeaderAtDrain(t *testing.T) {
	t.Parallel()
	l, err := listeners.NewProxyListener(listen(t), listeners.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithHandler(routes())), l)
	conn := s.dial(t)
	send(t, conn, "PROXY TCP4 192.0.2.1 ")
	eventually(t, "there", func() bool { return s.active("sniffing") == 1 })
	done := s.drain(t.Context())
	eventually(t, "listener closed", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	resp := roundTrip(t, conn, bufio.NewReader(conn), "192.0.2.2 1 2\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
}

// TestServeMeetsShutdown: Serve and Shutdown at the same moment.
func TestServeMeetsShutdown(t *testing.T) {
	t.Parallel()
	for i := range 150 {
		m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
		var wg sync.WaitGroup
		var ls []net.Listener
		for range 2 {
			ls = append(ls, listen(t))
		}
		for _, l := range ls {
			wg.Go(func() {
				if err := m.Serve(l); !errors.Is(err, mux.ErrServerClosed) {
					t.Errorf("Serve: %v", err)
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
		for _, l := range ls {
			if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
				_ = c.Close()
				t.Error("somebody listens")
			}
		}
	}
}

// TestListenMeetsShutdown: ListenAndServe and Shutdown at the same moment.
func TestListenMeetsShutdown(t *testing.T) {
	t.Parallel()
	for i := range 150 {
		m := mux.New(mux.Configure(func(c *mux.Config) { noDelay(c); c.Listeners[0].Address = "127.0.0.1:0" }), mux.WithLogger(discard))
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := m.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
				t.Errorf("ListenAndServe: %v", err)
			}
		})
		wg.Go(func() {
			time.Sleep(time.Duration(i%20) * 100 * time.Microsecond)
			if err := m.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
		wg.Wait()
		for _, a := range m.Addrs() {
			if c, err := net.Dial("tcp", a.String()); err == nil {
				_ = c.Close()
				t.Error("somebody listens")
			}
		}
	}
}
