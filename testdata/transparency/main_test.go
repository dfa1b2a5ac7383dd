package transparency_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter, gin.DefaultErrorWriter = io.Discard, io.Discard
	m.Run()
}

// timeout bounds a wait for what comes at once.
const timeout = 30 * time.Second

// plain serves h by net/http alone, with HTTP/2, and returns the address.
func plain(t *testing.T, h http.Handler) string {
	t.Helper()
	l := listen(t)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: timeout, Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// muxed serves h behind the mux and returns the address.
func muxed(t *testing.T, h http.Handler) string {
	t.Helper()
	l := listen(t)
	s := mux.New(mux.WithHandler(h), mux.WithLogger(slog.New(slog.DiscardHandler)))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// alike serves the program on net/http alone and behind the mux, has a client ask each, and
// compares what it says it has seen. It returns that.
func alike(t *testing.T, program http.Handler, ask func(t *testing.T, addr string) string) string {
	t.Helper()
	want := ask(t, plain(t, program))
	if diff := cmp.Diff(want, ask(t, muxed(t, program))); diff != "" {
		t.Errorf("(-net/http +mux):\n%s", diff)
	}
	return want
}

// client returns an HTTP client that speaks one version of HTTP.
func client(t *testing.T, version int) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(version == 1)
	tr.Protocols.SetUnencryptedHTTP2(version == 2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// get returns the status and the body of a GET, without what differs from time to time.
func get(version int, path string) func(t *testing.T, addr string) string {
	return func(t *testing.T, addr string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client(t, version).Do(r)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		var head strings.Builder
		resp.Header.Del("Date")
		_ = resp.Header.Write(&head)
		return strings.Join([]string{resp.Status, head.String(), string(body)}, "\n") + errText(err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return " error: " + err.Error()
}
