package websocket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	coder "github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/protocols"
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
	text := func(s string) []byte { return appendWebSocketFrame(nil, textFrame, true, []byte(s)) }
	for name, open := range wires() {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, early %v", name, early), func(t *testing.T) {
				var counted tally
				ended := make(chan error, 1)
				s := newService(protocols.DefaultWebSocketConfig(), func(ctx context.Context, c *coder.Conn, r *http.Request) error {
					err := echoMessages(ctx, c, r)
					ended <- err
					return err
				})
				s.owner = &testOwner{count: counted.add}
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
				p, _ := open(t, s, "", behind)
				p.send(frames)
				for _, want := range []struct {
					first   byte
					payload string
				}{{textFrame, "one"}, {pongFrame, "ping"}, {textFrame, "two"}, {textFrame, "three"}} {
					if got := p.expect(want.first); string(got) != want.payload {
						t.Errorf("%q, want %q", got, want.payload)
					}
				}
				p.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(coder.StatusNormalClosure))))
				p.expectClose(uint16(coder.StatusNormalClosure))
				if err := <-ended; coder.CloseStatus(err) != coder.StatusNormalClosure {
					t.Errorf("ended with %v", err)
				}
				if diff := cmp.Diff([]int64{3, 3}, counted.got()); diff != "" {
					t.Errorf("received and sent (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestLeave: it tells the WebSockets of one owner, whether they are the first of its list or not, and no others.
func TestLeave(t *testing.T) {
	s := newService(protocols.DefaultWebSocketConfig(), readOn)
	owners := []Owner{new(testOwner), new(testOwner), nil}
	var peers [3][3]*webSocketPeer
	for i := range 3 {
		for j, owner := range owners {
			s.owner = owner
			peers[j][i], _ = overTCP(t, s, "", nil)
		}
	}
	bye := func(p *webSocketPeer, code coder.StatusCode) {
		p.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(code))))
		p.expectClose(uint16(code))
		p.expectEnd()
	}
	bye(peers[0][1], coder.StatusNormalClosure)
	waitFor(t, "the end of one", func() bool { return s.Leave(owners[0]) == 2 }) // And tells the others.
	for _, i := range []int{0, 2} {
		bye(peers[0][i], coder.StatusGoingAway)
	}
	waitFor(t, "the end of all", func() bool { return s.Leave(owners[0]) == 0 })
	for j := range 2 {
		for _, p := range peers[j+1] {
			bye(p, coder.StatusNormalClosure) // They have not been told.
		}
	}
}

// TestCut: it ends the contexts of the handlers, which may wait for nothing else.
func TestCut(t *testing.T) {
	started, cause := make(chan struct{}), make(chan error, 1)
	s := newService(protocols.DefaultWebSocketConfig(), func(ctx context.Context, _ *coder.Conn, _ *http.Request) error {
		close(started)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return nil
	})
	overTCP(t, s, "", nil)
	<-started
	s.Cut()
	if err := <-cause; !errors.Is(err, ErrDraining) {
		t.Errorf("the context ended with %v, want ErrDraining", err)
	}
}
