package listeners

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeListener answers Accept with a function. It has no SetDeadline.
type fakeListener struct {
	accepts atomic.Int64
	accept  func() (net.Conn, error)
	once    sync.Once
	closed  chan struct{}
}

func newFakeListener(accept func() (net.Conn, error)) *fakeListener {
	return &fakeListener{accept: accept, closed: make(chan struct{})}
}

func (f *fakeListener) Accept() (net.Conn, error) {
	f.accepts.Add(1)
	if isClosed(f.closed) {
		return nil, net.ErrClosed
	}
	return f.accept()
}

func (f *fakeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (f *fakeListener) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// logCounter counts log lines by level.
type logCounter struct {
	mu    sync.Mutex
	lines map[slog.Level]int
}

func (c *logCounter) Enabled(context.Context, slog.Level) bool { return true }
func (c *logCounter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *logCounter) WithGroup(string) slog.Handler            { return c }

func (c *logCounter) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines == nil {
		c.lines = make(map[slog.Level]int)
	}
	c.lines[r.Level]++
	return nil
}

func acceptErrno(errno syscall.Errno) error {
	return &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", errno)}
}

func TestAcceptBacksOff(t *testing.T) {
	tests := []struct {
		name       string
		errno      syscall.Errno
		lasts      time.Duration
		maxAccepts int64
		want       map[slog.Level]int
	}{
		{"a moment", syscall.EMFILE, 3 * time.Millisecond, 3, map[slog.Level]int{slog.LevelWarn: 1, slog.LevelInfo: 1}},
		{"five seconds", syscall.ENFILE, 5 * time.Second, 14, map[slog.Level]int{slog.LevelWarn: 1, slog.LevelInfo: 1}},
		{"a minute", syscall.ENOBUFS, time.Minute, 70, map[slog.Level]int{slog.LevelWarn: 6, slog.LevelInfo: 1}},
		{"peer's fault", syscall.EPROTO, time.Second, 10, map[slog.Level]int{slog.LevelWarn: 1, slog.LevelInfo: 1}},
		{"peers that have left", syscall.ECONNABORTED, time.Second, 10, map[slog.Level]int{slog.LevelWarn: 1, slog.LevelInfo: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				inner := newFakeListener(func() (net.Conn, error) {
					if time.Since(start) < tt.lasts {
						return nil, acceptErrno(tt.errno)
					}
					return new(net.TCPConn), nil
				})
				logs := new(logCounter)
				l := New(inner, slog.New(logs))
				if _, err := l.Accept(); err != nil {
					t.Fatal(err)
				}
				if late := time.Since(start) - tt.lasts; late > maxBackoff {
					t.Errorf("accepting again %v after the shortage, want at most %v", late, maxBackoff)
				}
				if n := inner.accepts.Load(); n > tt.maxAccepts {
					t.Errorf("%d Accepts in %v, want at most %d", n, tt.lasts, tt.maxAccepts)
				}
				if diff := cmp.Diff(tt.want, logs.lines); diff != "" {
					t.Errorf("log lines (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestAcceptFlapping has a shortage that ends and comes back all the time, which
// must not fill the log either.
func TestAcceptFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := false
		inner := newFakeListener(func() (net.Conn, error) {
			if fail = !fail; fail {
				return nil, acceptErrno(syscall.EMFILE)
			}
			return new(net.TCPConn), nil
		})
		logs := new(logCounter)
		l := New(inner, slog.New(logs))
		for start := time.Now(); time.Since(start) < 15*time.Second; {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		want := map[slog.Level]int{slog.LevelWarn: 2, slog.LevelInfo: 2}
		if diff := cmp.Diff(want, logs.lines); diff != "" {
			t.Errorf("log lines (-want +got):\n%s", diff)
		}
	})
}

func TestBackoffEndsAtOnce(t *testing.T) {
	ends := map[string]func(*Listener){
		"Stop":  (*Listener).Stop,
		"Close": func(l *Listener) { l.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(newFakeListener(func() (net.Conn, error) {
					return nil, acceptErrno(syscall.EMFILE)
				}), nil)
				result := make(chan error, 1)
				go func() {
					_, err := l.Accept()
					result <- err
				}()
				time.Sleep(1500 * time.Millisecond) // Virtual: the middle of a back-off of a second.
				synctest.Wait()
				start := time.Now()
				end(l)
				if err := <-result; !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept returned %v, want net.ErrClosed", err)
				}
				if d := time.Since(start); d != 0 {
					t.Errorf("Accept returned %v after %s", d, name)
				}
			})
		})
	}
}

func TestAcceptLastingError(t *testing.T) {
	cause := errors.New("broken")
	l := New(newFakeListener(func() (net.Conn, error) { return nil, cause }), nil)
	_, err := l.Accept()
	if !errors.Is(err, cause) {
		t.Errorf("Accept returned %v, want the inner error", err)
	}
	checkError(t, err, []string{"listeners: accept on 127.0.0.1:1"})
}

func TestAcceptOwnersDeadline(t *testing.T) {
	inner := listenLoopback(t)
	l := New(inner, nil)
	defer l.Close()
	inner.SetDeadline(time.Now())
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept returned %v, want the deadline that its owner set", err)
	}
}

func TestCloseIsIdempotent(t *testing.T) {
	l := New(listenLoopback(t), nil)
	l.Stop()
	l.Stop()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	l.Stop()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v, want net.ErrClosed", err)
	}
}

func listenLoopback(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// dial connects and closes with the test.
func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// temporaryOnlyError is an error that is no net.Error, as grpc-go takes it for temporary.
type temporaryOnlyError struct{}

func (temporaryOnlyError) Error() string   { return "a moment" }
func (temporaryOnlyError) Temporary() bool { return true }

func readErrno(errno syscall.Errno) error {
	return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", errno)}
}

// TestTemporaryErrors: which errors of Accept end the listener.
func TestTemporaryErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{temporaryOnlyError{}, true},
		{fmt.Errorf("accept: %w", temporaryOnlyError{}), true},
		{&net.OpError{Op: "accept", Err: temporaryOnlyError{}}, true},
		{&net.OpError{Op: "accept", Err: os.ErrDeadlineExceeded}, false},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, true}, // of a listener that reads something first
		{errors.New("lasting"), false},

		{acceptErrno(syscall.EHOSTUNREACH), true},
		{fmt.Errorf("listeners: accept: %w", acceptErrno(syscall.EPERM)), true},
		{os.NewSyscallError("accept", syscall.ECONNABORTED), true},
		{&net.OpError{Op: "accept", Err: syscall.ENOMEM}, true}, // epoll's, for the new socket
		// Those of a listener that lives in one connection are that connection's.
		{readErrno(syscall.ECONNABORTED), false},
		{readErrno(syscall.EHOSTUNREACH), false},
		{readErrno(syscall.ENETDOWN), false},
		{readErrno(syscall.EPROTO), false},
		{readErrno(syscall.ETIMEDOUT), true}, // Temporary says so.
		{&net.OpError{Op: "accept", Err: readErrno(syscall.ENETUNREACH)}, false},
		{syscall.EHOSTUNREACH, false},
	} {
		failing := true
		l := New(newFakeListener(func() (net.Conn, error) {
			if failing {
				failing = false
				return nil, tt.err
			}
			return new(net.TCPConn), nil
		}), nil)
		_, err := l.Accept()
		if got := err == nil; got != tt.want || !got && !errors.Is(err, tt.err) {
			t.Errorf("%T %v: temporary %t, want %t; Accept returned %v", tt.err, tt.err, got, tt.want, err)
		}
		_ = l.Close()
	}
}
