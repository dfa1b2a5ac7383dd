package mux_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// holdingRelay stands between a client and the server like a balancer: it takes at once what
// the server sends, and gives it to the client slowly. Where the server resets the connection,
// it drops what it still has.
func holdingRelay(t *testing.T, addr string) net.Listener {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				_ = client.Close()
				return
			}
			var reset atomic.Bool
			wg.Go(func() {
				_, err := io.Copy(server, client)
				reset.Store(err != nil)
				_ = server.Close()
			})
			wg.Go(func() {
				defer func() { _ = client.Close() }()
				passSlowly(client, server, &reset)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l
}

// passSlowly passes on what the server sends, 16 KiB each 30 ms, until it has reset the
// connection.
func passSlowly(client, server net.Conn, reset *atomic.Bool) {
	var mu sync.Mutex
	var held bytes.Buffer // guarded by mu, and so is ended
	var ended bool
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			mu.Lock()
			held.Write(buf[:n])
			ended = err != nil
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	for !reset.Load() {
		time.Sleep(30 * time.Millisecond) // What is under test is time.
		mu.Lock()
		part := bytes.Clone(held.Next(16 << 10))
		over := ended && held.Len() == 0
		mu.Unlock()
		if _, err := client.Write(part); err != nil || over {
			return
		}
	}
}

// TestSlowTailBehindProxy: the answers on an HTTP/2 connection whose client was told to leave
// are not cut while a proxy has taken them and their client has not.
func TestSlowTailBehindProxy(t *testing.T) {
	t.Parallel()
	const size = 1 << 20 // 2 s
	for name, leave := range map[string]func(s *server){
		"disconnected": func(s *server) { s.Disconnect(func(mux.ConnInfo) bool { return true }, time.Minute) },
		"drained":      func(s *server) { _ = s.drain(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, told := make(chan struct{}), make(chan struct{})
			s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(begun)
				<-told
				_, _ = w.Write(make([]byte, size))
			})), mux.Configure(func(c *mux.Config) { c.HTTP2.Progress.BodyGrace = 400 * time.Millisecond })) // So it sweeps often.
			relay := &server{Server: s.Server, addr: holdingRelay(t, s.addr).Addr().String()}
			got := make(chan int64, 1)
			go func() {
				resp, err := relay.client(t, 2).Get("http://" + relay.addr + "/")
				if err != nil {
					t.Error(err)
					got <- -1
					return
				}
				n, err := io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					t.Errorf("after %d bytes: %v", n, err)
				}
				got <- n
			}()
			within(t, "the request", begun)
			leave(s)
			time.Sleep(300 * time.Millisecond) // The client answers the PING.
			close(told)
			if n := within(t, "the answer", got); n != size {
				t.Errorf("%d bytes of %d", n, size)
			}
		})
	}
}
