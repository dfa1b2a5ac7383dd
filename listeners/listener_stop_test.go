package listeners

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// stopClients is below the smallest net.core.somaxconn in use (128), so that the
// kernel completes them all without an Accept.
const stopClients = 100

// acceptAll accepts until the end and returns how many there were.
func acceptAll(t *testing.T, l net.Listener, each func()) int {
	t.Helper()
	for n := 0; ; n++ {
		conn, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept ended with %v, want net.ErrClosed", err)
			}
			return n
		}
		t.Cleanup(func() { conn.Close() })
		each()
	}
}

func TestStopEmptiesKernelQueue(t *testing.T) {
	tests := []struct {
		name    string
		address string
		each    func()
	}{
		{"tcp", "127.0.0.1:0", func() {}},
		{"unix", "unix:" + filepath.Join(t.TempDir(), "x.sock"), func() {}},
		// The caller's own work between two Accepts must not use up the time.
		{"slow caller", "127.0.0.1:0", func() { time.Sleep(2 * drainWait) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inner, err := Listen(t.Context(), tt.address)
			if err != nil {
				t.Fatal(err)
			}
			l := New(inner, nil)
			defer l.Close()
			for range stopClients {
				dial(t, l.Addr())
			}
			l.Stop()
			if got := acceptAll(t, l, tt.each); got != stopClients {
				t.Errorf("accepted %d of %d", got, stopClients)
			}
			if conn, err := net.Dial(l.Addr().Network(), l.Addr().String()); err == nil {
				conn.Close()
				t.Error("connected after the end")
			}
		})
	}
}

func TestStopWakesAccept(t *testing.T) {
	l := New(listenLoopback(t), nil)
	defer l.Close()
	var acceptors sync.WaitGroup
	for range 4 {
		acceptors.Go(func() { acceptAll(t, l, func() {}) })
	}
	var stoppers sync.WaitGroup
	for range 4 {
		stoppers.Go(l.Stop)
	}
	stoppers.Wait()
	acceptors.Wait()
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after the stop: %v, want a refusal", err)
	}
}

// TestStopEndsUnderLoad has clients that never cease to come.
func TestStopEndsUnderLoad(t *testing.T) {
	l := New(listenLoopback(t), nil)
	defer l.Close()
	var client sync.WaitGroup
	client.Go(func() {
		for {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return
			}
			conn.Close()
		}
	})
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	l.Stop()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	client.Wait()
}

func TestStopWithoutDeadlineCloses(t *testing.T) {
	inner := newFakeListener(nil)
	blocked := make(chan struct{})
	inner.accept = func() (net.Conn, error) {
		close(blocked)
		<-inner.closed
		return nil, net.ErrClosed
	}
	l := New(inner, nil)
	result := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		result <- err
	}()
	<-blocked
	l.Stop()
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v, want net.ErrClosed", err)
	}
}

// deadlineListener is a fakeListener that Stop can empty; it takes its deadlines
// without keeping them.
type deadlineListener struct{ *fakeListener }

func (deadlineListener) SetDeadline(time.Time) error { return nil }

// TestStopOutOfFiles meets errors while it empties the queue.
func TestStopOutOfFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []error{
			acceptErrno(syscall.EMFILE), acceptErrno(syscall.ECONNABORTED), nil,
			os.ErrDeadlineExceeded, nil, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded,
		}
		inner := newFakeListener(nil)
		inner.accept = func() (net.Conn, error) {
			n := inner.accepts.Load() - 1
			if n >= int64(len(answers)) {
				return nil, errors.New("accepted once too often")
			}
			if answers[n] != nil {
				return nil, answers[n]
			}
			return new(net.TCPConn), nil
		}
		l := New(deadlineListener{inner}, nil)
		l.Stop()
		if got := acceptAll(t, l, func() {}); got != 2 {
			t.Errorf("accepted %d, want 2", got)
		}
		if got := int(inner.accepts.Load()); got != len(answers) {
			t.Errorf("%d Accepts, want %d", got, len(answers))
		}
	})
}

// TestStopGivesUp never gets a file descriptor back.
func TestStopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newFakeListener(func() (net.Conn, error) { return nil, acceptErrno(syscall.EMFILE) })
		l := New(deadlineListener{inner}, nil)
		start := time.Now()
		l.Stop()
		acceptAll(t, l, func() {})
		if got := time.Since(start); got != drainLimit {
			t.Errorf("gave up after %v, want %v", got, drainLimit)
		}
	})
}

func TestCloseEndsStop(t *testing.T) {
	l := New(listenLoopback(t), nil)
	dial(t, l.Addr())
	l.Stop()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := acceptAll(t, l, func() {}); got != 0 {
		t.Errorf("accepted %d after Close, want none", got)
	}
}

// A deafListener takes deadlines, and its Accept does not heed them.
type deafListener struct{ net.Listener }

func (deafListener) SetDeadline(time.Time) error { return nil }

// TestDeafListener: a listener whose Accept does not heed its deadline holds up neither Stop
// nor Detach for ever.
func TestDeafListener(t *testing.T) {
	t.Parallel()
	accepting := func() (*Listener, net.Listener, <-chan error) {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = inner.Close() })
		l := New(deafListener{inner}, nil)
		ended := make(chan error, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				_ = c.Close()
			}
		}()
		for begun := uint64(0); begun < 1; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			begun = l.begun
			l.mu.Unlock()
		}
		return l, inner, ended
	}
	l, _, ended := accepting()
	l.Stop()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Stop: %v", err)
	}
	l, inner, ended := accepting()
	if _, err := l.Detach(); err != nil {
		t.Fatal(err)
	}
	connect(t, inner.Addr().String())
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Detach: %v", err)
	}
}

// connect opens a connection, and waits until the server closes it.
func connect(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.Copy(io.Discard, c)
}
