package listeners

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/nettest"
)

// TestProxyNothingWritten: a peer with a bad header gets no byte.
func TestProxyNothingWritten(t *testing.T) {
	inner := &scriptConn{in: strings.NewReader(request), step: 100, peer: scriptPeer}
	c := &proxyConn{Conn: inner, trusted: true, required: true}
	if n, err := io.WriteString(c, "hello"); n != 0 || err != ErrProxyMissing {
		t.Errorf("Write = %d, %v", n, err)
	}
	if n, err := c.ReadFrom(strings.NewReader("hello")); n != 0 || err != ErrProxyMissing {
		t.Errorf("ReadFrom = %d, %v", n, err)
	}
	if n, err := c.WriteTo(io.Discard); n != 0 || err != ErrProxyMissing {
		t.Errorf("WriteTo = %d, %v", n, err)
	}
	if inner.out.Len() > 0 {
		t.Errorf("%q was written", inner.out.String())
	}
}

// TestProxyTimeout: a header has three seconds, and an earlier deadline counts. Where it
// may be missing, a peer that begins like one and stops is left to who serves it.
func TestProxyTimeout(t *testing.T) {
	tests := []struct {
		name     string
		in       string
		required bool
		deadline time.Duration // 0: none
		want     error
		after    time.Duration
	}{
		{"silent", "", true, 0, ErrProxySilent, proxyHeaderTimeout},
		{"silent, optional", "", false, 0, ErrProxySilent, proxyHeaderTimeout},
		{"half", header1[:20], true, 0, errProxySlow, proxyHeaderTimeout},
		{"half, optional", header1[:20], false, 0, errProxySlow, proxyHeaderTimeout},
		{"less than a signature", "P", true, 0, errProxySlow, proxyHeaderTimeout},
		{"less than a signature, optional", "P", false, 0, nil, proxyHeaderTimeout},
		{"deadline", "", true, time.Second, ErrProxySilent, time.Second},
		{"later deadline", "", true, time.Minute, ErrProxySilent, proxyHeaderTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer client.Close()
				c := &proxyConn{Conn: server, trusted: true, required: tt.required}
				defer c.Close()
				started := time.Now()
				if tt.deadline > 0 {
					c.SetDeadline(started.Add(tt.deadline))
				}
				go io.WriteString(client, tt.in)
				if err := c.HeaderError(); !errors.Is(err, tt.want) {
					t.Errorf("HeaderError: %v, want %v", err, tt.want)
				}
				if waited := time.Since(started); waited != tt.after {
					t.Errorf("it took %v, want %v", waited, tt.after)
				}
			})
		})
	}
}

// TestProxyDeadlines: the wait for the header leaves no deadline behind, and keeps the
// one that was set.
func TestProxyDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		c := &proxyConn{Conn: server, trusted: true, required: true}
		defer c.Close()
		go io.WriteString(client, header1)
		if err := c.HeaderError(); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(10 * proxyHeaderTimeout)
			io.WriteString(client, "x")
		}()
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v, want a timeout", err)
		}
	})
}

// TestProxyClose: closing ends the wait for a header, and addresses are to be had all the
// same.
func TestProxyClose(t *testing.T) {
	l := listenProxy(t, "127.0.0.1:0", "127.0.0.0/8")
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(client.RemoteAddr().String(), conn.LocalAddr().String()); diff != "" {
		t.Errorf("local address before the header (-want +got):\n%s", diff)
	}
	failed := make(chan error, 1)
	go func() { failed <- conn.(*proxyConn).HeaderError() }()
	conn.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("HeaderError: %v, want %v", err, net.ErrClosed)
	}
	if diff := cmp.Diff(client.LocalAddr().String(), conn.RemoteAddr().String()); diff != "" {
		t.Errorf("remote address (-want +got):\n%s", diff)
	}
}

