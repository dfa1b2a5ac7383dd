package mux_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

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

// TestRecorderIsTransparent: handlers find the optional methods of net/http's own
// writers, and no others.
func TestRecorderIsTransparent(t *testing.T) {
	probe := func(w http.ResponseWriter, _ *http.Request) {
		var found []string
		if _, ok := w.(http.Flusher); ok {
			found = append(found, "Flusher")
		}
		if _, ok := w.(http.Hijacker); ok {
			found = append(found, "Hijacker")
		}
		if _, ok := w.(http.Pusher); ok {
			found = append(found, "Pusher")
		}
		if _, ok := w.(io.StringWriter); ok {
			found = append(found, "StringWriter")
		}
		_, _ = io.WriteString(w, strings.Join(found, " "))
	}
	s := start(t, true, mux.WithHandler(http.HandlerFunc(probe)))
	for version, want := range map[int]string{1: "Flusher Hijacker StringWriter", 2: "Flusher Pusher StringWriter"} {
		if got := <-get(s.client(t, version), "https://"+s.addr+"/"); got != want {
			t.Errorf("HTTP/%d: %q, want %q", version, got, want)
		}
	}
}
