package mux_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

// seenRequests are the requests that a handler has seen, by the client's address.
type seenRequests struct {
	mu sync.Mutex // guards all
	by map[string][]string
}

func (s *seenRequests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[r.RemoteAddr] = append(s.by[r.RemoteAddr], fmt.Sprintf("%s %q %s %q %t", r.Method, r.RequestURI, r.Proto, body, err == nil))
	w.Header().Set("Content-Length", "0")
}

// FuzzHTTP1Server has net/http as its oracle: the handler sees the requests that it would
// see there, no more and no fewer, whatever the bytes are.
func FuzzHTTP1Server(f *testing.F) {
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, seed := range []string{
		"", get, get + get, handshake, handshake + get, "\r\n" + get, "GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n" + get,
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + get,
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + get,
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + get,
		"GET / HTTP/1.1\nHost: x\n\n", "GET / HTTP/1.0\r\n\r\n", "GET http://x/y HTTP/1.1\r\nHost: z\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", "SSH-2.0-x\r\n",
	} {
		f.Add([]byte(seed))
	}
	logger := slog.New(slog.DiscardHandler)
	direct, muxed := &seenRequests{by: make(map[string][]string)}, &seenRequests{by: make(map[string][]string)}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.Fatal(err)
		}
		return l
	}
	one, two := listen(), listen()
	base := &http.Server{Handler: direct, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelError)}
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(muxed), mux.WithLogger(logger))
	go func() { _ = base.Serve(one) }()
	go func() { _ = m.Serve(two) }()
	f.Cleanup(func() {
		_ = base.Close()
		_ = m.Close()
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.HasPrefix(bytes.TrimLeft(b, "\r\n"), []byte("PRI")) || bytes.HasPrefix(b, []byte{0x16}) || len(b) > 4096 {
			return // HTTP/2 and TLS.
		}
		ask := func(l net.Listener, seen *seenRequests) []string {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Skip(err) // Of ports, there may be none left.
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = conn.Write(b)
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			seen.mu.Lock()
			defer seen.mu.Unlock()
			requests := seen.by[conn.LocalAddr().String()]
			delete(seen.by, conn.LocalAddr().String())
			return requests
		}
		if diff := cmp.Diff(ask(one, direct), ask(two, muxed)); diff != "" {
			t.Errorf("requests (-net/http +mux):\n%s", diff)
		}
	})
}
