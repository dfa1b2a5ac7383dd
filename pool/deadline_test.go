package pool_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// tcpPair returns an account around one end of a TCP connection, and the other end.
func tcpPair(t *testing.T) (*pool.Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var set pool.Set
	c := new(pool.Conn)
	set.Add(c, raw, nil)
	t.Cleanup(func() {
		_ = c.Close()
		_ = peer.Close()
	})
	return c, peer.(*net.TCPConn)
}

const (
	soon    = 20 * time.Millisecond
	never   = time.Hour
	tooLong = 10 * time.Second
)

// TestReadDeadlines: whatever order deadlines come in, a read ends when the last of them runs out, and not before.
func TestReadDeadlines(t *testing.T) {
	past := func(time.Time) time.Time { return time.Unix(1, 0) }
	none := func(time.Time) time.Time { return time.Time{} }
	in := func(d time.Duration) func(time.Time) time.Time {
		return func(now time.Time) time.Time { return now.Add(d) }
	}
	wall := func(d time.Duration) func(time.Time) time.Time {
		return func(now time.Time) time.Time { return now.Add(d).Round(0) }
	}
	type deadlines []func(now time.Time) time.Time
	for _, tt := range []struct {
		name string
		// before is set while nobody reads, and during by somebody else while the read waits.
		before, during deadlines
		timeout        bool
	}{
		{"none", nil, nil, false},
		{"soon", deadlines{in(soon)}, nil, true},
		{"soon by the wall clock", deadlines{wall(soon)}, nil, true},
		{"late by the wall clock", deadlines{wall(never)}, nil, false},
		{"past", deadlines{past}, nil, true},
		{"just past", deadlines{in(-time.Microsecond)}, nil, true},
		{"late, then soon", deadlines{in(never), in(soon)}, nil, true},
		{"soon, then late", deadlines{in(soon), in(never)}, nil, false},
		{"soon, then none", deadlines{in(soon), none}, nil, false},
		{"past, then none", deadlines{past, none}, nil, false},
		{"past, then late", deadlines{past, in(never)}, nil, false},
		{"past, then soon", deadlines{past, in(soon)}, nil, true},
		{"soon, then past, then none, then soon", deadlines{in(soon), past, none, in(soon)}, nil, true},
		{"woken", nil, deadlines{past}, true},
		{"soon while it waits", nil, deadlines{in(soon)}, true},
		{"late, then soon while it waits", deadlines{in(never)}, deadlines{in(soon)}, true},
		{"soon, then late while it waits", deadlines{in(2 * soon)}, deadlines{in(never)}, false},
		{"soon, then none while it waits", deadlines{in(2 * soon)}, deadlines{none}, false},
		{"soon, then somewhat later while it waits", deadlines{in(soon)}, deadlines{in(2 * soon)}, true},
	} {
		for _, eager := range []bool{false, true} {
			name := tt.name
			if eager {
				name += ", eager"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c, peer := tcpPair(t)
				if eager {
					if _, ok := c.ReadConn(); !ok {
						t.Fatal("no raw socket")
					}
				}
				for _, at := range tt.before {
					if err := c.SetReadDeadline(at(time.Now())); err != nil {
						t.Fatal(err)
					}
				}
				got := make(chan error, 1)
				go func() {
					_, err := c.Read(make([]byte, 1))
					got <- err
				}()
				if len(tt.during) > 0 {
					time.Sleep(soon / 4) // It most likely waits by now; either order is right.
				}
				for _, at := range tt.during {
					if err := c.SetReadDeadline(at(time.Now())); err != nil {
						t.Fatal(err)
					}
				}
				if !tt.timeout {
					select {
					case err := <-got:
						t.Fatalf("the read ended early: %v", err)
					case <-time.After(6 * soon):
					}
					if _, err := peer.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				select {
				case err := <-got:
					if errors.Is(err, os.ErrDeadlineExceeded) != tt.timeout || err != nil && !tt.timeout {
						t.Errorf("the read ended with %v, want a timeout: %v", err, tt.timeout)
					}
					var ne net.Error
					if err != nil && (!errors.As(err, &ne) || !ne.Timeout()) {
						t.Errorf("%v is no timeout to net/http", err)
					}
				case <-time.After(tooLong):
					t.Error("the read does not end")
				}
			})
		}
	}
}

// TestReadDeadlineBehind: bytes that came before the deadline of the socket ran out, and another was wanted, are read.
func TestReadDeadlineBehind(t *testing.T) {
	t.Parallel()
	c, peer := tcpPair(t)
	// The socket gets this one, because somebody reads.
	_ = c.SetReadDeadline(time.Now().Add(soon))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read: %v, want a timeout", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(never))
	if _, err := peer.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ab" {
		t.Errorf("read %q, %v", buf, err)
	}
}

// TestDeadlineRaces: readers are woken, over and over, whoever is faster; and once nothing is in the way any more they read.
func TestDeadlineRaces(t *testing.T) {
	t.Parallel()
	c, peer := tcpPair(t)
	const rounds = 2000
	for range rounds {
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read: %v, want a timeout", err)
			}
		})
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(never))
			_ = c.SetReadDeadline(time.Unix(1, 0))
		})
		wg.Wait()
		_ = c.SetReadDeadline(time.Time{})
	}
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("Read: %d, %v", n, err)
	}
}

// TestDeadlineOfClosed: the deadline of a connection that is closed is refused, as by net.
func TestDeadlineOfClosed(t *testing.T) {
	t.Parallel()
	c, _ := tcpPair(t)
	_ = c.Close()
	for name, set := range map[string]func(time.Time) error{"SetDeadline": c.SetDeadline, "SetReadDeadline": c.SetReadDeadline, "SetWriteDeadline": c.SetWriteDeadline} {
		if err := set(time.Time{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, want net.ErrClosed", name, err)
		}
	}
}

// TestDeadlinesAllocateNothing: nor does a read that is woken before it begins.
func TestDeadlinesAllocateNothing(t *testing.T) {
	c, _ := tcpPair(t)
	buf := make([]byte, 1)
	if n := testing.AllocsPerRun(100, func() {
		_ = c.SetReadDeadline(time.Now().Add(never))
		_ = c.SetReadDeadline(time.Unix(1, 0))
		_, _ = c.Read(buf)
		_ = c.SetReadDeadline(time.Time{})
		_ = c.SetWriteDeadline(time.Time{})
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
