package mux_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c" //nolint:staticcheck // What clients of the upgrade see elsewhere.

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// tellRequest says what kind of request a handler has got.
func tellRequest(w http.ResponseWriter, r *http.Request) {
	_, hijacks := w.(http.Hijacker)
	body, err := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(w, "%s %s %s %t %d %v", r.Method, r.RequestURI, r.Proto, hijacks, len(body), err)
}

// netHTTP serves h by net/http alone, in both HTTP versions without TLS.
func netHTTP(t *testing.T, h http.Handler) *server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return &server{addr: srv.Listener.Addr().String()}
}

// answers1 sends a request and then a GET over HTTP/1.1, and returns what comes back, until
// the end of the connection or of the answer to the GET.
func answers1(t *testing.T, s *server, request string) (got []string) {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	go io.WriteString(conn, request+"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(conn)
	for range 2 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return append(got, "the end")
		}
		resp.Header.Del("Date")
		body, err := io.ReadAll(resp.Body)
		got = append(got, fmt.Sprint(resp.Proto, resp.Status, resp.Header, resp.ContentLength, resp.Close, string(body), err))
	}
	return got
}

// TestInFrontOfHandlers: requests that net/http answers in front of its handler, or has a use
// of its own for, are answered as by net/http.
func TestInFrontOfHandlers(t *testing.T) {
	t.Parallel()
	const options = "OPTIONS * HTTP/1.1\r\nHost: x\r\n"
	s := start(t, false, mux.WithHandler(http.HandlerFunc(tellRequest)))
	upgrading := start(t, false, mux.WithHandler(http.HandlerFunc(tellRequest)), mux.Configure(upgradesOn))
	timed := start(t, false, mux.WithHandler(http.HandlerFunc(tellRequest)), requestTimeout(time.Minute))
	base := netHTTP(t, http.HandlerFunc(tellRequest))
	baseUpgrading := netHTTP(t, h2c.NewHandler(http.HandlerFunc(tellRequest), new(http2.Server))) //nolint:staticcheck // As above.
	for name, request := range map[string]string{
		"no body":            options + "\r\n",
		"body":               options + "Content-Length: 5\r\n\r\nhello",
		"longest body":       options + "Content-Length: 4096\r\n\r\n" + strings.Repeat("b", 4096),
		"too long a body":    options + "Content-Length: 4097\r\n\r\n" + strings.Repeat("b", 4097),
		"far too long":       options + "Content-Length: 400000\r\n\r\n" + strings.Repeat("b", 400_000),
		"chunks":             options + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"broken chunks":      options + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n",
		"continue":           options + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
		"last request":       options + "Connection: close\r\n\r\n",
		"HTTP/1.0":           "OPTIONS * HTTP/1.0\r\n\r\n",
		"HTTP/1.0, lasting":  "OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"a path":             "OPTIONS /path HTTP/1.1\r\nHost: x\r\n\r\n",
		"an address":         "OPTIONS http://x HTTP/1.1\r\nHost: x\r\n\r\n",
		"another method":     "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
		"lower case":         "options * HTTP/1.1\r\nHost: x\r\n\r\n",
		"gRPC":               options + "Content-Type: application/grpc\r\n\r\n",
		"handshake":          options + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"h2c":                "OPTIONS * HTTP/1.1\r\n" + upgradeFields + "\r\n",
		"unknown Expect":     "POST / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 5\r\n\r\nhello",
		"CONNECT":            "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
		"preface, as second": "GET / HTTP/1.1\r\nHost: x\r\n\r\nPRI * HTTP/2.0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := answers1(t, base, request)
			if diff := cmp.Diff(want, answers1(t, s, request)); diff != "" {
				t.Errorf("(-net/http +here):\n%s", diff)
			}
			if diff := cmp.Diff(want, answers1(t, timed, request)); diff != "" {
				t.Errorf("with a request timeout (-net/http +here):\n%s", diff)
			}
			if !strings.Contains(request, "PRI") { // x/net's would go on in HTTP/2, which only the upgrade does here.
				want = answers1(t, baseUpgrading, request)
			}
			if diff := cmp.Diff(want, answers1(t, upgrading, request)); diff != "" {
				t.Errorf("with the upgrade to h2c (-net/http +here):\n%s", diff)
			}
		})
	}
}

