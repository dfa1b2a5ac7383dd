package listeners

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// sharing is a configuration of n sockets for one address.
func sharing(address string, n int) Config {
	return Config{Address: address, ReusePort: n, TCPKeepalive: defaultKeepalive}
}

// checkSpread dials many times and wants each of the listeners to accept a part, and all
// of them together everything.
func checkSpread(t *testing.T, open []net.Listener) {
	t.Helper()
	const clients = 200 // With four sockets, one of them stays empty once in 10^24 runs.
	accepted := make([]int, len(open))
	var acceptors sync.WaitGroup
	stop := make(chan struct{})
	for i, inner := range open {
		if got, want := inner.Addr().String(), open[0].Addr().String(); got != want {
			t.Errorf("socket %d is on %s, want %s", i, got, want)
		}
		l := New(inner, nil)
		acceptors.Go(func() { accepted[i] = acceptAll(t, l, func() {}) })
		acceptors.Go(func() {
			<-stop
			l.Stop()
		})
	}
	for range clients {
		dial(t, open[0].Addr())
	}
	close(stop)
	acceptors.Wait()
	total := 0
	for i, n := range accepted {
		if total += n; n == 0 {
			t.Errorf("socket %d got no connection", i)
		}
	}
	if total != clients {
		t.Errorf("%d connections were accepted, want %d", total, clients)
	}
}

func TestOpenReusePort(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			checkSpread(t, openAll(t, sharing(address, 4), nil))
		})
	}
}

