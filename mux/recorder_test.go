package mux_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

// TestHijackedHandshakeCode: a WebSocket is one request with code 101, also where the
// handler hijacks and writes the answer itself, as gorilla/websocket and
// httputil.ReverseProxy do.
func TestHijackedHandshakeCode(t *testing.T) {
	s := start(t, false, mux.WithHandler(switching(t, "websocket", func(net.Conn, io.Reader) {})))
	conn := s.dial(t)
	_ = roundTrip(t, conn, bufio.NewReader(conn), handshake)
	eventually(t, "booked", func() bool { return len(s.Stats().Codes["websocket"]) > 0 })
	if diff := cmp.Diff(map[int]uint64{101: 1}, s.Stats().Codes["websocket"]); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

// TestAbortedResponse: the recorded code is the one that the client got, also where the
// handler aborts the response.
func TestAbortedResponse(t *testing.T) {
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})))
	for version := 1; version <= 2; version++ {
		resp, err := s.client(t, version).Post("http://"+s.addr+"/", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
		_ = resp.Body.Close()
	}
	eventually(t, "booked", func() bool { c := s.Stats().Codes; return len(c["http1"]) > 0 && len(c["http2"]) > 0 })
	for _, p := range []string{"http1", "http2"} {
		if diff := cmp.Diff(map[int]uint64{200: 1}, s.Stats().Codes[p]); diff != "" {
			t.Errorf("%s: codes (-want +got):\n%s", p, diff)
		}
	}
}

// TestMaxBytes: http.MaxBytesReader makes the server close the connection after its
// answer, as with net/http alone.
func TestMaxBytes(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var tooLong *http.MaxBytesError
		if _, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 10)); errors.As(err, &tooLong) {
			http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		}
	})
	s := start(t, false, mux.WithHandler(handler))
	conn := s.dial(t)
	resp := roundTrip(t, conn, bufio.NewReader(conn), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"+strings.Repeat("x", 20))
	if !resp.Close {
		t.Errorf("%s %v: net/http says Connection: close", resp.Status, resp.Header)
	}
}

// writerInterfaces are the interfaces that programs look for in a ResponseWriter, each with
// a use of it that leaves the response as it is.
var writerInterfaces = []struct {
	name string
	use  func(w http.ResponseWriter) (found bool, result any)
}{
	{"Flusher", func(w http.ResponseWriter) (bool, any) {
		f, ok := w.(http.Flusher)
		if ok {
			f.Flush()
		}
		return ok, nil
	}},
	{"FlushError", func(w http.ResponseWriter) (bool, any) {
		f, ok := w.(interface{ FlushError() error })
		if !ok {
			return false, nil
		}
		return true, f.FlushError()
	}},
	{"Hijacker", func(w http.ResponseWriter) (bool, any) {
		_, ok := w.(http.Hijacker)
		return ok, nil
	}},
	{"Pusher", func(w http.ResponseWriter) (bool, any) {
		p, ok := w.(http.Pusher)
		if !ok {
			return false, nil
		}
		return true, p.Push("/pushed", nil)
	}},
	{"ReaderFrom", func(w http.ResponseWriter) (bool, any) {
		r, ok := w.(io.ReaderFrom)
		if !ok {
			return false, nil
		}
		n, err := r.ReadFrom(strings.NewReader("copied "))
		return true, fmt.Sprint(n, err)
	}},
	{"StringWriter", func(w http.ResponseWriter) (bool, any) {
		s, ok := w.(io.StringWriter)
		if !ok {
			return false, nil
		}
		n, err := s.WriteString("text ")
		return true, fmt.Sprint(n, err)
	}},
	{"CloseNotifier", func(w http.ResponseWriter) (bool, any) {
		n, ok := w.(interface{ CloseNotify() <-chan bool })
		return ok, ok && n.CloseNotify() != nil
	}},
	{"SetReadDeadline", func(w http.ResponseWriter) (bool, any) {
		d, ok := w.(interface{ SetReadDeadline(t time.Time) error })
		if !ok {
			return false, nil
		}
		return true, d.SetReadDeadline(time.Now().Add(time.Hour))
	}},
	{"SetWriteDeadline", func(w http.ResponseWriter) (bool, any) {
		d, ok := w.(interface{ SetWriteDeadline(t time.Time) error })
		if !ok {
			return false, nil
		}
		return true, d.SetWriteDeadline(time.Now().Add(time.Hour))
	}},
	{"EnableFullDuplex", func(w http.ResponseWriter) (bool, any) {
		d, ok := w.(interface{ EnableFullDuplex() error })
		if !ok {
			return false, nil
		}
		return true, d.EnableFullDuplex()
	}},
}

// methodsOf returns the names of all methods that a ResponseWriter shows.
func methodsOf(w http.ResponseWriter) []string {
	var names []string
	for m := range reflect.TypeOf(w).Methods() {
		names = append(names, m.Name)
	}
	return names
}

