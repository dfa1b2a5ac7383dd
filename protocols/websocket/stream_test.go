package websocket

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/protocols"
)

// clientWindow is how much a client takes that does not read.
const clientWindow = 1 << 16

// streamServer serves each HTTP/2 request as an extended CONNECT that h gets as a
// handshake. What net/http makes of a real one is the affair of mux's tests, which need a
// process of their own for it.
func streamServer(t *testing.T, h http.HandlerFunc) (url string, c *http.Client) {
	t.Helper()
	var handlers sync.WaitGroup
	srv := protocols.NewHTTP2Server(protocols.DefaultHTTP2Config(), protocols.HTTPHooks{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			r.Method = http.MethodConnect
			r.Header.Set(protocolKey, "websocket")
			ServeStream(w, r, h)
		}),
		Logger: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	tr := &http.Transport{
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{MaxReceiveBufferPerStream: clientWindow},
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		_ = srv.Close()
		// What they find counts for this test.
		handlers.Wait()
	})
	return "http://" + l.Addr().String() + "/", &http.Client{Transport: tr}
}

// open sends a request whose body goes on.
func open(t *testing.T, url string, c *http.Client) (*http.Response, *io.PipeWriter) {
	t.Helper()
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.Close()
		_ = resp.Body.Close()
	})
	return resp, w
}

// hijack takes the stream over as coder/websocket does.
func hijack(t *testing.T, w http.ResponseWriter) (net.Conn, *bufio.ReadWriter) {
	t.Helper()
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		panic(http.ErrAbortHandler)
	}
	return conn, rw
}

// TestStreamHandshake: what the handler answers and what the client gets.
func TestStreamHandshake(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
	}{
		{"accepted", func(w http.ResponseWriter, _ *http.Request) {
			conn, rw := hijack(t, w)
			_, _ = rw.WriteString("hello")
			_ = rw.Flush()
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) {
				t.Errorf("write behind the hijack: %v", err)
			}
			if _, _, err := w.(http.Hijacker).Hijack(); !errors.Is(err, http.ErrHijacked) {
				t.Errorf("second hijack: %v", err)
			}
			_ = conn.Close()
		}, 200, "hello"},
		{"200", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }, 405, "page"},
		{"flush", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "page")
		}, 405, "page"},
		{"controller's flush", func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.(io.StringWriter).WriteString("page")
		}, 405, "page"},
		{"notified", func(w http.ResponseWriter, _ *http.Request) {
			if w.(interface{ CloseNotify() <-chan bool }).CloseNotify() == nil {
				t.Error("no channel")
			}
			w.WriteHeader(http.StatusNotFound)
		}, 404, ""},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, 405, ""},
		{"redirect", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) }, 302, ""},
		{"early hints", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		}, 404, ""},
		{"hijack unanswered", func(w http.ResponseWriter, _ *http.Request) {
			if _, _, err := w.(http.Hijacker).Hijack(); err == nil {
				t.Error("hijacked")
			}
			w.WriteHeader(http.StatusInternalServerError)
		}, 500, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url, c := streamServer(t, func(w http.ResponseWriter, r *http.Request) {
				got := []string{r.Method, r.Proto, r.Header.Get(protocolKey), r.Header.Get("Upgrade"), r.URL.Path}
				if diff := cmp.Diff([]string{"GET", "HTTP/2.0", "", "websocket", "/"}, got); diff != "" {
					t.Errorf("handshake (-want +got):\n%s", diff)
				}
				if !IsUpgrade(r) {
					t.Error("the handshake is none")
				}
				w.Header().Set("Upgrade", "websocket")
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Sec-WebSocket-Accept", "x")
				w.Header().Set("Sec-WebSocket-Protocol", "chat")
				test.handler(w, r)
			})
			resp, _ := open(t, url, c)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != test.status || string(body) != test.body {
				t.Errorf("status %d, %q; want %d, %q", resp.StatusCode, body, test.status, test.body)
			}
			for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept"} {
				if resp.Header[name] != nil {
					t.Errorf("%s: %q", name, resp.Header[name])
				}
			}
			if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != "chat" {
				t.Errorf("sub-protocol %q", got)
			}
		})
	}
}