// options2 makes "OPTIONS *" over HTTP/2.
func options2(t *testing.T, s *server, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, "http://"+s.addr, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Opaque = "*"
	resp, err := s.client(t, 2).Do(r)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	resp.Header.Del("Date")
	got, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.Proto, resp.Status, resp.Header, resp.ContentLength, string(got), err)
}

// TestGeneralOptionsHTTP2 is TestInFrontOfHandlers for HTTP/2. A connection of "Upgrade: h2c"
// is like any other, whatever server is behind it.
func TestGeneralOptionsHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithHandler(http.HandlerFunc(tellRequest)), mux.Configure(upgradesOn))
	base := netHTTP(t, http.HandlerFunc(tellRequest))
	for _, body := range []string{"", "hello", strings.Repeat("b", 4097), strings.Repeat("b", 400_000)} {
		if diff := cmp.Diff(options2(t, base, body), options2(t, s, body)); diff != "" {
			t.Errorf("a body of %d bytes (-net/http +here):\n%s", len(body), diff)
		}
	}
	c, _ := s.upgrade(t, "GET / HTTP/1.1\r\n"+upgradeFields+"\r\n")
	_ = c.rest(1)
	c.request(3, true, ":method", "OPTIONS", ":scheme", "http", ":authority", "x", ":path", "*")
	got := c.header(3)
	if got[":status"] != "200" || got["content-length"] != "0" || c.rest(3) != "" {
		t.Errorf("upgraded: %v", got)
	}
}

// awaitsNoBody are handlers that do not read their request's body. net/http does, before the
// header of the answer goes out.
func awaitsNoBody(t *testing.T) http.Handler {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	m := http.NewServeMux()
	m.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	m.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5000)) })
	m.HandleFunc("/string", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("s", 5000)) })
	m.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	m.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	})
	m.Handle("/ws", mux.WebSocket(echoWebSocket))
	m.HandleFunc("/pump", func(w http.ResponseWriter, _ *http.Request) {
		from, to := io.Pipe()
		go func() {
			for range 4 {
				time.Sleep(300 * time.Millisecond) // What is under test is time.
				_, _ = to.Write(make([]byte, 3000))
			}
			_ = to.Close()
		}()
		_, _ = io.Copy(w, from)
	})
	return m
}

// TestBodyForNobody: a body for which no handler waits, but net/http, has to come like any
// other, on the first request of a connection and on later ones.
func TestBodyForNobody(t *testing.T) {
	t.Parallel()
	get := "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, request := range map[string]string{
		"OPTIONS *":         "OPTIONS * HTTP/1.1\r\nHost: x\r\n",
		"unknown Expect":    "POST / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n",
		"flushed answer":    "POST /flush HTTP/1.1\r\nHost: x\r\n",
		"long answer":       "POST /long HTTP/1.1\r\nHost: x\r\n",
		"long string":       "POST /string HTTP/1.1\r\nHost: x\r\n",
		"file":              "GET /file HTTP/1.1\r\nHost: x\r\n",
		"hijack":            "POST /hijack HTTP/1.1\r\nHost: x\r\n",
		"handshake":         strings.TrimSuffix(handshake, "\r\n"),
		"no such path":      "POST /nowhere HTTP/1.1\r\nHost: x\r\n",
		"OPTIONS * as last": "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
	} {
		for _, body := range []string{"Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffff\r\n"} {
			for _, before := range []string{"", get} {
				for _, drips := range []bool{false, true} {
					if drips && body[0] == 'T' && strings.HasPrefix(name, "OPTIONS") {
						continue // It is read like a handler's: as long as it moves.
					}
					t.Run(fmt.Sprintf("%s, %.7s, after %d, drips %t", name, body, len(before), drips), func(t *testing.T) {
						t.Parallel()
						progress := protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}
						if drips {
							progress = protocols.ProgressConfig{MinBodyRate: 10_000, BodyGrace: 100 * time.Millisecond}
						}
						s := start(t, false, mux.WithHandler(awaitsNoBody(t)), impatient(progress))
						events := observe(t, s.Server)
						conn := s.dial(t)
						send(t, conn, before+request+body)
						dripped := make(chan struct{})
						go func() {
							defer close(dripped)
							for err := error(nil); drips && err == nil; time.Sleep(20 * time.Millisecond) {
								_, err = conn.Write([]byte("a"))
							}
						}()
						if name == "flushed answer" { // Its handler stays.
							r := bufio.NewReader(conn)
							for range len(before)/len(get) + 1 {
								resp, err := http.ReadResponse(r, nil)
								if err != nil {
									t.Fatal(err)
								}
								_, _ = io.CopyN(io.Discard, resp.Body, max(resp.ContentLength, 0))
							}
						} else {
							eventually(t, "closed", func() bool {
								return events.count(mux.EventRemoved, protocols.HTTP1, "slow_body")+events.count(mux.EventRemoved, protocols.WebSocket, "slow_body") == 1
							})
						}
						_ = conn.Close()
						<-dripped
					})
				}
			}
		}
	}
}

