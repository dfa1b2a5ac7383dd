package websocket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/protocols"
)

// maxSweep is the longest time between two sweeps; see moments.SweepEvery.
const maxSweep = time.Second

// A timedSession is a WebSocket over a pipe, in the bubble of a test.
type timedSession struct {
	*webSocketPeer

	conn   net.Conn
	opened time.Time
	reason atomic.Pointer[string] // what the owner was told
	ended  chan time.Duration     // when the handler returned, since opened
}

// inBubble opens a WebSocket to h and calls client, which must see its end. The edits change
// the service, whose owner is a testOwner.
func inBubble(t *testing.T, c protocols.WebSocketConfig, h Handler, client func(t *testing.T, s *timedSession), edits ...func(*service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &timedSession{opened: time.Now(), ended: make(chan time.Duration, 1)}
		service := newService(c, func(ctx context.Context, c *coder.Conn, r *http.Request) error {
			err := h(ctx, c, r)
			s.ended <- time.Since(s.opened)
			return err
		})
		service.owner = &testOwner{ends: func(_ *http.Request, reason string) {
			if !s.reason.CompareAndSwap(nil, &reason) {
				t.Errorf("ended again: %s", reason)
			}
		}}
		for _, edit := range edits {
			edit(service)
		}
		srv := &http.Server{Handler: service}
		var server net.Conn
		s.conn, server = net.Pipe()
		go srv.Serve(&pipeListener{conn: server, done: make(chan struct{})})
		defer srv.Close()
		defer s.conn.Close()
		s.webSocketPeer, _ = upgrade(t, s.conn, "", nil)
		client(t, s)
	})
}

// pipeListener accepts one connection, and then waits to be closed.
type pipeListener struct {
	conn   net.Conn
	done   chan struct{}
	closed sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *pipeListener) Close() error {
	l.closed.Do(func() { close(l.done) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// why returns what the owner was told.
func (s *timedSession) why() string {
	if reason := s.reason.Load(); reason != nil {
		return *reason
	}
	return ""
}

// expectHandlerEnd waits for the handler.
func (s *timedSession) expectHandlerEnd(earliest, latest time.Duration) {
	s.t.Helper()
	if at := <-s.ended; at < earliest || at > latest {
		s.t.Errorf("the handler ended after %v, want %v to %v", at, earliest, latest)
	}
}

func readOn(ctx context.Context, c *coder.Conn, _ *http.Request) error {
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return err
		}
	}
}

// TestPeerWithoutPong is websocket.ping_interval and pong_timeout: a peer that does not
// answer a ping is closed.
func TestPeerWithoutPong(t *testing.T) {
	c := protocols.DefaultWebSocketConfig()
	t.Run("hears", func(t *testing.T) {
		inBubble(t, c, readOn, func(_ *testing.T, s *timedSession) {
			s.expect(pingFrame)
			if at := time.Since(s.opened); at < c.PingInterval || at > c.PingInterval+2*maxSweep {
				t.Errorf("pinged after %v", at)
			}
			if got := s.why(); got != "" {
				t.Errorf("ended before its time: %s", got)
			}
			s.expectEnd()
			if got := s.why(); got != EndedPingTimeout {
				t.Errorf("ended for %q", got)
			}
			s.expectHandlerEnd(c.PingInterval+c.PongTimeout, c.PingInterval+c.PongTimeout+2*maxSweep)
		})
	})
	t.Run("takes nothing", func(t *testing.T) {
		// Then the ping itself cannot be written.
		inBubble(t, c, readOn, func(t *testing.T, s *timedSession) {
			s.expectHandlerEnd(c.PingInterval+stallTime, c.PingInterval+stallTime+2*maxSweep)
			synctest.Wait()
			if got := s.why(); got != EndedStalled {
				t.Errorf("ended for %q", got)
			}
		})
	})
}

// TestQuietPeerIsKeptForLong: a peer that answers pings is kept through hundreds of them.
func TestQuietPeerIsKeptForLong(t *testing.T) {
	const intervals = 200
	c := protocols.DefaultWebSocketConfig()
	inBubble(t, c, readOn, func(t *testing.T, s *timedSession) {
		for range intervals {
			s.send(appendWebSocketFrame(nil, pongFrame, true, s.expect(pingFrame)))
		}
		if at := time.Since(s.opened); at < intervals*c.PingInterval {
			t.Errorf("%d pings in %v", intervals, at)
		}
		s.leave(coder.StatusNormalClosure)
		if got := s.why(); got != "" {
			t.Errorf("ended for %q", got)
		}
	})
}

// leave closes from the client's side.
func (s *timedSession) leave(code coder.StatusCode) {
	s.t.Helper()
	s.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(code))))
	s.expectClose(uint16(code))
	s.expectEnd()
}