// TestOpenReusePortInherits: an inherited socket that was meant to be alone gets company.
func TestOpenReusePortInherits(t *testing.T) {
	first := listenLoopback(t)
	address := first.Addr().String()
	s := &Sockets{inherited: []*inheritedSocket{{Listener: first, passedSocket: passedSocket{Address: address}}}}
	open := openAll(t, sharing(address, 3), s.Listen)
	if got := open[0].(*socket).innerSocket; got != first {
		t.Errorf("the first socket is %v, not the inherited one", got)
	}
	files, _, err := s.Pass(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	if len(files) != len(open) {
		t.Errorf("%d sockets are handed over, want %d", len(files), len(open))
	}
	checkSpread(t, open)
}

// TestOpenKeeps: open sockets get other options and company, and keep the company: clients
// may wait in its queues.
func TestOpenKeeps(t *testing.T) {
	was := Config{Address: "127.0.0.1:0"}
	first := openAll(t, was, nil)[0]
	more := sharing("127.0.0.1:0", 3)
	more.TCPUserTimeout = time.Second
	open := reopen(t, more, was, nil, Unwrap(first))
	if Unwrap(open[0]) != Unwrap(first) {
		t.Error("the first socket was opened anew")
	}
	for _, l := range open[1:] {
		l.Close()
	}
	if got := acceptedOptions(t, open[0]); got.UserTimeout != 1000 {
		t.Errorf("options are %+v, want a user timeout", got)
	}
	sockets := []net.Listener{Unwrap(open[0]), Unwrap(open[1])}
	again := reopen(t, withAddress(DefaultConfig(), "127.0.0.1:0"), more, nil, sockets...)
	if !slices.Equal(again, sockets) {
		t.Errorf("open are %v, want both sockets as they are", again)
	}
	if got := acceptedOptions(t, again[0]); got.UserTimeout != 0 {
		t.Errorf("options are %+v, want no user timeout", got)
	}
}

// TestOpenFailsAndKeeps: a failure closes what was opened, and not what was kept.
func TestOpenFailsAndKeeps(t *testing.T) {
	kept := listenLoopback(t)
	failure := errors.New("no more")
	var opened []net.Listener
	_, err := sharing(kept.Addr().String(), 3).Reopen(t.Context(), func(ctx context.Context, address string) (net.Listener, error) {
		if len(opened) == 1 {
			return nil, failure
		}
		l, err := Listen(ctx, address)
		opened = append(opened, l)
		return l, err
	}, Config{}, kept)
	if !errors.Is(err, failure) {
		t.Errorf("Open: %v, want what listen said", err)
	}
	for _, l := range opened {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v, want net.ErrClosed", err)
		}
	}
	dial(t, kept.Addr())
	conn, err := kept.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestOpenReusePortInheritsAll: all sockets of the process before are used again, though
// fewer are configured, and none is opened beside them.
func TestOpenReusePortInheritsAll(t *testing.T) {
	before := openAll(t, sharing("127.0.0.1:0", 2), nil)
	s := new(Sockets)
	for i, l := range before {
		address := "127.0.0.1:0"
		if i > 0 {
			address = l.Addr().String()
		}
		s.inherited = append(s.inherited, &inheritedSocket{Listener: l, passedSocket: passedSocket{Address: address}})
	}
	after := openAll(t, sharing("127.0.0.1:0", 1), s.Listen)
	if len(after) != len(before) {
		t.Fatalf("%d of %d sockets", len(after), len(before))
	}
	for i := range after {
		if got := after[i].(*socket).innerSocket; got != before[i] {
			t.Errorf("socket %d was opened anew", i)
		}
	}
	if dropped, err := s.CloseUnused(); dropped != nil || err != nil {
		t.Errorf("CloseUnused: %v, %v", dropped, err)
	}
}

// TestOpenReusePortFindsOthers: somebody else's socket is a failure, though both would
// share the port.
func TestOpenReusePortFindsOthers(t *testing.T) {
	others, err := Listen(withOption(t.Context(), sharedPort), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	if _, err := sharing(others.Addr().String(), 2).Open(t.Context(), nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Open: %v, want EADDRINUSE", err)
	}
}

// TestOpenAllOrNone: a failure closes what was opened.
func TestOpenAllOrNone(t *testing.T) {
	failure := errors.New("no more")
	var opened []net.Listener
	_, err := sharing("127.0.0.1:0", 3).Open(t.Context(), func(ctx context.Context, address string) (net.Listener, error) {
		if len(opened) == 2 {
			return nil, failure
		}
		l, err := Listen(ctx, address)
		opened = append(opened, l)
		return l, err
	})
	if !errors.Is(err, failure) {
		t.Errorf("Open: %v, want what listen said", err)
	}
	for i, l := range opened {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("socket %d: Accept: %v, want net.ErrClosed", i, err)
		}
	}
}

// tcpOptions are the options of a connection: seconds, but for the user timeout's
// milliseconds.
type tcpOptions struct{ Keepalive, Idle, Interval, Count, UserTimeout int }

func optionsOf(t *testing.T, conn net.Conn) (o tcpOptions) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = control(raw, func(fd uintptr) (err error) {
		for _, option := range []struct {
			level, name int
			value       *int
		}{
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, &o.Keepalive},
			{syscall.IPPROTO_TCP, unix.TCP_KEEPIDLE, &o.Idle},
			{syscall.IPPROTO_TCP, unix.TCP_KEEPINTVL, &o.Interval},
			{syscall.IPPROTO_TCP, unix.TCP_KEEPCNT, &o.Count},
			{syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, &o.UserTimeout},
		} {
			if *option.value, err = syscall.GetsockoptInt(int(fd), option.level, option.name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestOpenTCPOptions looks at connections of sockets that are opened and of inherited
// ones.
func TestOpenTCPOptions(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		want   tcpOptions
	}{
		{"default", DefaultConfig(), tcpOptions{1, 15, 15, 9, 0}},
		{"thirty seconds", Config{TCPKeepalive: 30 * time.Second}, tcpOptions{1, 30, 30, 9, 0}},
		{"rounded up", Config{TCPKeepalive: 1100 * time.Millisecond}, tcpOptions{1, 2, 2, 9, 0}},
		{"most", Config{TCPKeepalive: maxKeepalive}, tcpOptions{1, 32767, 32767, 9, 0}},
		{"user timeout", Config{TCPKeepalive: defaultKeepalive, TCPUserTimeout: 1500 * time.Millisecond}, tcpOptions{1, 15, 15, 9, 1500}},
		{"most user timeout", Config{TCPKeepalive: defaultKeepalive, TCPUserTimeout: maxUserTimeout}, tcpOptions{1, 15, 15, 9, 1<<31 - 1}},
	}
	for _, tt := range tests {
		for _, inherited := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				s := new(Sockets)
				tt.config.Address = "127.0.0.1:0"
				if inherited {
					inner := listenLoopback(t)
					tt.config.Address = inner.Addr().String()
					s.inherited = []*inheritedSocket{{Listener: inner, passedSocket: passedSocket{Address: tt.config.Address}}}
				}
				if diff := cmp.Diff(tt.want, acceptedOptions(t, openAll(t, tt.config, s.Listen)[0])); diff != "" {
					t.Errorf("options (-want +got):\n%s", diff)
				}
			})
		}
	}
	t.Run("changed", func(t *testing.T) {
		// A socket that is open gets the options of another Config.
		for _, period := range []time.Duration{30 * time.Second, 0, defaultKeepalive} {
			was := Config{Address: "127.0.0.1:0", TCPKeepalive: time.Minute}
			l := openAll(t, was, nil)[0]
			again := reopen(t, Config{Address: l.Addr().String(), TCPKeepalive: period}, was, nil, Unwrap(l))
			got, seconds := acceptedOptions(t, again[0]), int(period.Seconds())
			if period == 0 && got.Keepalive != 0 || period != 0 && got != (tcpOptions{1, seconds, seconds, 9, 0}) {
				t.Errorf("options for %v are %+v", period, got)
			}
		}
	})
	t.Run("off", func(t *testing.T) {
		if got := acceptedOptions(t, openAll(t, Config{Address: "127.0.0.1:0"}, nil)[0]); got.Keepalive != 0 {
			t.Errorf("options are %+v, want no keepalive", got)
		}
	})
}

// acceptedOptions returns the options of a connection that l accepts.
func acceptedOptions(t *testing.T, l net.Listener) tcpOptions {
	t.Helper()
	dial(t, l.Addr())
	conn, err := New(l, nil).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return optionsOf(t, conn)
}

// onDeadline is a context that calls a function the first time it is asked for its
// deadline, as a dial does before it connects.
type onDeadline struct {
	context.Context
	once *sync.Once
	call func()
}

func (c onDeadline) Deadline() (time.Time, bool) {
	c.once.Do(c.call)
	return c.Context.Deadline()
}

// TestListenUnixReplaced: a stale file that another process replaces meanwhile is that
// process's, also if it does not listen yet.
func TestListenUnixReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	// bind leaves a socket that does not listen, and keeps its descriptor.
	bind := func() {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
		if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
	}
	bind()
	stale, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx := onDeadline{t.Context(), new(sync.Once), func() {
		_ = os.Rename(path, path+".old") // Its inode is not used again.
		bind()
	}}
	if err := removeStale(ctx, path); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Lstat(path); err != nil || os.SameFile(now, stale) {
		t.Errorf("the other process's file: %v, %v", now, err)
	}
}
