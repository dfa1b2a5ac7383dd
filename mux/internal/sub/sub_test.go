package sub

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// countedConn counts its Close calls.
type countedConn struct {
	net.Conn
	closes atomic.Int32
}

func (c *countedConn) Close() error {
	c.closes.Add(1)
	return nil
}

var testAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}

func TestDelivers(t *testing.T) {
	s := New(testAddr, 1)
	defer s.Close()
	conn := new(countedConn)
	if err := s.Deliver(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	got, err := s.Accept()
	if err != nil || got != net.Conn(conn) {
		t.Errorf("Accept = %v, %v; want the delivered connection", got, err)
	}
	if s.Addr() != net.Addr(testAddr) {
		t.Errorf("Addr() = %v, want %v", s.Addr(), testAddr)
	}
}

func TestDeliverBlocksWhenFull(t *testing.T) {
	for name, backlog := range map[string]int{"none": 0, "negative": -1, "two": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(testAddr, backlog)
				for range max(backlog, 0) {
					if err := s.Deliver(t.Context(), new(countedConn)); err != nil {
						t.Fatal(err)
					}
				}
				result := make(chan error, 1)
				go func() { result <- s.Deliver(t.Context(), new(countedConn)) }()
				synctest.Wait()
				if len(result) > 0 {
					t.Fatalf("Deliver returned %v on a full queue", <-result)
				}
				if _, err := s.Accept(); err != nil {
					t.Fatal(err)
				}
				if err := <-result; err != nil {
					t.Errorf("Deliver: %v", err)
				}
				s.Close()
			})
		})
	}
}

func TestDeliverEnds(t *testing.T) {
	cause := errors.New("cause")
	tests := []struct {
		name string
		end  func(*Listener, context.CancelCauseFunc)
		want error
	}{
		{"closed", func(s *Listener, _ context.CancelCauseFunc) { s.Close() }, net.ErrClosed},
		{"cancelled", func(_ *Listener, cancel context.CancelCauseFunc) { cancel(cause) }, cause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				s := New(testAddr, 0)
				conn := new(countedConn)
				result := make(chan error, 1)
				go func() { result <- s.Deliver(ctx, conn) }()
				synctest.Wait()
				tt.end(s, cancel)
				if err := <-result; !errors.Is(err, tt.want) {
					t.Errorf("Deliver: %v, want %v", err, tt.want)
				}
				if n := conn.closes.Load(); n != 0 {
					t.Errorf("a connection that was not taken over was closed %d times", n)
				}
			})
		})
	}
}

func TestAfterClose(t *testing.T) {
	s := New(testAddr, 4)
	queued := []*countedConn{new(countedConn), new(countedConn)}
	for _, conn := range queued {
		if err := s.Deliver(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for i, conn := range queued {
		if n := conn.closes.Load(); n != 1 {
			t.Errorf("queued connection %d was closed %d times, want once", i, n)
		}
	}
	if _, err := s.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", err)
	}
	if err := s.Deliver(t.Context(), new(countedConn)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Deliver: %v, want net.ErrClosed", err)
	}
}

// TestLosesNothing closes in the middle of deliveries: each connection ends up
// accepted, discarded or still with its deliverer, and in one place only.
func TestLosesNothing(t *testing.T) {
	const rounds, deliverers = 200, 8
	for range rounds {
		var accepted, refused atomic.Int32
		var conn countedConn // for all deliveries
		s := New(testAddr, 2)
		var all sync.WaitGroup
		for range deliverers {
			all.Go(func() {
				if s.Deliver(t.Context(), &conn) != nil {
					refused.Add(1)
				}
			})
		}
		all.Go(func() {
			for {
				if _, err := s.Accept(); err != nil {
					return
				}
				accepted.Add(1)
			}
		})
		all.Go(func() { s.Close() })
		all.Wait()
		if got := accepted.Load() + conn.closes.Load() + refused.Load(); got != deliverers {
			t.Fatalf("%d connections ended somewhere, want %d", got, deliverers)
		}
	}
}
