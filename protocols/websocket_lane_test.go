package protocols

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// chanListener accepts the connections that it is given.
type chanListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newChanListener() *chanListener {
	return &chanListener{make(chan net.Conn), make(chan struct{})}
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *chanListener) deliver(c net.Conn) error {
	select {
	case l.conns <- c:
		return nil
	case <-l.done:
		return net.ErrClosed
	}
}

func (*chanListener) Close() error   { return nil }
func (*chanListener) Addr() net.Addr { return &net.TCPAddr{} }

// lane is a WebSocketServer on a socket.
type lane struct {
	addr string

	mu     sync.Mutex
	states []http.ConnState // guarded by mu, as is log
	log    bytes.Buffer
}

// Write takes what is logged.
func (l *lane) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func (l *lane) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

func (l *lane) seen() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.states)
}

// startLane serves every connection of a socket by a WebSocketServer, whatever its verdict is.
func startLane(t *testing.T, h http.Handler) *lane {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lane{addr: socket.Addr().String()}
	in, onward := newChanListener(), newChanListener()
	s := NewWebSocketServer(DefaultHTTP1Config(), HTTPHooks{
		Handler: h,
		Logger:  slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})),
		ConnState: func(_ net.Conn, state http.ConnState) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.states = append(l.states, state)
		},
	}, onward.deliver)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(in) })
	wg.Go(func() { _ = s.HTTPServer().Serve(onward) })
	wg.Go(func() {
		for {
			raw, err := socket.Accept()
			if err != nil {
				return
			}
			c := newConn(&bareTCP{TCPConn: raw.(*net.TCPConn)})
			c.Sniff(nil)
			_ = in.deliver(c)
		}
	})
	t.Cleanup(func() {
		_ = socket.Close()
		close(in.done)
		close(onward.done)
		_ = s.HTTPServer().Close()
		wg.Wait()
	})
	return l
}

func (l *lane) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(wireTime))
	return conn
}

// bothLanes are fields behind which a handshake goes to the handler at once, and to net/http first.
var bothLanes = map[string]string{"fast": "", "net/http": "Trailer: X\r\n"}

func handshakeTo(path, fields string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + upgradeKey + "\r\n" + fields + "\r\n"
}

// answers is what a handler may do with a handshake besides taking the connection over.
var answers = map[string]http.HandlerFunc{
	"nothing":   func(http.ResponseWriter, *http.Request) {},
	"not found": http.NotFound,
	"write":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>hello") },
	"length": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("hello")})
	},
	"chunks": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "two")
	},
	"trailer": func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "one")
		h.Set("X-Sum", "7")
	},
	"early hints": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(http.StatusServiceUnavailable)
	},
	"late header": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		w.Header().Set("X-Late", "1")
		_, _ = io.WriteString(w, "no")
	},
	"switch and no more": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusSwitchingProtocols) },
	"body of 101": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusSwitchingProtocols)
		_, err := io.WriteString(w, "hello")
		w.Header().Set("X-Error", fmt.Sprint(err))
	},
	"deadline": func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		err := c.SetReadDeadline(time.Now().Add(time.Hour))
		err2 := c.SetWriteDeadline(time.Now().Add(time.Hour))
		err3 := c.EnableFullDuplex()
		fmt.Fprint(w, err, err2, err3)
	},
	"close": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "go", http.StatusForbidden)
	},
}

// TestLanesAnswerAlike: what a handler answers instead of accepting arrives as net/http sends it, and so
// does the answer to what was sent behind the handshake.
func TestLanesAnswerAlike(t *testing.T) {
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			l := startLane(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/next" {
					_, _ = io.WriteString(w, "the next")
					return
				}
				answer(w, r)
			}))
			got := make(map[string]string)
			for lane, fields := range bothLanes {
				conn := l.dial(t)
				_, err := io.WriteString(conn, handshakeTo("/", fields)+"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				if err != nil {
					t.Fatal(err)
				}
				all, err := io.ReadAll(conn)
				if err != nil {
					t.Errorf("%s: %v", lane, err)
				}
				got[lane] = withoutDate(string(all))
			}
			if diff := cmp.Diff(got["net/http"], got["fast"]); diff != "" || got["fast"] == "" {
				t.Errorf("(-net/http +fast):\n%s", diff)
			}
		})
	}
}

