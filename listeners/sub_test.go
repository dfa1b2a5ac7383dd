package listeners

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// countedConn counts its Close calls.
type countedConn struct {
	net.Conn
	closes atomic.Int32
}

func (c *countedConn) Close() error {
	c.closes.Add(1)
	return nil
}

var subAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}

func TestSubDelivers(t *testing.T) {
	s := NewSub(subAddr, 1)
	defer s.Close()
	conn := new(countedConn)
	if err := s.Deliver(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	got, err := s.Accept()
	if err != nil || got != net.Conn(conn) {
		t.Errorf("Accept = %v, %v; want the delivered connection", got, err)
	}
	if s.Addr() != net.Addr(subAddr) {
		t.Errorf("Addr() = %v, want %v", s.Addr(), subAddr)
	}
}

func TestSubDeliverBlocksWhenFull(t *testing.T) {
	for name, backlog := range map[string]int{"none": 0, "negative": -1, "two": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSub(subAddr, backlog)
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

func TestSubDeliverEnds(t *testing.T) {
	cause := errors.New("cause")
	tests := []struct {
		name string
		end  func(*Sub, context.CancelCauseFunc)
		want error
	}{
		{"closed", func(s *Sub, _ context.CancelCauseFunc) { s.Close() }, net.ErrClosed},
		{"cancelled", func(_ *Sub, cancel context.CancelCauseFunc) { cancel(cause) }, cause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				s := NewSub(subAddr, 0)
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

func TestSubAfterClose(t *testing.T) {
	s := NewSub(subAddr, 4)
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

func TestSubDiscard(t *testing.T) {
	s := NewSub(subAddr, 1)
	var discarded []net.Conn
	s.Discard = func(conn net.Conn) { discarded = append(discarded, conn) }
	conn := new(countedConn)
	if err := s.Deliver(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if len(discarded) != 1 || discarded[0] != net.Conn(conn) {
		t.Errorf("discarded %v, want the queued connection", discarded)
	}
	if n := conn.closes.Load(); n != 0 {
		t.Errorf("a connection that Discard owns was closed %d times", n)
	}
}

// TestSubLosesNothing closes in the middle of deliveries: each connection ends up
// accepted, discarded or still with its deliverer, and in one place only.
func TestSubLosesNothing(t *testing.T) {
	const rounds, deliverers = 200, 8
	for range rounds {
		var accepted, discarded, refused atomic.Int32
		s := NewSub(subAddr, 2)
		s.Discard = func(net.Conn) { discarded.Add(1) }
		var all sync.WaitGroup
		for range deliverers {
			all.Go(func() {
				if s.Deliver(t.Context(), new(countedConn)) != nil {
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
		if got := accepted.Load() + discarded.Load() + refused.Load(); got != deliverers {
			t.Fatalf("%d connections ended somewhere, want %d", got, deliverers)
		}
	}
}
