package websocket

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// balancer takes what comes at once, however much, and passes it on at a rate, as a layer-4
// balancer does before a slow client.
type balancer struct {
	rate   int // bytes a second
	chunks chan []byte
	rest   []byte
}

func newBalancer(from io.Reader, rate int) *balancer {
	b := &balancer{rate: rate, chunks: make(chan []byte, 1<<16)}
	go func() {
		defer close(b.chunks)
		for {
			p := make([]byte, 4<<10)
			n, err := from.Read(p)
			if err != nil {
				return
			}
			b.chunks <- p[:n]
		}
	}()
	return b
}

func (b *balancer) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		var open bool
		if b.rest, open = <-b.chunks; !open {
			return 0, io.EOF
		}
		time.Sleep(time.Duration(len(b.rest)) * time.Second / time.Duration(b.rate))
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

const (
	slowRate     = 20_000 // bytes a second
	burstSeconds = 14     // for which the client takes a burst; longer than websocket.pong_timeout
	burstPause   = burstSeconds*time.Second + 500*time.Millisecond
)

func writeBurst(ctx context.Context, c *coder.Conn, seconds int) error {
	for range seconds {
		if err := c.Write(ctx, coder.MessageBinary, make([]byte, slowRate)); err != nil {
			return err
		}
	}
	return nil
}

// writeBursts has the client always take some.
func writeBursts(ctx context.Context, c *coder.Conn, _ *http.Request) error {
	ctx = c.CloseRead(ctx)
	for next := time.Now(); ; next = next.Add(burstPause) {
		time.Sleep(time.Until(next))
		if err := writeBurst(ctx, c, burstSeconds); err != nil {
			return err
		}
	}
}

// answerPings reads until d is over, and answers pings.
func (s *timedSession) answerPings(d time.Duration) (pings int) {
	s.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		first, payload, err := s.read()
		if err != nil {
			s.t.Fatalf("after %v: %v, for %q", time.Since(s.opened), err, s.why())
		}
		if first == pingFrame {
			pings++
			s.send(appendWebSocketFrame(nil, pongFrame, true, payload))
		}
	}
	return pings
}

// TestPongBehindMessages: a client that takes messages out of a balancer all the time answers
// pings later than websocket.pong_timeout, and is kept. Once it is gone it is found, although
// the balancer goes on taking messages.
func TestPongBehindMessages(t *testing.T) {
	c := protocols.DefaultWebSocketConfig()
	inBubble(t, c, writeBursts, func(t *testing.T, s *timedSession) {
		s.r = newBalancer(s.r, slowRate)
		if pings := s.answerPings(10 * time.Minute); pings < 5 {
			t.Errorf("%d pings", pings)
		}
		gone := time.Since(s.opened)
		s.expectHandlerEnd(gone, gone+c.PingInterval+2*c.PongTimeout+moments.LongestQueue+4*maxSweep)
		if got := s.why(); got != EndedPingTimeout {
			t.Errorf("ended for %q", got)
		}
	})
}

// TestPongBehindAnswer: a long answer to what the client has just said is behind no ping that
// it has answered.
func TestPongBehindAnswer(t *testing.T) {
	const seconds = 70
	c := protocols.DefaultWebSocketConfig()
	answers := func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		for {
			if _, _, err := c.Read(ctx); err != nil {
				return err
			}
			if err := writeBurst(ctx, c, seconds); err != nil {
				return err
			}
		}
	}
	inBubble(t, c, answers, func(t *testing.T, s *timedSession) {
		s.r = newBalancer(s.r, slowRate)
		time.Sleep(maxSweep / 2)
		s.send(appendWebSocketFrame(nil, textFrame, true, []byte("all of it")))
		for range seconds {
			s.expect(binaryFrame)
		}
		s.send(appendWebSocketFrame(nil, pongFrame, true, s.expect(pingFrame)))
		s.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(coder.StatusNormalClosure))))
		first := byte(pingFrame)
		for err := error(nil); first == pingFrame && err == nil; { // It may have been asked again.
			first, _, err = s.read()
		}
		if first != closeFrame {
			t.Errorf("frame %x behind the messages, for %q", first, s.why())
		}
	})
}

// TestPongTimeOfFewMessages: a client that is gone is found as soon as without messages where
// there were few.
func TestPongTimeOfFewMessages(t *testing.T) {
	c := protocols.DefaultWebSocketConfig()
	says := func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		ctx = c.CloseRead(ctx)
		time.Sleep(maxSweep / 2) // So that no sweep meets a write.
		for {
			if err := c.Write(ctx, coder.MessageText, []byte("tick")); err != nil {
				return err
			}
			time.Sleep(maxSweep)
		}
	}
	inBubble(t, c, says, func(_ *testing.T, s *timedSession) {
		s.r = newBalancer(s.r, slowRate)
		s.expectHandlerEnd(c.PingInterval+c.PongTimeout, c.PingInterval+c.PongTimeout+3*maxSweep)
	})
}

// TestUnread: how long an answer to a close frame may take shrinks with the time in which the
// client could read, and to what stands behind a ping when that is answered. A client that
// talks is pinged for that as well.
func TestUnread(t *testing.T) {
	const burst = 70 * slowRate
	c := protocols.DefaultWebSocketConfig()
	for name, test := range map[string]struct{ talks, answers bool }{
		"answers pings":           {false, true},
		"talks and answers pings": {true, true},
		"talks":                   {true, false},
	} {
		t.Run(name, func(t *testing.T) {
			var sessions *Server
			bursts := func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
				if err := writeBurst(ctx, c, burst/slowRate); err != nil {
					return err
				}
				_, _, err := c.Read(ctx)
				for err == nil {
					_, _, err = c.Read(ctx)
				}
				return err
			}
			inBubble(t, c, bursts, func(t *testing.T, s *timedSession) {
				unread := func() time.Duration {
					sessions.mu.Lock()
					defer sessions.mu.Unlock()
					for open := range sessions.all() {
						return open.unread(time.Now())
					}
					return -1
				}
				for range burst / slowRate {
					s.expect(binaryFrame)
				}
				whole := moments.ReadTime(burst)
				if got := unread(); got < whole-time.Second || got > whole+2*time.Second {
					t.Errorf("behind the messages: %v, want %v", got, whole)
				}
				say := func() {
					if test.talks {
						s.send(appendWebSocketFrame(nil, textFrame, true, []byte("x")))
					}
				}
				talked := make(chan struct{})
				go func() {
					defer close(talked)
					for i := 0; test.talks && i < 20; i++ {
						say()
						time.Sleep(time.Second)
					}
				}()
				ping := s.expect(pingFrame)
				if at := time.Since(s.opened); at > 3*maxSweep {
					t.Errorf("pinged after %v", at)
				}
				<-talked
				if test.answers {
					s.send(appendWebSocketFrame(nil, pongFrame, true, ping))
				} else {
					for began := time.Now(); time.Since(began) < whole; time.Sleep(maxSweep) {
						say()
					}
				}
				time.Sleep(2 * maxSweep)
				if got := unread(); got > 0 {
					t.Errorf("when they are read: %v", got)
				}
				s.leave(coder.StatusNormalClosure)
			}, func(s *service) { sessions = s.Server })
		})
	}
}
