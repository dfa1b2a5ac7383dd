package mux_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// layered are listeners whose connections are no bare TCP sockets.
var layered = []struct {
	name   string
	listen func(*testing.T) net.Listener
	client func(*testing.T, net.Conn) net.Conn // nil for none
	resets bool                                // the client sees a cut from a complete end
}{
	{"PROXY header", func(t *testing.T) net.Listener {
		t.Helper()
		l, err := listeners.NewProxyListener(listen(t), behindProxy(listeners.ProxyRequired, "127.0.0.1").ProxyProtocol)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}, func(t *testing.T, conn net.Conn) net.Conn {
		t.Helper()
		return &behindHeader{conn, proxyHeader(t, 1, "192.0.2.7:1234")}
	}, true},
	{"TLS", func(t *testing.T) net.Listener {
		t.Helper()
		return tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{newAuthority(t).issue(t, "localhost")}})
	}, func(_ *testing.T, conn net.Conn) net.Conn {
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}, true},
	{"unknown layer", func(t *testing.T) net.Listener {
		t.Helper()
		return wrapListener{listen(t), func(conn net.Conn) net.Conn { return struct{ net.Conn }{conn} }}
	}, nil, false},
	{"Unix socket", func(t *testing.T) net.Listener {
		t.Helper()
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
		if err != nil {
			t.Skip(err)
		}
		return l
	}, nil, false},
}

// onLayers serves h on each of the listeners, and asks for what it has.
func onLayers(t *testing.T, h http.Handler, progress time.Duration, test func(t *testing.T, s *server, conn net.Conn, resets bool)) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the kernel's buffers are those of Linux")
	}
	for _, layer := range layered {
		t.Run(layer.name, func(t *testing.T) {
			t.Parallel()
			m := mux.New(mux.WithLogger(discard), mux.WithHandler(h), impatient(protocols.ProgressConfig{ProgressTimeout: progress}))
			l := layer.listen(t)
			s := serveOn(t, m, l)
			conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(128 << 10)
			}
			if layer.client != nil {
				conn = layer.client(t, conn)
			}
			send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			test(t, s.server, conn, layer.resets)
		})
	}
}

// TestSteadyReaderOfOneWrite: a client that reads steadily gets all of a response that is one
// Write, however much longer than the progress timeout that takes.
func TestSteadyReaderOfOneWrite(t *testing.T) {
	t.Parallel()
	const size, part = 12 << 20, 48 << 10 // each 20 ms: 5 s
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) })
	onLayers(t, h, 3*time.Second, func(t *testing.T, _ *server, conn net.Conn, _ bool) {
		t.Helper()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		for read := int64(0); read < size; time.Sleep(20 * time.Millisecond) { // What is under test is time.
			n, err := io.CopyN(io.Discard, resp.Body, min(part, size-read))
			if read += n; err != nil {
				t.Fatalf("behind %d bytes: %v", read, err)
			}
		}
	})
}

// TestStalledFile: the server cuts a client that takes nothing of a file, and the client sees
// that where its layers let it.
func TestStalledFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 256<<20); err != nil {
		t.Fatal(err)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) })
	onLayers(t, h, 300*time.Millisecond, func(t *testing.T, s *server, conn net.Conn, resets bool) {
		t.Helper()
		eventually(t, "cut", func() bool { return s.Stats().Pools["http1"].Reasons["write_stalled"] == 1 })
		if _, err := io.Copy(io.Discard, conn); (err != nil) != resets {
			t.Errorf("the client sees %v", err)
		}
	})
}