// TestTalkingPeerIsNotPinged: what a peer says tells that it is there.
func TestTalkingPeerIsNotPinged(t *testing.T) {
	c := protocols.DefaultWebSocketConfig()
	inBubble(t, c, readOn, func(_ *testing.T, s *timedSession) {
		for range 20 {
			s.send(appendWebSocketFrame(nil, textFrame, true, []byte("x")))
			time.Sleep(c.PingInterval - time.Second)
		}
		s.leave(coder.StatusNormalClosure) // A ping would come before the close frame.
	})
}

// TestAgedWebSocket is websocket.max_age: 1001, and 5 s for a peer that does not answer it.
func TestAgedWebSocket(t *testing.T) {
	c := protocols.DefaultWebSocketConfig()
	c.PingInterval = 0
	c.MaxAge = time.Hour
	for name, polite := range map[string]bool{"answers": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c, readOn, func(t *testing.T, s *timedSession) {
				s.expectClose(uint16(coder.StatusGoingAway))
				if got := s.why(); got != EndedMaxAge {
					t.Errorf("ended for %q", got)
				}
				told := time.Since(s.opened)
				if told < 54*time.Minute || told > 66*time.Minute+maxSweep {
					t.Errorf("told after %v", told)
				}
				if polite {
					s.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(coder.StatusGoingAway))))
					s.expectEnd()
					s.expectHandlerEnd(told, told)
					return
				}
				s.expectEnd()
				s.expectHandlerEnd(told+5*time.Second, told+5*time.Second)
			})
		})
	}
}

// TestClosingIsNotForAge: a WebSocket that is being closed for another reason when it
// reaches its age keeps that reason.
func TestClosingIsNotForAge(t *testing.T) {
	c := protocols.DefaultWebSocketConfig()
	c.MaxAge = time.Second
	handler := func(context.Context, *coder.Conn, *http.Request) error { return nil }
	inBubble(t, c, handler, func(t *testing.T, s *timedSession) {
		s.expectClose(uint16(coder.StatusNormalClosure))
		s.expectEnd()
		if at := time.Since(s.opened); at < c.MaxAge*2 || s.why() != "" {
			t.Errorf("closed after %v for %q", at, s.why())
		}
	})
}

// TestStoppedInMessage: a peer that stops within a message which nobody reads any more
// holds up no close.
func TestStoppedInMessage(t *testing.T) {
	half := appendWebSocketFrame(nil, textFrame, true, make([]byte, 1000))[:500]
	read := func(ctx context.Context, c *coder.Conn) error {
		_, r, err := c.Reader(ctx)
		if err == nil {
			_, err = io.ReadFull(r, make([]byte, 100))
		}
		return err
	}
	for name, h := range map[string]Handler{
		"the handler returns": func(ctx context.Context, c *coder.Conn, _ *http.Request) error { return read(ctx, c) },
		"it is of age": func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
			err := read(ctx, c)
			<-ctx.Done()
			return errors.Join(err, ctx.Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := protocols.DefaultWebSocketConfig()
			c.MaxAge = time.Minute
			inBubble(t, c, h, func(t *testing.T, s *timedSession) {
				s.send(half)
				if _, err := io.Copy(io.Discard, s.conn); err != nil {
					t.Error(err)
				}
				if at := time.Since(s.opened); at > c.MaxAge*11/10+maxSweep+closeWait {
					t.Errorf("closed after %v", at)
				}
			})
		})
	}
}

// served returns a client of a handler behind a WebSockets.
func served(t *testing.T, c protocols.WebSocketConfig, h Handler) *coder.Conn {
	t.Helper()
	srv := httptest.NewServer(newService(c, h))
	t.Cleanup(srv.Close)
	conn, resp, err := coder.Dial(t.Context(), strings.Replace(srv.URL, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %s", resp.Status)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// quick has times that pass in a test.
func quick() protocols.WebSocketConfig {
	c := protocols.DefaultWebSocketConfig()
	c.PingInterval, c.PongTimeout = 50*time.Millisecond, 200*time.Millisecond
	return c
}

// TestDeadPeerIsFound: a peer that reads nothing, and so answers no ping, is closed.
func TestDeadPeerIsFound(t *testing.T) {
	ended := make(chan error, 1)
	served(t, quick(), func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		_, _, err := c.Read(ctx)
		ended <- err
		return err
	})
	if err := <-ended; err == nil {
		t.Error("a message came from a peer that sends none")
	}
}

// TestQuietPeerIsKept: a peer that says nothing and answers pings is kept, and so is one
// whose handler does not read.
func TestQuietPeerIsKept(t *testing.T) {
	for name, reads := range map[string]bool{"read": true, "not read": false} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			conn := served(t, quick(), func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
				if reads {
					ctx = c.CloseRead(ctx)
				}
				select {
				case <-release:
				case <-ctx.Done():
				}
				return c.Write(ctx, coder.MessageText, []byte("still here"))
			})
			time.AfterFunc(600*time.Millisecond, func() { close(release) }) // Three times what a dead peer would get.
			if _, msg, err := conn.Read(t.Context()); err != nil || string(msg) != "still here" {
				t.Errorf("read %q, %v", msg, err)
			}
		})
	}
}

