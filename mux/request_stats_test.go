package mux_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestRequestStats: requests, calls and WebSocket sessions are booked by what was
// asked, with the code that the client got, and nothing stays in flight.
func TestRequestStats(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		for version := range 2 {
			c := s.client(t, version+1)
			for _, path := range []string{"/echo", "/echo", "/nowhere", "/panic"} {
				// A POST, because net/http's client tries a GET again.
				resp, err := c.Post(s.scheme()+"://"+s.addr+path, "text/plain", nil)
				if path == "/panic" {
					if err == nil {
						t.Errorf("%s: %s", path, resp.Status)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}
		native := testpb.NewTestServiceClient(s.grpcClient(t))
		for _, code := range []codes.Code{codes.OK, codes.NotFound, codes.Internal} {
			_, _ = native.UnaryCall(t.Context(), wantStatus(code, ""))
		}
		if got := grpcOverHTTP(t, s.client(t, 2), s.scheme()+"://"+s.addr); got != "0" {
			t.Errorf("shared call: %q", got)
		}
		ws := s.webSocket(t)
		eventually(t, "one session in flight", func() bool { return s.Stats().Requests["websocket"].InFlight == 1 })
		_ = ws.CloseNow()

		eventually(t, "nothing in flight", func() bool {
			for _, r := range s.Stats().Requests {
				if r.InFlight != 0 {
					return false
				}
			}
			return true
		})
		st := s.Stats()
		want := map[string]map[int]uint64{
			"http1":     {200: 2, 404: 1, 500: 1},
			"http2":     {200: 2, 404: 1, 500: 1},
			"grpc":      {0: 2, int(codes.NotFound): 1, int(codes.Internal): 1},
			"websocket": {101: 1},
		}
		if diff := cmp.Diff(want, st.Codes); diff != "" {
			t.Errorf("codes (-want +got):\n%s", diff)
		}
		if got := st.Requests["grpc"].ErrorRate; got != 0.25 {
			t.Errorf("error rate of gRPC %v, want 0.25", got)
		}
		if got := st.Health["grpc"].Status.String(); got != "healthy" {
			t.Errorf("health of gRPC %s", got)
		}
	}, mux.WithHandler(withPanic()), mux.WithGRPC(func(r mux.GRPCRegistrar) {
		testpb.RegisterTestServiceServer(r, &behaviour{cancelled: make(chan error, 1)})
	}))
}

func withPanic() http.Handler {
	m := http.NewServeMux()
	m.Handle("/", routes())
	m.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return m
}

// TestRecorderIsTransparent: handlers find the optional methods of net/http's own writers, and no others.
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