// listenProxy returns a listener that requires a header of those it trusts.
func listenProxy(t *testing.T, address string, trusted ...string) net.Listener {
	t.Helper()
	inner, err := Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewProxyListener(inner, ProxyConfig{Mode: ProxyRequired, Trusted: trusted})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestProxyAcceptDoesNotWait: one silent client does not hold up the others.
func TestProxyAcceptDoesNotWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, where := range []struct{ network, address, trusted string }{
		{"tcp", "127.0.0.1:0", "127.0.0.1"},
		{"unix", unixPrefix + path, TrustUnix},
	} {
		t.Run(where.network, func(t *testing.T) {
			l := listenProxy(t, where.address, where.trusted)
			for i := range 3 {
				client, err := net.Dial(where.network, l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				conn, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if i == 2 {
					io.WriteString(client, header1)
					if got := conn.RemoteAddr().String(); got != "192.0.2.1:56324" {
						t.Errorf("RemoteAddr %s", got)
					}
				}
			}
		})
	}
}

// TestProxyListenerStops: the wrapped socket can still be emptied before it is closed.
func TestProxyListenerStops(t *testing.T) {
	l := New(listenProxy(t, "127.0.0.1:0", "127.0.0.1"), nil)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l.Stop()
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("the connection in the queue was lost: %v", err)
	}
	conn.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want %v", err, net.ErrClosed)
	}
}

// TestNewProxyListener: off is no wrapper at all, and a faulty configuration is refused.
func TestNewProxyListener(t *testing.T) {
	inner, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if l, err := NewProxyListener(inner, ProxyConfig{}); l != inner || err != nil {
		t.Errorf("off: %v, %v", l, err)
	}
	_, err = NewProxyListener(inner, ProxyConfig{Mode: ProxyRequired})
	checkError(t, err, []string{"proxy_protocol.trusted: needed"})
}

// proxyPair returns a client and a server behind its header, which is read.
func proxyPair(t *testing.T) (client *net.TCPConn, server *proxyConn) {
	t.Helper()
	l := listenProxy(t, "127.0.0.1:0", "127.0.0.1")
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(dialed, header1)
	server = accepted.(*proxyConn)
	if err := server.HeaderError(); err != nil {
		t.Fatal(err)
	}
	return dialed.(*net.TCPConn), server
}

func TestProxyConnIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, server := proxyPair(t)
		return client, server, func() { client.Close(); server.Close() }, nil
	})
}

// TestProxyConnPassesThrough: what the socket can do, and what there is to say where it
// cannot.
func TestProxyConnPassesThrough(t *testing.T) {
	client, server := proxyPair(t)
	defer client.Close()
	defer server.Close()
	if _, err := server.SyscallConn(); err != nil {
		t.Errorf("SyscallConn: %v", err)
	}
	if _, ok := server.NetConn().(*net.TCPConn); !ok {
		t.Errorf("NetConn is a %T", server.NetConn())
	}
	if n, err := server.ReadFrom(strings.NewReader("from")); n != 4 || err != nil {
		t.Errorf("ReadFrom = %d, %v", n, err)
	}
	if err := server.CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
	if got, err := io.ReadAll(client); string(got) != "from" || err != nil {
		t.Errorf("the client read %q, %v", got, err)
	}
	client.Close()

	bare := &proxyConn{Conn: &scriptConn{in: strings.NewReader(header1 + "rest"), step: 200, peer: scriptPeer}, trusted: true}
	if err := bare.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite: %v", err)
	}
	if _, err := bare.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SyscallConn: %v", err)
	}
	if err := bare.HeaderError(); err != nil || !bare.HasUnread() {
		t.Errorf("%v; it holds bytes back: %t", err, bare.HasUnread())
	}
	var got strings.Builder
	if n, err := bare.WriteTo(&got); n != 4 || err != nil || got.String() != "rest" {
		t.Errorf("WriteTo = %d, %v; wrote %q", n, err, got.String())
	}
	if bare.HasUnread() {
		t.Error("it holds back what was read")
	}
}
