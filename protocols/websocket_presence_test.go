package protocols

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// askers are the ways to a channel that tells of a request's end.
var askers = map[string]func(context.Context) <-chan struct{}{
	"itself": func(ctx context.Context) <-chan struct{} { return ctx.Done() },
	"by a derived one": func(ctx context.Context) <-chan struct{} {
		ctx, cancel := context.WithCancel(ctx)
		context.AfterFunc(ctx, cancel)
		return ctx.Done()
	},
	"by Err": func(ctx context.Context) <-chan struct{} {
		_ = ctx.Err()
		return ctx.Done()
	},
}

// eachAsker calls f for every way to ask and both lanes.
func eachAsker(t *testing.T, f func(t *testing.T, fields string, ask func(context.Context) <-chan struct{})) {
	t.Helper()
	for how, ask := range askers {
		for lane, fields := range bothLanes {
			t.Run(how+", "+lane, func(t *testing.T) { f(t, fields, ask) })
		}
	}
}

// ends waits for the end of what is to end, and reports whether it came.
func ends(t *testing.T, done <-chan struct{}) bool {
	t.Helper()
	limit := time.NewTimer(wireTime)
	defer limit.Stop()
	select {
	case <-done:
		return true
	case <-limit.C:
		return false
	}
}

// TestClientLeavesBeforeAnswer: the context of a handshake ends when the client leaves, before the handler has said anything.
func TestClientLeavesBeforeAnswer(t *testing.T) {
	eachAsker(t, func(t *testing.T, fields string, ask func(context.Context) <-chan struct{}) {
		asked, ended := make(chan struct{}), make(chan bool, 1)
		l := startLane(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			done := ask(r.Context())
			close(asked)
			ended <- ends(t, done)
		}))
		conn := l.dial(t)
		if _, err := io.WriteString(conn, handshakeTo("/", fields)); err != nil {
			t.Fatal(err)
		}
		<-asked
		_ = conn.Close()
		if !<-ended {
			t.Error("the context does not end")
		}
	})
}

// TestServerClosesBeforeAnswer: nor does it outlive a connection that is closed here.
func TestServerClosesBeforeAnswer(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	asked, ended := make(chan struct{}), make(chan bool, 1)
	s := NewWebSocketServer(DefaultHTTP1Config(), HTTPHooks{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			done := r.Context().Done()
			close(asked)
			ended <- ends(t, done)
		}),
		Logger: slog.New(slog.DiscardHandler),
	}, func(net.Conn) error { return net.ErrClosed })
	c := newConn(server)
	go func() { _, _ = io.WriteString(client, handshakeTo("/", "")) }()
	c.Sniff(nil)
	l := newChanListener()
	defer close(l.done)
	go func() { _ = s.Serve(l) }()
	if err := l.deliver(c); err != nil {
		t.Fatal(err)
	}
	<-asked
	_ = c.Close()
	if !<-ended {
		t.Error("the context does not end")
	}
}

// TestBytesBeforeTakeover: bytes that come behind the handshake, whoever watches for its client meanwhile, do not end the
// context, and are there for who takes the connection over.
func TestBytesBeforeTakeover(t *testing.T) {
	for _, parts := range [][2]string{{"", "behind\n"}, {"be", "hind\n"}, {"", "be"}, {"be", ""}} {
		eachAsker(t, func(t *testing.T, fields string, ask func(context.Context) <-chan struct{}) {
			asked, came := make(chan struct{}), make(chan struct{})
			read := make(chan string, 1)
			l := startLane(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				done := ask(r.Context())
				close(asked)
				<-came
				select {
				case <-done:
					t.Error("the context has ended")
				default:
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					read <- ""
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "taken over\n")
				said, err := rw.ReadString('\n')
				if err != nil {
					t.Error(err)
				}
				read <- said
			}))
			conn := l.dial(t)
			if _, err := io.WriteString(conn, handshakeTo("/", fields)+parts[0]); err != nil {
				t.Fatal(err)
			}
			<-asked
			if _, err := io.WriteString(conn, parts[1]); err != nil {
				t.Fatal(err)
			}
			close(came)
			// What is missing comes behind the takeover.
			if _, err := io.ReadFull(conn, make([]byte, len("taken over\n"))); err != nil {
				t.Fatal(err)
			}
			const all = "behind\n"
			if _, err := io.WriteString(conn, all[len(parts[0]+parts[1]):]); err != nil {
				t.Fatal(err)
			}
			if got := <-read; got != all {
				t.Errorf("read %q, want %q", got, all)
			}
		})
	}
}

// TestCut: it ends the contexts of the handlers, who may wait for nothing else.
func TestCut(t *testing.T) {
	started, cause := make(chan struct{}), make(chan error, 1)
	ws := newTestWebSockets(DefaultWebSocketConfig(), WebSocketHooks{})
	l := startLane(t, ws.Handler(func(ctx context.Context, _ *websocket.Conn, _ *http.Request) error {
		close(started)
		if !ends(t, ctx.Done()) {
			cause <- nil
			return nil
		}
		cause <- context.Cause(ctx)
		return nil
	}))
	if _, err := io.WriteString(l.dial(t), handshakeTo("/", "")); err != nil {
		t.Fatal(err)
	}
	<-started
	ws.Cut()
	if err := <-cause; !errors.Is(err, ErrDraining) {
		t.Errorf("the context ended with %v, want ErrDraining", err)
	}
}
