package main

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// webSocket holds one WebSocket open and sends messages over it. What has no answer when a
// WebSocket ends is sent again over the next one.
func (c *client) webSocket(ctx context.Context) {
	s := &socket{client: c, current: make(chan *session, 1)}
	held := make(chan struct{})
	go func() {
		defer close(held)
		s.hold(ctx)
	}()
	c.ask(ctx, s.echo)
	<-held
}

// socket is the client of one WebSocket at a time.
type socket struct {
	*client

	// current has the open session, where there is one and echo does not use it.
	current chan *session
}

// session is one WebSocket.
type session struct {
	conn    *websocket.Conn
	answers chan struct{}
	ended   chan struct{}
}

// hold opens a WebSocket and, after the back-off, the next one.
func (s *socket) hold(ctx context.Context) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx) }}
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for failed := 0; ; {
		opening, cancel := context.WithTimeout(ctx, operationTime)
		//nolint:bodyclose // The package's documentation says that the body need not be closed.
		conn, _, err := websocket.Dial(opening, "ws://fleet.test/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: t}})
		cancel()
		failed++
		if err == nil {
			failed = 0
			s.read(ctx, conn)
		}
		if !sleep(ctx, s.sc.backoff.Delay(random, failed)) {
			return
		}
	}
}

// read offers a session to echo, and reads until it ends.
func (s *socket) read(ctx context.Context, conn *websocket.Conn) {
	defer conn.CloseNow() //nolint:errcheck // It is closed already.
	now := &session{conn: conn, answers: make(chan struct{}, 1), ended: make(chan struct{})}
	defer close(now.ended)
	for offered := false; !offered; {
		select {
		case s.current <- now:
			offered = true
		case <-s.current: // The one before, which has ended.
		}
	}
	for {
		if _, _, err := conn.Read(ctx); err != nil {
			s.wants()
			if websocket.CloseStatus(err) != websocket.StatusGoingAway && ctx.Err() == nil {
				s.counted(func(p *population) {
					p.cut++
					p.faultf("a WebSocket: %v", err)
				})
			}
			return
		}
		now.answers <- struct{}{}
	}
}

// echo sends a message and waits for its answer.
func (s *socket) echo(ctx context.Context) error {
	for {
		select {
		case now := <-s.current:
			answered, err := now.echo(ctx)
			if err == nil && answered {
				s.giveBack(now)
			}
			if err != nil || answered {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// giveBack offers a session again, unless the next one is there already.
func (s *socket) giveBack(now *session) {
	select {
	case s.current <- now:
	default:
	}
}

// echo sends a message over this session. It reports whether an answer came before the
// session's end.
func (s *session) echo(ctx context.Context) (answered bool, err error) {
	// Where it fails the session ends.
	_ = s.conn.Write(ctx, websocket.MessageText, []byte("hello"))
	select {
	case <-s.answers:
		return true, nil
	case <-s.ended:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