// withoutDate takes the dates out, which may differ by a second.
func withoutDate(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "Date: ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestLanesHandOverAlike: who takes the connection over gets it as from net/http, with what came behind the handshake.
func TestLanesHandOverAlike(t *testing.T) {
	for name, before := range map[string]func(http.ResponseWriter){
		"at once": func(http.ResponseWriter) {},
		"behind 101": func(w http.ResponseWriter) {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("X-Bad", "a\nb")
			w.WriteHeader(http.StatusSwitchingProtocols)
		},
		"behind 101 with a length": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "5")
			w.Header().Set("Transfer-Encoding", "chunked")
			w.WriteHeader(http.StatusSwitchingProtocols)
		},
		"behind 101 and what comes too late": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusSwitchingProtocols)
			w.Header().Set("X-Late", "1")
		},
		"behind early hints": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusSwitchingProtocols)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLane(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				before(w)
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if _, _, err := http.NewResponseController(w).Hijack(); err == nil {
					t.Error("taken over twice")
				}
				if _, err := w.Write([]byte("x")); err == nil {
					t.Error("written behind the back")
				}
				buffered := rw.Reader.Buffered()
				said, err := rw.ReadString('\n')
				fmt.Fprintf(rw, "%v %d %d %d %q %v %v %v", r.Context().Err(), rw.Reader.Size(), buffered, rw.Writer.Size(), said, err,
					r.Context().Value(http.LocalAddrContextKey), r.RemoteAddr == conn.RemoteAddr().String())
				_ = rw.Flush()
			}))
			got := make(map[string]string)
			for lane, fields := range bothLanes {
				conn := l.dial(t)
				if _, err := io.WriteString(conn, handshakeTo("/", fields)+"behind\n"); err != nil {
					t.Fatal(err)
				}
				all, err := io.ReadAll(conn)
				if err != nil {
					t.Errorf("%s: %v", lane, err)
				}
				got[lane] = withoutDate(string(all))
			}
			if diff := cmp.Diff(got["net/http"], got["fast"]); diff != "" || !strings.Contains(got["fast"], `"behind\n"`) {
				t.Errorf("(-net/http +fast):\n%s", diff)
			}
		})
	}
}

// TestLanesPanicAlike: a handler that panics is logged, unless it wants not to be, and the connection is closed
// without an answer.
func TestLanesPanicAlike(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"fault": func(http.ResponseWriter, *http.Request) { panic("fault") },
		"abort": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"fault behind a part": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "part")
			_ = http.NewResponseController(w).Flush()
			panic("fault")
		},
	} {
		for lane, fields := range bothLanes {
			t.Run(name+", "+lane, func(t *testing.T) {
				l := startLane(t, h)
				conn := l.dial(t)
				if _, err := io.WriteString(conn, handshakeTo("/", fields)); err != nil {
					t.Fatal(err)
				}
				all, _ := io.ReadAll(conn) // It may be a reset.
				if strings.Contains(string(all), "\r\n0\r\n") {
					t.Errorf("the answer has an end: %q", all)
				}
				waitFor(t, "the end of the connection", func() bool { return strings.HasSuffix(l.seen(), "closed]") })
				if log := l.logged(); strings.Contains(log, "level=ERROR") != strings.HasPrefix(name, "fault") {
					t.Errorf("logged %q", log)
				}
			})
		}
	}
}

// TestContextOfHandshake: it ends with the handler.
func TestContextOfHandshake(t *testing.T) {
	contexts := make(chan context.Context, 1)
	l := startLane(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		contexts <- r.Context()
		if r.Context().Value(http.ServerContextKey) == nil || r.Context().Err() != nil {
			t.Error("no context of a server")
		}
	}))
	if _, err := io.WriteString(l.dial(t), handshakeTo("/", "")); err != nil {
		t.Fatal(err)
	}
	<-(<-contexts).Done()
}

// TestClientLeavesWhileAnswered: while net/http sends the answer, the context of the request tells that the client is gone.
func TestClientLeavesWhileAnswered(t *testing.T) {
	ended := make(chan struct{})
	l := startLane(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	}))
	conn := l.dial(t)
	if _, err := io.WriteString(conn, handshakeTo("/", "")); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(conn).ReadByte(); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	<-ended
}

// TestNobodyGoesOn: where net/http's server takes no more connections, a handler that answers is not held up.
func TestNobodyGoesOn(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	returned := make(chan error, 1)
	s := NewWebSocketServer(DefaultHTTP1Config(), HTTPHooks{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, err := w.Write([]byte("x"))
			returned <- err
		}),
		Logger: slog.New(slog.DiscardHandler),
	}, func(net.Conn) error { return net.ErrClosed })
	c := newConn(server)
	go func() { _, _ = io.WriteString(client, handshakeTo("/", "")) }()
	c.Sniff(nil)
	l := newChanListener()
	go func() { _ = s.Serve(l) }()
	if err := l.deliver(c); err != nil {
		t.Fatal(err)
	}
	if err := <-returned; err == nil {
		t.Error("written to nobody")
	}
	close(l.done)
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("an answer came")
	}
}
