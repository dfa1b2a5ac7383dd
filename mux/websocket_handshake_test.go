package mux_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

// bothServers calls f for net/http and for the mux, each with the handler h.
func bothServers(t *testing.T, h http.Handler, f func(name string, dial func() net.Conn)) {
	t.Helper()
	l := listen(t)
	direct := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = direct.Serve(l) }()
	t.Cleanup(func() { _ = direct.Close() })
	f("net/http", func() net.Conn { return (&server{addr: l.Addr().String()}).dial(t) })
	s := start(t, false, mux.WithHandler(h), mux.WithLogger(discard))
	f("mux", func() net.Conn { return s.dial(t) })
}

// answersAlike sends text to h behind net/http and behind the mux, and compares the whole
// answers.
func answersAlike(t *testing.T, h http.HandlerFunc, text string) string {
	t.Helper()
	got := make(map[string]string)
	bothServers(t, h, func(name string, dial func() net.Conn) {
		conn := dial()
		send(t, conn, text)
		all, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got[name] = withoutDate(string(all))
	})
	if diff := cmp.Diff(got["net/http"], got["mux"]); diff != "" {
		t.Errorf("(-net/http +mux):\n%s", diff)
	}
	return got["mux"]
}

// withoutDate removes the dates, which may differ by a second.
func withoutDate(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "Date: ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// answers are the ways in which a handler can answer a handshake without a hijack.
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

// TestHandshakeAnswers: a handler's refusal of a handshake reaches the client as net/http
// sends it. So does the answer to the next request, which comes in the same packet.
func TestHandshakeAnswers(t *testing.T) {
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			got := answersAlike(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/next" {
					_, _ = io.WriteString(w, "the next")
					return
				}
				answer(w, r)
			}, handshake+"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if got == "" {
				t.Error("no answer")
			}
		})
	}
}

// TestHandshakeHijacked: a handler that hijacks a handshake gets the same as from
// net/http, with the bytes behind the handshake.
func TestHandshakeHijacked(t *testing.T) {
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
			got := answersAlike(t, func(w http.ResponseWriter, r *http.Request) {
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
					r.Context().Value(http.LocalAddrContextKey) != nil, r.RemoteAddr == conn.RemoteAddr().String())
				_ = rw.Flush()
			}, handshake+"behind\n")
			if !strings.Contains(got, `"behind\n"`) {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestHandshakePanics: a panic of the handler is logged, unless it is
// http.ErrAbortHandler, and the connection is closed without an answer.
func TestHandshakePanics(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"fault": func(http.ResponseWriter, *http.Request) { panic("fault") },
		"abort": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"fault behind a part": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "part")
			_ = http.NewResponseController(w).Flush()
			panic("fault")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log syncBuffer
			s := start(t, false, mux.WithHandler(h), mux.WithLogger(recordingLog(&log)))
			conn := s.dial(t)
			send(t, conn, handshake)
			all, _ := io.ReadAll(conn) // It may be a reset.
			if strings.Contains(string(all), "\r\n0\r\n") {
				t.Errorf("the answer has an end: %q", all)
			}
			eventually(t, "the end of the connection", func() bool { return s.active("websocket")+s.active("http1") == 0 })
			if err := s.Close(); err != nil { // It waits for the lines of the log.
				t.Error(err)
			}
			if got, want := strings.Contains(log.String(), "level=ERROR"), strings.HasPrefix(name, "fault"); got != want {
				t.Errorf("logged is %v, want %v: %v", got, want, log.String())
			}
		})
	}
}

// TestHandshakeContext: the context of a handshake ends when its handler returns, and
// when the client leaves before that.
func TestHandshakeContext(t *testing.T) {
	for name, say := range map[string]func(http.ResponseWriter){
		"before the answer": func(http.ResponseWriter) {},
		"in the answer":     func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			asked, contexts := make(chan struct{}), make(chan context.Context, 1)
			s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Context().Value(http.ServerContextKey) == nil || r.Context().Err() != nil {
					t.Error("no context of a server")
				}
				say(w)
				contexts <- r.Context()
				if r.URL.Path == "/leave" {
					close(asked)
					<-r.Context().Done()
				}
			})))
			send(t, s.dial(t), handshake)
			<-(<-contexts).Done()
			conn := s.dial(t)
			send(t, conn, strings.Replace(handshake, "GET /ws", "GET /leave", 1))
			<-asked
			_ = conn.Close()
			<-(<-contexts).Done()
		})
	}
}

