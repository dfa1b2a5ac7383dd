package protocols

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

// A stateLog is what a server's ConnState is told, of all connections.
type stateLog struct {
	mu     sync.Mutex
	states []string
	closed chan struct{} // Receives a value for each connection that is closed.
}

func (l *stateLog) note(_ net.Conn, state http.ConnState) {
	l.mu.Lock()
	l.states = append(l.states, state.String())
	l.mu.Unlock()
	if state == http.StateClosed {
		l.closed <- struct{}{}
	}
}

type testKey struct{}

// tellContext answers with what a request's context knows.
func tellContext(w http.ResponseWriter, r *http.Request) {
	name, _ := r.Context().Value(testKey{}).(string)
	_, hasServer := r.Context().Value(http.ServerContextKey).(*http.Server)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if hasServer && local.String() == r.Host && r.RemoteAddr != "" {
		name += " in order"
	}
	_, _ = io.WriteString(w, r.Proto+" "+name)
}

// TestServeHTTP2IsServe: a client and the hooks cannot tell ServeHTTP2 from net/http's Serve.
func TestServeHTTP2IsServe(t *testing.T) {
	t.Parallel()
	type serveFunc func(*http.Server, net.Listener) error
	seen := func(t *testing.T, serve serveFunc) []string {
		states := &stateLog{closed: make(chan struct{}, 1)}
		srv := NewHTTP2Server(DefaultHTTP2Config(), HTTPHooks{
			Handler:   http.HandlerFunc(tellContext),
			Logger:    slog.New(slog.DiscardHandler),
			ConnState: states.note,
			ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
				return context.WithValue(ctx, testKey{}, "known")
			},
		})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- serve(srv, l) }()
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		var got []string
		for _, target := range []struct{ method, path, body string }{
			{http.MethodGet, "/", ""},
			{http.MethodOptions, "*", ""},
			{http.MethodOptions, "*", strings.Repeat("b", 8<<10)},
			{http.MethodOptions, "/", ""},
		} {
			req, err := http.NewRequestWithContext(t.Context(), target.method, "http://"+l.Addr().String(), strings.NewReader(target.body))
			if err != nil {
				t.Fatal(err)
			}
			if target.path == "*" {
				req.URL.Opaque = "*"
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			got = append(got, resp.Status, resp.Header.Get("Content-Length"), string(body))
		}
		// The client leaves at the GOAWAY.
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("it ended with %v", err)
		}
		<-states.closed
		return append(got, states.states...)
	}
	want := seen(t, (*http.Server).Serve)
	if diff := cmp.Diff(want, seen(t, ServeHTTP2)); diff != "" {
		t.Errorf("Serve and ServeHTTP2 (-Serve +ServeHTTP2):\n%s", diff)
	}
	if want[2] != "HTTP/2.0 known in order" {
		t.Errorf("the handler saw %q", want[2])
	}
	if want[5] != want[2] {
		t.Errorf("the handler does not get OPTIONS *: it was answered %q", want[3:6])
	}
}

// TestServeHTTP2WithoutHandOver: where net/http does not say how to hand connections to HTTP/2, it serves them itself.
func TestServeHTTP2WithoutHandOver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewHTTP2Server(DefaultHTTP2Config(), HTTPHooks{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		Logger:  slog.New(slog.DiscardHandler),
	})
	srv.Protocols.SetUnencryptedHTTP2(false)
	srv.Protocols.SetHTTP1(true)
	defer srv.Close()
	go func() { _ = ServeHTTP2(srv, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.0 200 OK\r\n") {
		t.Errorf("it answered %q, %v", answer, err)
	}
}

// TestServeHTTP2ClosesOthers: what does not begin with the preface is closed, and a panic costs one connection.
func TestServeHTTP2ClosesOthers(t *testing.T) {
	var logged bytes.Buffer
	for _, test := range []struct{ name, sent, logs string }{
		{"another protocol", strings.Repeat("x", len(http2.ClientPreface)), ""},
		{"half a preface", http2.ClientPreface[:10], ""},
		{"panic", http2.ClientPreface, "http: panic serving pipe: oh"},
	} {
		logged.Reset()
		client, server := net.Pipe()
		l := &prefacedListener{server: &http.Server{
			ErrorLog:    log.New(&logged, "", 0),
			ConnContext: func(context.Context, net.Conn) context.Context { panic("oh") },
		}}
		go func() {
			_, _ = io.WriteString(client, test.sent)
			client.Close()
		}()
		l.serve(server, nil)
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: read: %v, want it closed", test.name, err)
		}
		if first, _, _ := strings.Cut(logged.String(), "\n"); first != test.logs {
			t.Errorf("%s: logged %q, want %q", test.name, first, test.logs)
		}
	}
}
