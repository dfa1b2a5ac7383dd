package mux_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"

	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/mux"
)

// leaving returns the context that ends when the connection of x is told to leave.
func leaving(x any) context.Context {
	c, _ := mux.ConnOf(x)
	return c.Draining()
}

// TestDrainContext: an HTTP handler, the owner of a custom listener and a handler that
// hijacked its connection learn from the context that the connection is to leave.
func TestDrainContext(t *testing.T) {
	causes := make(chan error, 3)
	begun := make(chan struct{}, 3)
	wait := func(ctx context.Context) {
		begun <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
	}
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := leaving(r.Context())
		if r.URL.Path == "/hijack" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
		}
		wait(ctx)
	})))
	custom := m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	go func() {
		for {
			nc, err := custom.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				wait(leaving(nc))
			}()
		}
	}()
	s := serve(t, m)
	for _, first := range []string{"SSH-2.0-x\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n"} {
		send(t, s.dial(t), first)
		within(t, "its handler", begun)
	}
	if got := within(t, "the drain", s.drain(t.Context())); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
	for range 3 {
		if err := <-causes; !errors.Is(err, mux.ErrDraining) {
			t.Error(err)
		}
	}
	for _, x := range []any{t.Context(), mux.Event{}, nil} {
		if c, ok := mux.ConnOf(x); ok || leaving(x).Done() != nil || c.Info().ID != 0 {
			t.Errorf("%T has a connection", x)
		}
	}
}

// TestDrainContextOfClosed: the context ends with the connection.
func TestDrainContextOfClosed(t *testing.T) {
	ctxs := make(chan context.Context, 1)
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctxs <- leaving(r.Context())
	})))
	conn := s.dial(t)
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	ctx := <-ctxs
	within(t, "its end", ctx.Done())
	if err := context.Cause(ctx); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
