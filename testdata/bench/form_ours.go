package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// maxConnections is the bound of each pool, which must not be what is measured.
const maxConnections = 20_000

// windowSettings are the windows of HTTP/2 in the configuration of the mux, by their keys.
func windowSettings() map[string]func(*mux.Config) *int32 {
	return map[string]func(*mux.Config) *int32{
		"http2.stream_window":     func(c *mux.Config) *int32 { return &c.HTTP2.StreamWindow },
		"http2.connection_window": func(c *mux.Config) *int32 { return &c.HTTP2.ConnectionWindow },
		"grpc.stream_window":      func(c *mux.Config) *int32 { return &c.GRPC.StreamWindow },
		"grpc.connection_window":  func(c *mux.Config) *int32 { return &c.GRPC.ConnectionWindow },
	}
}

// setWindows sets windows to what settings say, KEY=BYTES separated by commas.
func setWindows(c *mux.Config, settings string) error {
	for setting := range strings.SplitSeq(settings, ",") {
		if setting == "" {
			continue
		}
		key, value, _ := strings.Cut(setting, "=")
		window, ok := windowSettings()[key]
		size, err := strconv.ParseInt(value, 10, 32)
		if !ok || err != nil {
			return fmt.Errorf("bench: -set: %q is not the size of a window", setting)
		}
		*window(c) = int32(size)
	}
	return nil
}

// startOurs serves everything by the mux, with the statistics and observers that it has by default.
func startOurs(o serverOptions) (*running, error) {
	r := newRunning(o)
	routes := r.handlers.routes(func(handle func(context.Context, *websocket.Conn) error) http.Handler {
		return mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error { return handle(ctx, c) })
	})
	cert, key := certificateFiles(o.dir)
	if err := setWindows(new(mux.Config), o.set); err != nil {
		return nil, err
	}
	s := mux.New(
		mux.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))),
		mux.WithHandler(routes),
		mux.WithGRPC(func(g mux.GRPCRegistrar) { demov1.RegisterEchoServer(g, echoService{}) }),
		mux.Configure(func(c *mux.Config) {
			c.Listeners = []listeners.Config{
				{Address: "127.0.0.1:0", TCPKeepalive: listeners.DefaultConfig().TCPKeepalive},
				{Address: "127.0.0.1:0", TCPKeepalive: listeners.DefaultConfig().TCPKeepalive, TLS: listeners.TLSConfig{Mode: "manual", Cert: cert, Key: key}},
			}
			for _, limit := range []*int{&c.Limits.MaxConnections, &c.HTTP1.MaxConnections, &c.HTTP2.MaxConnections, &c.GRPC.MaxConnections, &c.WebSocket.MaxConnections} {
				*limit = maxConnections
			}
			c.Drain.Delay, c.Drain.Spread = 0, 0
			_ = setWindows(c, o.set) // It was looked at above.
		}),
	)
	if err := s.Listen(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	addresses := s.Addrs()
	for _, port := range allPorts() {
		r.addresses[port], r.addresses[overTLS(port)] = addresses[0].String(), addresses[1].String()
	}
	go func() { _ = s.ListenAndServe() }()
	r.closers = append(r.closers, func() { _ = s.Close() })
	r.drain = func(ctx context.Context) (time.Duration, int, error) {
		report, err := s.Drain(ctx)
		if report == nil {
			return 0, 0, err
		}
		return report.Duration, report.ForcedTotal(), nil
	}
	return r, nil
}
