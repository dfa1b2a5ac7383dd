package listeners

import (
	"errors"
	"io"
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

// The traffic of TestDetachLosesNothing.
const (
	detachClients  = 8
	detachDials    = 10_000
	detachments    = 200
	detachAccepts  = 2  // goroutines in Accept at a time
	detachShare    = 25 // connections that each owner gets at least
	detachDeadline = 30 * time.Second
)

// TestDetachLosesNothing dials all the time while the socket changes hands. Each
// client has to get a byte from whoever has accepted it.
func TestDetachLosesNothing(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		hello  string
	}{
		{"plain", Config{TCPKeepalive: defaultKeepalive}, "x"},
		{"layers", Config{ProxyProtocol: ProxyConfig{Mode: ProxyRequired, Trusted: []string{"127.0.0.1"}}}, header1 + "x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Address = "127.0.0.1:0"
			inner := openAll(t, tt.config, nil)[0]
			address := inner.Addr().String()
			var dialled atomic.Int64
			var clients sync.WaitGroup
			for range detachClients {
				clients.Go(func() {
					for dialled.Add(1) <= detachDials {
						if err := ask(address, tt.hello); err != nil {
							t.Error(err)
						}
					}
				})
			}
			e := &echo{served: make(chan struct{}, detachDials)}
			for range detachments {
				l := New(inner, nil)
				var acceptors sync.WaitGroup
				for range detachAccepts {
					acceptors.Go(func() { e.serve(t, l) })
				}
				for range detachShare {
					<-e.served
				}
				var err error
				if inner, err = l.Detach(); err != nil {
					t.Fatal(err)
				}
				acceptors.Wait()
			}
			last := New(inner, nil)
			var acceptor sync.WaitGroup
			acceptor.Go(func() { e.serve(t, last) })
			clients.Wait()
			last.Stop()
			acceptor.Wait()
			e.conns.Wait()
			if got, want := len(e.served), detachDials-detachments*detachShare; got != want {
				t.Errorf("%d connections beside each owner's share, want %d", got, want)
			}
		})
	}
}

// ask says hello and wants a byte.
func ask(address, hello string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(detachDeadline)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, hello); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return err
	}
	// The port is free for others at once, so that the test does not use them up.
	return conn.(*net.TCPConn).SetLinger(0)
}

// echo gives each client its byte back.
type echo struct {
	conns  sync.WaitGroup
	served chan struct{} // an element for each connection
}

// serve accepts until the listener ends.
func (e *echo) serve(t *testing.T, l *Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v, want net.ErrClosed", err)
			}
			return
		}
		e.served <- struct{}{}
		e.conns.Go(func() {
			defer conn.Close()
			if _, err := io.CopyN(conn, conn, 1); err != nil {
				t.Errorf("serve: %v", err)
			}
			_, _ = io.Copy(io.Discard, conn) // The client closes first.
		})
	}
}

// TestDetachLeavesTheSocket: what the former owner does afterwards is of no consequence.
func TestDetachLeavesTheSocket(t *testing.T) {
	socket := listenLoopback(t)
	l := New(socket, nil)
	if err := l.CanDetach(); err != nil {
		t.Errorf("CanDetach: %v", err)
	}
	inner, err := l.Detach()
	if err != nil {
		t.Fatal(err)
	}
	if inner != socket {
		t.Errorf("Detach returns %v, want the listener that New was given", inner)
	}
	if _, err := l.Detach(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Detach: %v, want net.ErrClosed", err)
	}
	l.Stop()
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
	dial(t, socket.Addr())
	next := New(inner, nil)
	conn, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestDetachRefused: the listener goes on, or ends, as if there had been no Detach.
func TestDetachRefused(t *testing.T) {
	ended := func(end func(*Listener)) *Listener {
		l := New(listenLoopback(t), nil)
		end(l)
		return l
	}
	conn := func() (net.Conn, error) { return new(net.TCPConn), nil }
	tests := []struct {
		name    string
		l       *Listener
		want    error
		accepts bool
	}{
		{"stopped", ended((*Listener).Stop), net.ErrClosed, false},
		{"closed", ended(func(l *Listener) { l.Close() }), net.ErrClosed, false},
		{"closed below", ended(func(l *Listener) { l.inner.Close() }), net.ErrClosed, false},
		{"no deadline", New(newFakeListener(conn), nil), errors.ErrUnsupported, true},
		{"no deadline below", New(layer{newFakeListener(conn)}, nil), errors.ErrUnsupported, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.l.CanDetach(); !errors.Is(err, tt.want) {
				t.Errorf("CanDetach: %v, want %v", err, tt.want)
			}
			inner, err := tt.l.Detach()
			if inner != nil || !errors.Is(err, tt.want) {
				t.Errorf("Detach = %v, %v; want %v", inner, err, tt.want)
			}
			if _, err := tt.l.Accept(); (err == nil) != tt.accepts {
				t.Errorf("Accept: %v", err)
			}
		})
	}
}

// lateListener has a connection for an Accept that is woken by a deadline.
type lateListener struct {
	*fakeListener

	woken chan struct{}
	once  sync.Once
}

func (l *lateListener) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		l.once.Do(func() { close(l.woken) })
	}
	return nil
}

// TestDetachKeepsTheLastConnection: an Accept that has a connection in its hands returns
// it, and Detach waits for that.
func TestDetachKeepsTheLastConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &lateListener{woken: make(chan struct{})}
		inner.fakeListener = newFakeListener(func() (net.Conn, error) {
			<-inner.woken
			time.Sleep(time.Second) // Virtual.
			return new(net.TCPConn), nil
		})
		l := New(inner, nil)
		accepted := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			accepted <- err
		}()
		synctest.Wait()
		start := time.Now()
		if _, err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("Detach took %v, want until Accept had returned", waited)
		}
		if err := <-accepted; err != nil {
			t.Errorf("Accept: %v, want the connection", err)
		}
	})
}

// TestDetachEndsBackoff: a shortage of files is no reason to wait.
func TestDetachEndsBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeListener(func() (net.Conn, error) { return nil, acceptErrno(syscall.EMFILE) })
		l := New(deadlineListener{fake}, nil)
		accepted := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			accepted <- err
		}()
		time.Sleep(1500 * time.Millisecond) // Virtual: the middle of a back-off of a second.
		synctest.Wait()
		start := time.Now()
		if _, err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("Detach took %v", waited)
		}
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v, want net.ErrClosed", err)
		}
		if isClosed(fake.closed) {
			t.Error("the inner listener was closed")
		}
	})
}

// TestDetachAgainstStop: whichever comes first decides, alone.
func TestDetachAgainstStop(t *testing.T) {
	outcomes := map[bool]int{}
	for range 200 {
		socket := listenLoopback(t)
		l := New(socket, nil)
		var all sync.WaitGroup
		all.Go(func() { acceptAll(t, l, func() {}) })
		all.Go(l.Stop)
		inner, err := l.Detach()
		all.Wait()
		open := socket.SetDeadline(time.Now()) == nil
		if (err == nil) != open || (inner != nil) != open {
			t.Fatalf("Detach = %v, %v; the socket is open: %t", inner, err, open)
		}
		if _, aerr := socket.Accept(); open && !errors.Is(aerr, os.ErrDeadlineExceeded) {
			t.Errorf("Accept of the detached socket: %v", aerr)
		}
		socket.Close()
		outcomes[open]++
	}
	t.Logf("detached and stopped: %v", outcomes)
	if diff := cmp.Diff(200, outcomes[true]+outcomes[false]); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}
