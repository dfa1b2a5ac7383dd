package mux_test

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// serveWatched serves l, and asks of each connection all that a log and an observer can.
func serveWatched(t *testing.T, l net.Listener) *running {
	t.Helper()
	log := slog.New(slog.NewTextHandler(new(syncBuffer), &slog.HandlerOptions{Level: slog.LevelDebug}))
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(routes()), mux.WithLogger(log))
	m.Observe(func(e mux.Event) { mux.ConnOf(e) })
	return serveOn(t, m, l)
}

// TestLateAddresses: connections that wait for a PROXY header when they are asked for their
// addresses hold up neither those behind them nor the list of connections.
func TestLateAddresses(t *testing.T) {
	t.Parallel()
	// Before the last of them, the time of a header, 3 s, is over more often than the clients
	// below wait.
	const silent = 10
	for name, behind := range map[string]func(net.Listener) (net.Listener, error){
		"go-proxyproto": func(l net.Listener) (net.Listener, error) {
			return &proxyproto.Listener{Listener: l, ReadHeaderTimeout: -1}, nil // No limit.
		},
		"NewProxyListener": func(l net.Listener) (net.Listener, error) {
			return listeners.NewProxyListener(l, listeners.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{"127.0.0.1"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := behind(listen(t))
			if err != nil {
				t.Fatal(err)
			}
			s := serveWatched(t, l)
			for range silent {
				s.dial(t)
			}
			conn := s.dial(t)
			const request = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
			resp := roundTrip(t, conn, bufio.NewReader(conn), proxyHeader(t, 1, "192.0.2.1:1")+request)
			if resp.StatusCode != http.StatusOK {
				t.Errorf("behind silent clients: %s", resp.Status)
			}
			listed, none := make(chan []mux.ConnInfo, 1), make(chan int, 1)
			go func() { listed <- s.Connections() }()
			go func() { none <- s.Disconnect(func(mux.ConnInfo) bool { return false }, 0) }()
			within(t, "Disconnect", none)
			for _, info := range within(t, "Connections", listed) {
				want := "192.0.2.1:1 198.51.100.1:443"
				switch {
				case info.Requests > 0:
				case info.RemoteAddr == "":
					want = " "
				default:
					continue // The time of its header is over.
				}
				if got := info.RemoteAddr + " " + info.LocalAddr; got != want {
					t.Errorf("connection %d with %d requests: addresses %q, want %q", info.ID, info.Requests, got, want)
				}
			}
		})
	}
}

// nowhere is a connection without a local address.
type nowhere struct{ net.Conn }

func (nowhere) LocalAddr() net.Addr { return nil }

// TestNoLocalAddr: a connection may have no local address, as in net/http.
func TestNoLocalAddr(t *testing.T) {
	t.Parallel()
	l := wrapListener{listen(t), func(conn net.Conn) net.Conn { return nowhere{conn} }}
	s := serveWatched(t, l)
	conn := s.hold(t)
	for _, info := range s.Connections() {
		if info.RemoteAddr != conn.LocalAddr().String() || info.LocalAddr != "" {
			t.Errorf("addresses %q and %q", info.RemoteAddr, info.LocalAddr)
		}
	}
	_ = conn.Close()
	eventually(t, "it is closed", func() bool { return len(s.Connections()) == 0 })
}