// TestAnswerBesideUnreadBody: a handler that writes little by little is not ended because of a
// body that nothing reads.
func TestAnswerBesideUnreadBody(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithHandler(awaitsNoBody(t)), impatient(protocols.ProgressConfig{ProgressTimeout: 100 * time.Millisecond}))
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "POST /pump HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	if body, err := io.ReadAll(resp.Body); err != nil || len(body) != 12_000 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// TestSlowHeadIsNoBody: what bounds bodies does not bound heads, of a first or later request.
func TestSlowHeadIsNoBody(t *testing.T) {
	t.Parallel()
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: 100 * time.Millisecond, MinBodyRate: 10_000}),
		mux.Configure(func(c *mux.Config) { c.HTTP1.HeaderTimeout = time.Second }))
	events := observe(t, s.Server)
	for _, conn := range []net.Conn{s.dial(t), s.hold(t)} {
		send(t, conn, "POST /echo HTTP/1.1\r\nContent-Length: 10\r\nHost:")
	}
	eventually(t, "both are closed", func() bool { return events.count(mux.EventRemoved, protocols.HTTP1, "header_timeout") == 2 })
}

// TestGeneralOptionsSlowBody: the bounds of a request hold for "OPTIONS *" in both versions,
// while another stream moves.
func TestGeneralOptionsSlowBody(t *testing.T) {
	t.Parallel()
	fields := []string{":method", "OPTIONS", ":scheme", "http", ":authority", "x", ":path", "*", "content-length", "10"}
	t.Run("progress", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}))
		events := observe(t, s.Server)
		conn := s.dial(t)
		c := newH2Client(t, conn, conn)
		c.get(1, "/busy")
		c.request(3, false, fields...)
		eventually(t, "the event", func() bool { return events.count(mux.EventTimeout, protocols.HTTP2, "slow_body") == 1 })
		if got := c.header(3)[":status"]; got != "200" {
			t.Errorf("status %s", got)
		}
	})
	t.Run("request timeout", func(t *testing.T) {
		t.Parallel()
		s := start(t, false, requestTimeout(200*time.Millisecond))
		conn := s.dial(t)
		c := newH2Client(t, conn, conn)
		c.request(1, false, fields...)
		if got := c.header(1)[":status"]; got != "408" {
			t.Errorf("HTTP/2: status %s", got)
		}
		other := s.dial(t)
		resp := roundTrip(t, other, bufio.NewReader(other), "OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("HTTP/1.1: %s", resp.Status)
		}
	})
}

// TestRefusedGeneralOptions: on an HTTP/2 connection that is too many, "OPTIONS *" is refused
// like any request, and waits for no body.
func TestRefusedGeneralOptions(t *testing.T) {
	t.Parallel()
	s := start(t, false, limits(func(c *mux.Config) { c.HTTP2.MaxConnections = 1 }))
	first := s.dial(t)
	c := newH2Client(t, first, first)
	c.get(1, "/busy")
	_ = c.header(1)
	second := s.dial(t)
	c = newH2Client(t, second, second)
	c.request(1, false, ":method", "OPTIONS", ":scheme", "http", ":authority", "x", ":path", "*", "content-length", "10")
	if got := c.header(1)[":status"]; got != "503" {
		t.Errorf("status %s", got)
	}
}
