package protocols

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// A timedSession is a WebSocket over a pipe, in the bubble of a test.
type timedSession struct {
	*webSocketPeer

	conn   net.Conn
	opened time.Time
	reason atomic.Pointer[string] // what Ended was told
	ended  chan time.Duration     // when the handler returned, since opened
}

// inBubble opens a WebSocket to h and calls client, which must see its end.
func inBubble(t *testing.T, c WebSocketConfig, h WebSocketHandler, client func(t *testing.T, s *timedSession)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &timedSession{opened: time.Now(), ended: make(chan time.Duration, 1)}
		ws := newTestWebSockets(c, WebSocketHooks{Ended: func(_ *http.Request, reason string) {
			if !s.reason.CompareAndSwap(nil, &reason) {
				t.Errorf("ended again: %s", reason)
			}
		}})
		srv := NewHTTP1Server(DefaultHTTP1Config(), HTTPHooks{
			Handler: ws.Handler(func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
				err := h(ctx, c, r)
				s.ended <- time.Since(s.opened)
				return err
			}),
			Logger: slog.New(slog.DiscardHandler),
		})
		var server net.Conn
		s.conn, server = net.Pipe()
		l := &onceListener{conn: server, done: make(chan struct{})}
		go srv.Serve(l)
		defer srv.Close()
		defer s.conn.Close()
		s.webSocketPeer, _ = upgrade(t, s.conn, "", nil)
		client(t, s)
	})
}

// why returns what Ended was told.
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

func readOn(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return err
		}
	}
}

// TestPeerWithoutPong is websocket.ping_interval and pong_timeout: a peer that does not answer a ping is closed.
func TestPeerWithoutPong(t *testing.T) {
	c := DefaultWebSocketConfig()
	t.Run("hears", func(t *testing.T) {
		inBubble(t, c, readOn, func(_ *testing.T, s *timedSession) {
			s.expect(pingFrameHead)
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
		// Then the ping itself cannot be written, and coder/websocket gives it 5 s.
		inBubble(t, c, readOn, func(t *testing.T, s *timedSession) {
			s.expectHandlerEnd(c.PingInterval+5*time.Second, c.PingInterval+c.PongTimeout+2*maxSweep)
			synctest.Wait()
			if got := s.why(); got != EndedPingTimeout {
				t.Errorf("ended for %q", got)
			}
		})
	})
}

// TestQuietPeerIsKeptForLong: a peer that answers pings is kept through hundreds of them.
func TestQuietPeerIsKeptForLong(t *testing.T) {
	const intervals = 200
	c := DefaultWebSocketConfig()
	inBubble(t, c, readOn, func(t *testing.T, s *timedSession) {
		for range intervals {
			s.send(appendWebSocketFrame(nil, pongFrame, true, s.expect(pingFrameHead)))
		}
		if at := time.Since(s.opened); at < intervals*c.PingInterval {
			t.Errorf("%d pings in %v", intervals, at)
		}
		s.leave(websocket.StatusNormalClosure)
		if got := s.why(); got != "" {
			t.Errorf("ended for %q", got)
		}
	})
}

// leave closes from the client's side.
func (s *timedSession) leave(code websocket.StatusCode) {
	s.t.Helper()
	s.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(code))))
	s.expectClose(uint16(code))
	s.expectEnd()
}

// TestTalkingPeerIsNotPinged: what a peer says tells that it is there.
func TestTalkingPeerIsNotPinged(t *testing.T) {
	c := DefaultWebSocketConfig()
	inBubble(t, c, readOn, func(_ *testing.T, s *timedSession) {
		for range 20 {
			s.send(appendWebSocketFrame(nil, textFrame, true, []byte("x")))
			time.Sleep(c.PingInterval - time.Second)
		}
		s.leave(websocket.StatusNormalClosure) // A ping would come before the close frame.
	})
}

// TestAgedWebSocket is websocket.max_age: 1001, and 5 s for a peer that does not answer it.
func TestAgedWebSocket(t *testing.T) {
	c := DefaultWebSocketConfig()
	c.PingInterval = 0
	c.MaxAge = time.Hour
	for name, polite := range map[string]bool{"answers": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c, readOn, func(t *testing.T, s *timedSession) {
				s.expectClose(uint16(websocket.StatusGoingAway))
				if got := s.why(); got != EndedMaxAge {
					t.Errorf("ended for %q", got)
				}
				told := time.Since(s.opened)
				if told < 54*time.Minute || told > 66*time.Minute+maxSweep {
					t.Errorf("told after %v", told)
				}
				if polite {
					s.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(websocket.StatusGoingAway))))
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

// TestClosingIsNotForAge: a WebSocket that is being closed for another reason when it reaches its age keeps that reason.
func TestClosingIsNotForAge(t *testing.T) {
	c := DefaultWebSocketConfig()
	c.MaxAge = time.Second
	handler := func(context.Context, *websocket.Conn, *http.Request) error { return nil }
	inBubble(t, c, handler, func(t *testing.T, s *timedSession) {
		s.expectClose(uint16(websocket.StatusNormalClosure))
		s.expectEnd()
		if at := time.Since(s.opened); at < c.MaxAge*2 || s.why() != "" {
			t.Errorf("closed after %v for %q", at, s.why())
		}
	})
}

// TestStoppedInMessage: a peer that stops within a message which nobody reads any more holds up no close.
func TestStoppedInMessage(t *testing.T) {
	half := appendWebSocketFrame(nil, textFrame, true, make([]byte, 1000))[:500]
	read := func(ctx context.Context, c *websocket.Conn) error {
		_, r, err := c.Reader(ctx)
		if err == nil {
			_, err = io.ReadFull(r, make([]byte, 100))
		}
		return err
	}
	for name, h := range map[string]WebSocketHandler{
		"the handler returns": func(ctx context.Context, c *websocket.Conn, _ *http.Request) error { return read(ctx, c) },
		"it is of age": func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
			err := read(ctx, c)
			<-ctx.Done()
			return errors.Join(err, ctx.Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := DefaultWebSocketConfig()
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