// TestStreamOutlivesHandler: who has hijacked may go on in a goroutine, and one
// who goes on after the end gets an error.
func TestStreamOutlivesHandler(t *testing.T) {
	release, after := make(chan struct{}), make(chan error, 3)
	url, c := streamServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _ := hijack(t, w)
		go func() {
			<-release
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
			_, err := conn.Write([]byte("x"))
			after <- err
			after <- conn.SetDeadline(time.Now().Add(time.Hour))
			after <- conn.Close()
		}()
	})
	resp, w := open(t, url, c)
	close(release)
	if _, err := io.WriteString(w, "echo"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "echo" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	for range cap(after) {
		if err := <-after; !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestStreamCloseWakes: Close ends a Read that waits, a Write that is held up by
// flow control, and both.
func TestStreamCloseWakes(t *testing.T) {
	reads := func(c net.Conn) error { return firstError(c.Read, make([]byte, 100)) }
	var written atomic.Int64
	writes := func(c net.Conn) error {
		return firstError(func(p []byte) (int, error) {
			n, err := c.Write(p)
			written.Add(int64(n))
			return n, err
		}, make([]byte, clientWindow/4))
	}
	tests := []struct {
		name    string
		blocked []func(net.Conn) error
		inOrder bool // The stream ends by END_STREAM.
	}{
		{"Read", []func(net.Conn) error{reads}, true},
		{"Write", []func(net.Conn) error{writes}, false},
		{"both", []func(net.Conn) error{reads, writes}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			written.Store(0)
			var conn net.Conn
			hijacked, ended := make(chan struct{}), make(chan error, 2)
			url, c := streamServer(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, _ = hijack(t, w)
				close(hijacked)
			})
			resp, _ := open(t, url, c)
			<-hijacked
			for _, f := range test.blocked {
				go func() { ended <- f(conn) }()
			}
			if !test.inOrder {
				waitFor(t, "the next Write stalls", func() bool {
					return written.Load() == clientWindow && isWriting(conn.(*streamConn))
				})
			}
			if err := conn.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			for range test.blocked {
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("woken with %v", err)
				}
			}
			if _, err := io.Copy(io.Discard, resp.Body); (err == nil) != test.inOrder {
				t.Errorf("the client's end: %v", err)
			}
		})
	}
}

func firstError(f func([]byte) (int, error), p []byte) error {
	for {
		if _, err := f(p); err != nil {
			return err
		}
	}
}

func isWriting(c *streamConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writers > 0
}

// waitFor waits until cond holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still not so: %s", what)
		}
	}
}

// TestStreamDeadlines: a deadline ends what waits for the peer.
func TestStreamDeadlines(t *testing.T) {
	url, c := streamServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _ := hijack(t, w)
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Errorf("SetReadDeadline: %v", err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		if _, err := conn.Write([]byte("still")); err != nil {
			t.Errorf("Write: %v", err)
		}
		if err := conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Errorf("SetWriteDeadline: %v", err)
		}
		if err := firstError(conn.Write, make([]byte, 1<<16)); err == nil {
			t.Error("Write goes on")
		}
	})
	resp, _ := open(t, url, c)
	still := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, still); string(still) != "still" || err != nil {
		t.Errorf("%q, %v", still, err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("the stream ended in order")
	}
}

// TestStreamAddresses: they are the connection's.
func TestStreamAddresses(t *testing.T) {
	addrs := make(chan []string, 1)
	url, c := streamServer(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _ := hijack(t, w)
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		addrs <- []string{local.String(), r.RemoteAddr, conn.LocalAddr().String(), conn.RemoteAddr().String(), conn.RemoteAddr().Network()}
		_ = conn.Close()
	})
	open(t, url, c)
	got := <-addrs
	if diff := cmp.Diff([]string{got[0], got[1], "tcp"}, got[2:]); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// TestStreamHandlerPanics: a panic resets the stream and leaves nothing behind.
func TestStreamHandlerPanics(t *testing.T) {
	url, c := streamServer(t, func(w http.ResponseWriter, _ *http.Request) {
		hijack(t, w)
		panic(http.ErrAbortHandler)
	})
	resp, _ := open(t, url, c)
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("the stream ended in order")
	}
}

// TestStreamVolume: many bytes both ways at once arrive as they were sent.
func TestStreamVolume(t *testing.T) {
	url, c := streamServer(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _ := hijack(t, w)
		_, _ = io.Copy(conn, conn)
		_ = conn.Close()
	})
	resp, w := open(t, url, c)
	want := make([]byte, 3<<20)
	_, _ = rand.Read(want)
	go func() {
		_, _ = w.Write(want)
		_ = w.Close()
	}()
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != string(want) {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
}
