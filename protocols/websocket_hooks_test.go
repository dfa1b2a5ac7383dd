package protocols

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
)

// tally adds up what a counter is told.
type tally struct{ received, sent atomic.Int64 }

func (c *tally) add(received, sent int) {
	c.received.Add(int64(received))
	c.sent.Add(int64(sent))
}

func (c *tally) got() []int64 { return []int64{c.received.Load(), c.sent.Load()} }

// TestMessagesAreCounted: messages count each way, those included that came in one piece with the handshake; control
// frames do not.
func TestMessagesAreCounted(t *testing.T) {
	t.Parallel()
	text := func(s string) []byte { return appendWebSocketFrame(nil, textFrame, true, []byte(s)) }
	for name, open := range wires() {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, early %v", name, early), func(t *testing.T) {
				t.Parallel()
				var counted tally
				ended := make(chan error, 1)
				hooks := WebSocketHooks{Counter: func(*http.Request) func(received, sent int) { return counted.add }}
				h := newTestWebSockets(DefaultWebSocketConfig(), hooks).Handler(func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
					err := echoMessages(ctx, c, r)
					ended <- err
					return err
				})
				frames := text("one")
				frames = append(frames, appendWebSocketFrame(nil, pingFrameHead, true, []byte("ping"))...)
				frames = appendWebSocketFrame(frames, textBegins, true, []byte("t"))
				frames = appendWebSocketFrame(frames, lastFrame, true, []byte("wo"))
				frames = append(frames, text("three")...)
				var behind []byte
				if early {
					// The boundary falls into a header.
					behind, frames = frames[:len(frames)-8], frames[len(frames)-8:]
				}
				p, _ := open(t, h, "", behind)
				p.send(frames)
				for _, want := range []struct {
					first   byte
					payload string
				}{{textFrame, "one"}, {pongFrame, "ping"}, {textFrame, "two"}, {textFrame, "three"}} {
					if got := p.expect(want.first); string(got) != want.payload {
						t.Errorf("%q, want %q", got, want.payload)
					}
				}
				p.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(websocket.StatusNormalClosure))))
				p.expectClose(uint16(websocket.StatusNormalClosure))
				if err := <-ended; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
					t.Errorf("ended with %v", err)
				}
				if diff := cmp.Diff([]int64{3, 3}, counted.got()); diff != "" {
					t.Errorf("received and sent (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestHooksInOrder: the counter is asked for behind Opened, and may say that nobody counts.
func TestHooksInOrder(t *testing.T) {
	var calls []string
	note := func(s string) { calls = append(calls, s) } // All before the handler, on its goroutine.
	hooks := WebSocketHooks{
		Reserve: func(*http.Request) bool { note("reserve"); return true },
		Release: func(*http.Request) { note("release") },
		Opened:  func(*http.Request) { note("opened") },
		Counter: func(*http.Request) func(int, int) { note("counter"); return nil },
		Ended:   func(*http.Request, string) { t.Error("ended") },
	}
	h := newTestWebSockets(DefaultWebSocketConfig(), hooks).Handler(func(context.Context, *websocket.Conn, *http.Request) error {
		note("handler")
		return errors.New("enough")
	})
	p, _ := overTCP(t, h, "", appendWebSocketFrame(nil, textFrame, true, nil))
	p.expectClose(uint16(websocket.StatusInternalError))
	if diff := cmp.Diff([]string{"reserve", "opened", "counter", "handler"}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}
