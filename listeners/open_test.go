package listeners

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestListenTCP(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()

	_, err = Listen(t.Context(), address)
	checkError(t, err, []string{"listeners: ", address})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v is not EADDRINUSE", err)
	}
}

func TestListenBadAddress(t *testing.T) {
	for _, address := range []string{"unix:", "127.0.0.1", "127.0.0.1:port-that-is-not", "unix:/no/such/dir/x.sock"} {
		t.Run(address, func(t *testing.T) {
			_, err := Listen(t.Context(), address)
			checkError(t, err, []string{"listeners: ", address})
		})
	}
	_, err := Listen(t.Context(), "")
	checkError(t, err, []string{"listeners: address: empty"})
}

func TestListenUnixRemovesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	l, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := New(l, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket file after Close: %v, want it gone", err)
	}
}

func TestListenUnixStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()

	l, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatalf("a stale file keeps the path taken: %v", err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenUnixLive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	live, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()

	_, err = Listen(t.Context(), "unix:"+path)
	checkError(t, err, []string{path, "another process answers"})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v is not EADDRINUSE", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the live socket was touched: %v", err)
	}
	conn.Close()
}

func TestListenUnixNotASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Listen(t.Context(), "unix:"+path)
	checkError(t, err, []string{path, "not a socket"})
	if got, err := os.ReadFile(path); err != nil || string(got) != "data" {
		t.Errorf("the file was touched: %q, %v", got, err)
	}
}

// openAll opens what c says and closes it with the test.
func openAll(t *testing.T, c Config, listen func(context.Context, string) (net.Listener, error)) []net.Listener {
	t.Helper()
	return reopen(t, c, Config{}, listen)
}

// reopen is openAll with sockets that are open under another configuration.
func reopen(t *testing.T, c, was Config, listen func(context.Context, string) (net.Listener, error), keep ...net.Listener) []net.Listener {
	t.Helper()
	o, err := c.Reopen(t.Context(), listen, was, keep...)
	if err != nil {
		t.Fatal(err)
	}
	o.Commit()
	for _, l := range o.Listeners {
		t.Cleanup(func() { l.Close() })
	}
	return o.Listeners
}

func TestOpenOne(t *testing.T) {
	proxied := ProxyConfig{Mode: ProxyRequired, Trusted: []string{"127.0.0.1", TrustUnix}}
	tcp, unix := "127.0.0.1:0", "unix:"+filepath.Join(t.TempDir(), "x.sock")
	tuned := 1 // layer, where connections do not inherit their keepalive
	if inheritsKeepalive {
		tuned = 0
	}
	tests := []struct {
		name   string
		config Config
		layers int
	}{
		{"default", Config{Address: tcp, TCPKeepalive: defaultKeepalive}, 0},
		{"no keepalive", Config{Address: tcp}, tuned},
		{"no keepalive, PROXY", Config{Address: tcp, ProxyProtocol: proxied}, tuned + 1},
		{"one by name", Config{Address: tcp, ReusePort: 1, TCPKeepalive: defaultKeepalive}, 0},
		{"unix", Config{Address: unix}, 0},
		{"unix, PROXY", Config{Address: unix, TCPKeepalive: defaultKeepalive, ProxyProtocol: proxied}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var socket net.Listener
			open := openAll(t, tt.config, func(ctx context.Context, address string) (l net.Listener, err error) {
				socket, err = Listen(ctx, address)
				return socket, err
			})
			if len(open) != 1 {
				t.Fatalf("%d listeners, want 1", len(open))
			}
			layers := 0
			for l := open[0]; l != socket; l = l.(interface{ below() net.Listener }).below() {
				layers++
			}
			if layers != tt.layers {
				t.Errorf("%d layers, want %d", layers, tt.layers)
			}
			if Unwrap(open[0]) != socket {
				t.Error("Unwrap returns another listener than listen did")
			}
		})
	}
}

// TestOpenBacklog fills the queue of a Unix socket, which refuses at once when it is
// full.
func TestOpenBacklog(t *testing.T) {
	const backlog = 2
	l := openAll(t, Config{Address: "unix:" + filepath.Join(t.TempDir(), "x.sock"), Backlog: backlog}, nil)[0]
	for range backlog + 1 { // The kernel lets in one more.
		dial(t, l.Addr())
	}
	if conn, err := net.Dial("unix", l.Addr().String()); !errors.Is(err, syscall.EAGAIN) {
		if err == nil {
			conn.Close()
		}
		t.Errorf("dial at a full queue: %v, want EAGAIN", err)
	}
}

// TestOpenFails: what listen returned is closed where the options cannot be set.
func TestOpenFails(t *testing.T) {
	fake := func(l net.Listener) func(context.Context, string) (net.Listener, error) {
		return func(context.Context, string) (net.Listener, error) { return l, nil }
	}
	unix, err := Listen(t.Context(), "unix:"+filepath.Join(t.TempDir(), "x.sock"))
	if err != nil {
		t.Fatal(err)
	}
	noSocket := newFakeListener(nil)
	tests := []struct {
		name   string
		config Config
		inner  net.Listener
		want   []string
	}{
		{"no socket", Config{Backlog: 5}, noSocket, []string{"listeners: listen on fd:x:", "unsupported"}},
		{"Unix socket", Config{TCPUserTimeout: time.Second}, unix, []string{"listeners: listen on fd:x:", "TCP"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Address = "fd:x"
			_, err := tt.config.Open(t.Context(), fake(tt.inner))
			checkError(t, err, tt.want)
			if _, err := tt.inner.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v, want net.ErrClosed", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	_, err := Config{}.Open(t.Context(), nil)
	checkError(t, err, []string{"listeners: address: empty"})
	_, err = Config{Address: "127.0.0.1:0", ReusePort: maxReusePort + 1}.Open(t.Context(), nil)
	checkError(t, err, []string{"listeners: reuse_port: 1025 is above 1024"})
}

func TestDecidedPort(t *testing.T) {
	first := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
	for address, want := range map[string]string{
		":0": ":4711", "localhost:0": "localhost:4711", "[::1]:00": "[::1]:4711", "127.0.0.1:": "127.0.0.1:4711",
		":80": ":80", "localhost:http": "localhost:http", "fd:web": "fd:web",
	} {
		if got := decidedPort(address, first); got != want {
			t.Errorf("decidedPort(%q) = %q, want %q", address, got, want)
		}
	}
}