// TestBytesBeforeHijack: bytes that arrive after a handshake and before the hijack do not
// end the context. The handler gets them by the hijack.
func TestBytesBeforeHijack(t *testing.T) {
	const all = "behind\n"
	for _, parts := range [][2]string{{"", all}, {"be", "hind\n"}, {"", "be"}, {"be", ""}} {
		t.Run(fmt.Sprint(parts), func(t *testing.T) {
			asked, came, read := make(chan struct{}), make(chan struct{}), make(chan string, 1)
			s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(asked)
				<-came
				if r.Context().Err() != nil {
					t.Error("the context has ended")
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					read <- ""
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "taken over\n")
				said, err := rw.ReadString('\n')
				if err != nil {
					t.Error(err)
				}
				read <- said
			})))
			conn := s.dial(t)
			send(t, conn, handshake+parts[0])
			<-asked
			send(t, conn, parts[1])
			close(came)
			// The missing part comes after the hijack.
			if _, err := io.ReadFull(conn, make([]byte, len("taken over\n"))); err != nil {
				t.Fatal(err)
			}
			send(t, conn, all[len(parts[0]+parts[1]):])
			if got := <-read; got != all {
				t.Errorf("read %q, want %q", got, all)
			}
		})
	}
}

// TestWebSocketPoolFull: a connection that begins with a handshake is refused where the
// WebSocket pool is full, like every connection above a limit.
func TestWebSocketPoolFull(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.WebSocket.MaxConnections = 1 }))
	s.webSocket(t)
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), handshake)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("refused with %s %v", resp.Status, resp.Header)
	}
	if got := s.rejected("websocket", "limit"); got != 1 {
		t.Errorf("%d rejected, want 1", got)
	}
	if got := s.Stats().Pools["http1"].Accepted; got != 0 {
		t.Errorf("%d connections were in the pool of HTTP/1.1", got)
	}
}

// TestHandshakeGoesOnAsHTTP1: a connection whose handshake was refused needs a place in
// the HTTP/1.1 pool. Without one it is closed after the answer.
func TestHandshakeGoesOnAsHTTP1(t *testing.T) {
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP1.MaxConnections = 1 }))
	refused := strings.Replace(handshake, "/ws", "/nowhere", 1)
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	resp := roundTrip(t, conn, r, refused)
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusNotFound || resp.Close || s.active("http1") != 1 {
		t.Errorf("%s, close %v, pools %v", resp.Status, resp.Close, s.counts())
	}
	if resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Errorf("the next request: %s", resp.Status)
	}
	other := s.dial(t)
	resp = roundTrip(t, other, bufio.NewReader(other), refused)
	if resp.StatusCode != http.StatusNotFound || !resp.Close {
		t.Errorf("without a place: %s, close %v", resp.Status, resp.Close)
	}
	eventually(t, "the connection to be gone", func() bool { return s.active("websocket") == 0 })
	if diff := cmp.Diff(map[string]int64{"http1": 1}, s.counts()); diff != "" {
		t.Errorf("pools (-want +got):\n%s", diff)
	}
}

// TestHandshakeGivesBack: a failed handshake on a later request frees the reserved place.
func TestHandshakeGivesBack(t *testing.T) {
	outcomes := []http.HandlerFunc{
		http.NotFound,
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusSwitchingProtocols) },
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	routes := http.NewServeMux()
	for i, h := range outcomes {
		routes.Handle(fmt.Sprintf("/%d", i), h)
	}
	routes.Handle("/ws", mux.WebSocket(echoWebSocket))
	s := start(t, false, limits(func(c *mux.Config) { c.WebSocket.MaxConnections = 1 }), mux.WithHandler(routes))
	for i := range outcomes {
		conn := s.dial(t)
		send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"+strings.Replace(handshake, "/ws", fmt.Sprintf("/%d", i), 1))
		eventually(t, "the handshake is over", func() bool { return s.Stats().Requests["websocket"].Total == uint64(i+1) })
		_ = conn.Close()
	}
	s.webSocket(t)
}

// TestNoHandshake: a plain request to a WebSocket's path gets 426 with Upgrade:
// websocket.
func TestNoHandshake(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		resp, err := s.client(t, 1).Get(s.scheme() + "://" + s.addr + "/ws")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUpgradeRequired || resp.Header.Get("Upgrade") != "websocket" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	})
}
