package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
	"github.com/muxserve/muxserve/mux"
)

// form is how a backend is reached.
type form string

const (
	plaintext form = "plaintext"
	overTLS   form = "TLS"
	// served is plaintext on a listener of the embedder's own.
	served form = "Serve(l)"
)

// A backend is a mux in this process. grpc-go has the demo's services, and the
// HTTP handler has Handled and /echo.
type backend struct {
	addr   string
	server *mux.Server
	// logged counts the lines of the access log.
	logged atomic.Int64

	served chan error // receives what Serve or ListenAndServe returns
	close  func()
}

// drainTimeout is far longer than any request takes.
const drainTimeout = time.Minute

// startBackend starts a mux whose handler serves Handled by that implementation.
func startBackend(impl implementation, f form, cert, key string) (*backend, error) {
	service, closeService, err := impl.open()
	if err != nil {
		return nil, err
	}
	routes := http.NewServeMux()
	routes.Handle(handledUnary, service)
	routes.HandleFunc("/echo", serveEcho)

	b := &backend{served: make(chan error, 1), close: closeService}
	b.server = mux.New(
		mux.WithHandler(routes),
		mux.WithGRPC(demo.RegisterGRPC),
		mux.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))),
		mux.WithAccessLog(slog.New(&counter{&b.logged})),
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			if f == overTLS {
				c.Listeners[0].TLS.Cert, c.Listeners[0].TLS.Key = cert, key
			}
			c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout = 0, 0, drainTimeout
		}),
	)
	if f == served {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			closeService()
			return nil, fmt.Errorf("mixed: %w", err)
		}
		b.addr = l.Addr().String()
		go func() { b.served <- b.server.Serve(l) }()
		return b, nil
	}
	if err := b.server.Listen(); err != nil {
		closeService()
		return nil, err
	}
	b.addr = b.server.Addrs()[0].String()
	go func() { b.served <- b.server.ListenAndServe() }()
	return b, nil
}

// drain ends the backend. It returns an error where connections had to be cut.
func (b *backend) drain(ctx context.Context) error {
	err := b.server.Shutdown(ctx)
	if ended := <-b.served; !errors.Is(ended, mux.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	b.close()
	return err
}

// A counter is a log that counts its lines.
type counter struct{ n *atomic.Int64 }

// Enabled implements [slog.Handler].
func (c *counter) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (c *counter) Handle(context.Context, slog.Record) error {
	c.n.Add(1)
	return nil
}

// WithAttrs implements [slog.Handler].
func (c *counter) WithAttrs([]slog.Attr) slog.Handler { return c }

// WithGroup implements [slog.Handler].
func (c *counter) WithGroup(string) slog.Handler { return c }

// clientTLS trusts the certificate file, or is nil in plaintext.
func clientTLS(ca string) (*tls.Config, error) {
	if ca == "" {
		return nil, nil
	}
	pool, err := certPool(ca)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}, nil
}