// TestRecorderIsTransparent: handlers find the methods of net/http's own writers, all of them
// and no others but Unwrap, and they do the same: in HTTP/1.1, in HTTP/2, and in handshakes.
func TestRecorderIsTransparent(t *testing.T) {
	probe := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		found := slices.DeleteFunc(methodsOf(w), func(name string) bool { return name == "Unwrap" })
		for _, i := range writerInterfaces {
			if ok, result := i.use(w); ok {
				found = append(found, fmt.Sprint(i.name, "=", result))
			}
		}
		_, _ = io.WriteString(w, strings.Join(found, ", "))
	})
	direct := httptest.NewUnstartedServer(probe)
	direct.EnableHTTP2 = true
	direct.StartTLS()
	defer direct.Close()
	plain := &server{addr: direct.Listener.Addr().String(), roots: x509.NewCertPool()}
	plain.roots.AddCert(direct.Certificate())
	answers := func(t *testing.T, s *server) map[string]string {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		body, err := io.ReadAll(roundTrip(t, conn, r, handshake).Body)
		if err != nil {
			t.Error(err)
		}
		return map[string]string{
			"HTTP/1.1":  <-get(s.client(t, 1), "https://"+s.addr),
			"HTTP/2":    <-get(s.client(t, 2), "https://"+s.addr),
			"handshake": string(body),
		}
	}
	want := answers(t, plain)
	if !strings.Contains(want["HTTP/1.1"], "Hijacker") || !strings.Contains(want["HTTP/2"], "Pusher") {
		t.Fatalf("net/http: %q", want)
	}
	for name, option := range map[string]mux.Option{"default": requestTimeout(0), "bounded": requestTimeout(time.Hour)} {
		if diff := cmp.Diff(want, answers(t, start(t, true, mux.WithHandler(probe), option))); diff != "" {
			t.Errorf("%s (-net/http +mux):\n%s", name, diff)
		}
	}
}

// TestCloseNotify: a handler that asks for it hears that its client has left.
func TestCloseNotify(t *testing.T) {
	t.Parallel()
	left := make(chan bool, 1)
	for _, bound := range []time.Duration{0, time.Hour} {
		s := start(t, false, requestTimeout(bound), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			gone := w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
			w.(http.Flusher).Flush()
			left <- <-gone
		})))
		for version := 1; version <= 2; version++ {
			ctx, cancel := context.WithCancel(t.Context())
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr, nil)
			resp, err := s.client(t, version).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			_ = resp.Body.Close()
			if !within(t, "the notification", left) {
				t.Errorf("HTTP/%d, bounded to %v: false", version, bound)
			}
		}
	}
}

// messageLog is a slog.Handler that keeps the messages of net/http.
type messageLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *messageLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *messageLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *messageLog) WithGroup(string) slog.Handler            { return l }

func (l *messageLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.HasPrefix(r.Message, "http: ") {
		l.lines = append(l.lines, r.Level.String()+" "+r.Message)
	}
	return nil
}

func (l *messageLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// answerTwice is a handler that net/http has something to say about.
func answerTwice(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "answer")
	w.WriteHeader(http.StatusAccepted)
	http.Error(w, "error", http.StatusTeapot)
	http.NotFound(w, nil)
	http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "late")
	}), time.Hour, "").ServeHTTP(w, new(http.Request))
}

// useHijacked is the like for a connection that is hijacked.
func useHijacked(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = w.Write([]byte("written"))
	_, _ = io.WriteString(w, "written")
	_, _ = io.Copy(w, strings.NewReader("copied"))
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
}

// badLength sends a length that is no number.
func badLength(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "none")
	w.WriteHeader(http.StatusOK)
}

// TestMisuseIsLogged: what net/http logs about a handler is logged at Warn in the same
// words, and names the same line of the handler.
func TestMisuseIsLogged(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{"twice": answerTwice, "hijacked": useHijacked, "length": badLength} {
		for request, head := range map[string]string{"request": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "handshake": handshake} {
			t.Run(name+" "+request, func(t *testing.T) {
				ask := func(addr string) {
					conn := (&server{addr: addr}).dial(t)
					_ = roundTrip(t, conn, bufio.NewReader(conn), head)
				}
				plain := new(messageLog)
				direct := httptest.NewUnstartedServer(h)
				direct.Config.ErrorLog = slog.NewLogLogger(plain, slog.LevelWarn)
				direct.Start()
				ask(direct.Listener.Addr().String())
				direct.Close()
				want := plain.all()
				if len(want) == 0 {
					t.Fatal("net/http has nothing to say")
				}
				for _, bound := range []time.Duration{0, time.Hour} {
					muxed := new(messageLog)
					ask(start(t, false, mux.WithHandler(h), mux.WithLogger(slog.New(muxed)), requestTimeout(bound)).addr)
					eventually(t, "logged", func() bool { return len(muxed.all()) >= len(want) })
					if diff := cmp.Diff(want, muxed.all()); diff != "" {
						t.Errorf("bounded to %v (-net/http +mux):\n%s", bound, diff)
					}
				}
			})
		}
	}
}
