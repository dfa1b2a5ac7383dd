package transparency_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"

	"github.com/oklog/run"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// server is what programs know of a server's life.
type server interface {
	ListenAndServe() error
	Shutdown(ctx context.Context) error
}

// both makes the two servers, for an address.
var both = map[string]func(addr string) server{
	"net/http": func(addr string) server { return &http.Server{Addr: addr, Handler: http.HandlerFunc(mirror)} },
	"mux": func(addr string) server {
		return mux.New(mux.WithHandler(http.HandlerFunc(mirror)), mux.WithAddress(addr), mux.WithLogger(slog.New(slog.DiscardHandler)),
			mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }))
	},
}

func lifeText(err error) string {
	return fmt.Sprint(err == nil, errors.Is(err, http.ErrServerClosed), errors.Is(err, syscall.EADDRINUSE))
}

// TestLife: a server in oklog/run and in fx: it starts, answers and stops, or cannot listen.
func TestLife(t *testing.T) {
	t.Parallel()
	lives := map[string]func(t *testing.T, s server, addr string) string{
		"oklog/run": func(t *testing.T, s server, addr string) string {
			var g run.Group
			stop := make(chan struct{})
			g.Add(func() error { return s.ListenAndServe() }, func(error) { _ = s.Shutdown(requestContext(t)) })
			g.Add(func() error { <-stop; return errors.New("stopped") }, func(error) {})
			ended := make(chan error, 1)
			go func() { ended <- g.Run() }()
			text := ask(t, addr)
			close(stop)
			err := <-ended
			return text + lifeText(err) + err.Error()
		},
		"fx": func(t *testing.T, s server, addr string) string {
			served := make(chan error, 1)
			app := fx.New(fx.WithLogger(func() fxevent.Logger { return fxevent.NopLogger }), fx.Invoke(func(l fx.Lifecycle) {
				l.Append(fx.StartStopHook(func() { go func() { served <- s.ListenAndServe() }() }, s.Shutdown))
			}))
			text := lifeText(app.Start(requestContext(t))) + ask(t, addr)
			return text + lifeText(app.Stop(requestContext(t))) + lifeText(<-served)
		},
		"never served": func(t *testing.T, s server, _ string) string {
			return lifeText(s.Shutdown(requestContext(t))) + lifeText(s.ListenAndServe())
		},
		"bind failure in oklog/run": func(t *testing.T, s server, addr string) string {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var g run.Group
			g.Add(func() error { return s.ListenAndServe() }, func(error) { _ = s.Shutdown(requestContext(t)) })
			return lifeText(g.Run())
		},
		"after a bind failure": func(t *testing.T, s server, addr string) string {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			text := lifeText(s.ListenAndServe())
			_ = l.Close()
			served := make(chan error, 1)
			go func() { served <- s.ListenAndServe() }()
			text += ask(t, addr)
			return text + lifeText(s.Shutdown(requestContext(t))) + lifeText(<-served)
		},
	}
	for name, live := range lives {
		t.Run(name, func(t *testing.T) {
			views := make(map[string]string)
			for kind, newServer := range both {
				l := listen(t)
				addr := l.Addr().String()
				_ = l.Close()
				views[kind] = live(t, newServer(addr), addr)
			}
			comparisons.check(t, views["net/http"], views["mux"])
		})
	}
}

// ask makes a request as soon as the server answers.
func ask(t *testing.T, addr string) string {
	var status string
	eventually(t, "answer", func() bool {
		resp, err := http.Get("http://" + addr + "/") //nolint:noctx // It is short.
		if err != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		status = resp.Status
		return true
	})
	http.DefaultClient.CloseIdleConnections()
	return status
}