// TestWebSocketAge: a WebSocket that has reached its age is closed with 1001.
func TestWebSocketAge(t *testing.T) {
	c := quick()
	c.MaxAge = 100 * time.Millisecond
	cause := make(chan error, 1)
	conn := served(t, c, func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		_, _, err := c.Read(ctx)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return err
	})
	if _, _, err := conn.Read(t.Context()); coder.CloseStatus(err) != coder.StatusGoingAway {
		t.Errorf("closed with %v, want 1001", err)
	}
	if err := <-cause; !errors.Is(err, ErrDraining) {
		t.Errorf("the handler's context ended with %v", err)
	}
}

// TestStalledPeer: a peer that takes nothing of a message is cut, also while it is to be
// told to leave behind it. Nothing else ends a message under way.
func TestStalledPeer(t *testing.T) {
	for name, test := range map[string]struct {
		age    time.Duration
		stream bool
		sent   uint64 // by the connection of the stream
		want   time.Duration
	}{
		"young":                                {0, false, 1 << 20, stallTime},
		"to be told to leave":                  {stallTime / 2, false, 0, stallTime},
		"on a stream":                          {0, true, 0, stallTime},
		"on a stream, and has much to consume": {0, true, 1 << 20, stallTime + 64*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c := protocols.DefaultWebSocketConfig()
			c.MaxAge = test.age
			writes := func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
				return c.Write(ctx, coder.MessageBinary, make([]byte, 1000))
			}
			inBubble(t, c, writes, func(t *testing.T, s *timedSession) {
				s.expectHandlerEnd(test.want, test.want+2*maxSweep)
				synctest.Wait()
				got := s.why()
				if want := map[bool]string{true: EndedMaxAge, false: EndedStalled}[test.age > 0]; got != want {
					t.Errorf("ended for %q, want %q", got, want)
				}
			}, func(s *service) {
				s.stream = test.stream
				owner := s.owner.(*testOwner)
				owner.sent = test.sent
				if began := time.Now(); test.stream { // What other streams move shows nothing.
					owner.queue = func() (acked uint64, unsent, known bool) { return uint64(time.Since(began)), true, true }
				}
			})
		})
	}
}

// TestSlowStream: on a stream a client moves that takes a frame of HTTP/2 in time.
func TestSlowStream(t *testing.T) {
	const size = 100 << 10
	writes := func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		return c.Write(ctx, coder.MessageBinary, make([]byte, size))
	}
	inBubble(t, protocols.DefaultWebSocketConfig(), writes, func(t *testing.T, s *timedSession) {
		for read := 0; read < size && s.why() == ""; read += streamStep {
			time.Sleep(stallTime - 2*maxSweep)
			if _, err := io.ReadFull(s.conn, make([]byte, streamStep)); err != nil && read+streamStep < size {
				t.Fatal(err)
			}
		}
		if got := s.why(); got != "" {
			t.Errorf("ended for %q", got)
		}
	}, func(s *service) { s.stream = true })
}

// TestStalledClose: where no other time is bounded, a peer that takes nothing holds up the
// close of its WebSocket for some minutes, and one that moves for as long as it does.
func TestStalledClose(t *testing.T) {
	const steps = 3 // that a slow peer moves, each just in time
	c := protocols.DefaultWebSocketConfig()
	c.PingInterval = 0
	returns := func(context.Context, *coder.Conn, *http.Request) error { return nil }
	for name, test := range map[string]struct {
		taken func(since time.Duration) uint64 // nil: the peer does not even take the close frame
		least time.Duration
	}{
		"no room for the close frame": {nil, closeStallLongest},
		"behind it":                   {func(time.Duration) uint64 { return 0 }, closeStallLongest},
		"slowly": {
			func(since time.Duration) uint64 { return min(steps, uint64(since/(closeStallLongest-time.Second))) },
			(steps+1)*closeStallLongest - steps*time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c, returns, func(t *testing.T, s *timedSession) {
				if test.taken == nil {
					time.Sleep(test.least + 2*maxSweep) // A read would take the frame.
					if n, _ := io.Copy(io.Discard, s.conn); n != 0 {
						t.Errorf("%d bytes are written behind that", n)
					}
				} else {
					s.expectClose(uint16(coder.StatusNormalClosure))
				}
				s.expectEnd()
				if at := time.Since(s.opened); at < test.least || at > test.least+closeWait+2*maxSweep {
					t.Errorf("closed after %v, want %v", at, test.least)
				}
			}, func(s *service) {
				s.Configure(c, 0)
				if began := time.Now(); test.taken != nil {
					s.owner.(*testOwner).queue = func() (acked uint64, unsent, known bool) { return test.taken(time.Since(began)), true, true }
				}
			})
		})
	}
}
