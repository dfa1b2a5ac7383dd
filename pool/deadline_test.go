package pool_test

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// tcpPair returns an account around one end of a TCP connection, and the other end.
func tcpPair(t *testing.T) (*pool.Conn, *net.TCPConn) {
	t.Helper()
	return tcpPairIn(t, new(pool.Set))
}

// tcpPairIn is tcpPair with the account in set.
func tcpPairIn(t *testing.T, set *pool.Set) (*pool.Conn, *net.TCPConn) {
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

// TestReadDeadlines: whatever order deadlines come in, a read ends when the last of them
// runs out, and not before.
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
		// before is set while nobody reads, and during by somebody else while the read
		// waits.
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
		for _, reads := range []struct {
			name   string
			eager  bool
			length int
		}{{"small", false, 1}, {"large", false, pool.MinLargeRead}, {"eager", true, 1}} {
			t.Run(tt.name+"/"+reads.name, func(t *testing.T) {
				t.Parallel()
				c, peer := tcpPair(t)
				if reads.eager {
					if _, err := c.SyscallConn(); err != nil {
						t.Fatal(err)
					}
				}
				for _, at := range tt.before {
					if err := c.SetReadDeadline(at(time.Now())); err != nil {
						t.Fatal(err)
					}
				}
				got := make(chan error, 1)
				go func() {
					_, err := c.Read(make([]byte, reads.length))
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

// TestReadDeadlineBehind: bytes that came before the deadline of the socket ran out, and
// another was wanted, are read.
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

// TestDeadlineRaces: readers are woken, over and over, whoever is faster; and once
// nothing is in the way any more they read.
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

// TestDeadlineOfClosed: the deadline of a connection that is closed is refused, as by
// net.
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

// TestDeadlinesCenturiesAhead: a deadline further ahead than a [time.Duration] reaches is
// none.
func TestDeadlinesCenturiesAhead(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func() time.Time{
		"within reach":   func() time.Time { return time.Now().Add(math.MaxInt64 - never) },
		"at its end":     func() time.Time { return time.Now().Add(math.MaxInt64) },
		"the year 2400":  func() time.Time { return time.Date(2400, time.January, 1, 0, 0, 0, 0, time.UTC) },
		"the year 9999":  func() time.Time { return time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC) },
		"the year 36812": func() time.Time { return time.Unix(1<<40, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer := tcpPair(t)
			if err := c.SetReadDeadline(at()); err != nil {
				t.Fatal(err)
			}
			got := make(chan error, 1)
			go func() {
				_, err := c.Read(make([]byte, 1))
				got <- err
			}()
			select {
			case err := <-got:
				t.Fatalf("the read ended early: %v", err)
			case <-time.After(soon):
			}
			if _, err := peer.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := <-got; err != nil {
				t.Errorf("Read: %v", err)
			}
		})
	}
}

// TestWokenIsNoTimeout: who sets a deadline that has passed wakes a read, and the
// connection was not too slow.
func TestWokenIsNoTimeout(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func() time.Time{
		"long ago":             func() time.Time { return time.Unix(1, 0) },
		"now":                  time.Now,
		"just passed":          func() time.Time { return time.Now().Add(-time.Microsecond) },
		"now by the wall":      func() time.Time { return time.Now().Round(0) },
		"just passed by it":    func() time.Time { return time.Now().Add(-time.Microsecond).Round(0) },
		"before the first add": func() time.Time { return time.Now().Add(-never) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var set pool.Set
			events, cancel := record(&set)
			defer cancel()
			c, peer := tcpPairIn(t, &set)
			got := make(chan error, 2)
			go func() {
				for range cap(got) { // The second is the one that is woken, and most likely waits by then.
					_, err := c.Read(make([]byte, 1))
					got <- err
				}
			}()
			if _, err := peer.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := <-got; err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(at())
			if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read: %v, want a timeout", err)
			}
			_ = c.Close()
			if reason := c.CloseReason(); reason != "server_closed" {
				t.Errorf("closed for %q, want %q", reason, "server_closed")
			}
			for _, e := range events() {
				if e.Kind == pool.EventTimeout {
					t.Errorf("event %+v", e)
				}
			}
		})
	}
}

// TestReadOfClosed: that a connection is closed says more than that its deadline had
// passed.
func TestReadOfClosed(t *testing.T) {
	t.Parallel()
	c, _ := tcpPair(t)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_ = c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v, want net.ErrClosed", err)
	}
}

// TestLastActivityIsNeverEarly: nobody is taken for idle longer than it is, wherever
// between two steps of the Set's clock its bytes come, and the clock may have stood still
// before; and by a fifth of a second at most for less.
func TestLastActivityIsNeverEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const step, rounds, lag = 37 * time.Millisecond, 40, 200 * time.Millisecond
		var set pool.Set
		for range 3 {
			c := add(&set, bench{})
			for range rounds {
				time.Sleep(step)
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				active := time.Now()
				if got := c.LastActivity(); !got.Equal(active) {
					t.Fatalf("at once: %v apart", got.Sub(active))
				}
				time.Sleep(lag + step)
				if late := c.LastActivity().Sub(active); late < 0 || late > lag {
					t.Fatalf("%v late, want up to %v", late, lag)
				}
			}
			_ = c.Close()
			time.Sleep(290 * time.Millisecond) // The clock stops.
		}
	})
}

// TestWokenBeforeEagerIsNoTimeout: a deadline that wakes reads wakes those past the
// wrapper too, and is nobody's timeout.
func TestWokenBeforeEagerIsNoTimeout(t *testing.T) {
	c, _ := tcpPair(t)
	_ = c.SetReadDeadline(time.Unix(1, 0)) // Nobody reads.
	_, _ = c.SyscallConn()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	_ = c.Close()
	if got := c.CloseReason(); got != "server_closed" {
		t.Errorf("closed for %q, want %q", got, "server_closed")
	}
}

// TestReadWhileBecomingEager: a read does not meet a deadline that was taken back,
// whoever asks for the raw socket at that moment.
func TestReadWhileBecomingEager(t *testing.T) {
	for range 200 {
		c, peer := tcpPair(t)
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			_, _ = c.Read(make([]byte, 1))
		}()
		time.Sleep(100 * time.Microsecond)
		_ = c.SetReadDeadline(time.Unix(1, 0)) // Which the socket gets where the read has begun.
		<-reading
		_ = c.SetReadDeadline(time.Time{})
		_, _ = peer.Write([]byte("x"))
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			_, _ = c.SyscallConn()
		}()
		if n, err := c.Read(make([]byte, 1)); n != 1 {
			t.Fatalf("read %d bytes: %v", n, err)
		}
		<-asked
		_, _ = c.Close(), peer.Close()
	}
}
