package websocket

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/protocols"
)

// overflow is more than the buffers of both ends take in.
const overflow = 24 << 20

// inMessage returns a handler that writes overflow, while another goroutine reads, and
// waits for the end.
func inMessage() Handler {
	return func(ctx context.Context, c *coder.Conn, _ *http.Request) error {
		read := make(chan error, 1)
		go func() { read <- readOn(ctx, c, nil) }()
		if err := c.Write(ctx, coder.MessageBinary, make([]byte, overflow)); err != nil {
			return err
		}
		return <-read
	}
}

// expectBegun waits for the first byte of a message, and answers pings in front of it.
func (p *webSocketPeer) expectBegun() {
	p.t.Helper()
	r := bufio.NewReader(p.r)
	p.r = r
	for {
		switch first, err := r.Peek(1); {
		case err != nil:
			p.t.Fatal(err)
		case first[0] != pingFrame:
			return
		}
		p.send(appendWebSocketFrame(nil, pongFrame, true, p.expect(pingFrame)))
	}
}

// coderPatience is how long coder/websocket waits with a pong or a close frame of its own.
const coderPatience = 5 * time.Second

// TestControlBehindMessage: the answer to a ping and 1001 wait as long as the message takes
// that is being written, and go out behind it.
func TestControlBehindMessage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sniffed, detached", "HTTP/2 stream"} { // Each takes 6 s.
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := inMessage()
			s := newService(protocols.DefaultWebSocketConfig(), h)
			s.owner = new(testOwner)
			p, _ := wires()[name](t, s, "", nil)
			p.expectBegun()
			p.send(appendWebSocketFrame(nil, pingFrame, true, []byte("first")), appendWebSocketFrame(nil, pingFrame, true, []byte("second")))
			s.Leave(s.owner)
			time.Sleep(coderPatience + 500*time.Millisecond)
			if got := p.expect(binaryFrame); len(got) != overflow {
				t.Errorf("%d bytes", len(got))
			}
			if got := p.expect(pongFrame); string(got) != "second" {
				t.Errorf("pong %q", got)
			}
			p.expectClose(uint16(coder.StatusGoingAway))
			p.send(appendWebSocketFrame(nil, closeFrame, true, closeCode(uint16(coder.StatusGoingAway))))
			p.expectEnd()
		})
	}
}

// TestPingBehindMessage: the time for an answer to a ping begins when the ping has gone
// out, behind the message under way.
func TestPingBehindMessage(t *testing.T) {
	t.Parallel()
	for name, open := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := quick()
			c.PongTimeout = time.Second // Time enough for the three answers.
			p, _ := open(t, newService(c, inMessage()), "", nil)
			p.expectBegun()
			time.Sleep(2 * (c.PingInterval + c.PongTimeout))
			if got := p.expect(binaryFrame); len(got) != overflow {
				t.Errorf("%d bytes", len(got))
			}
			for range 3 {
				p.send(appendWebSocketFrame(nil, pongFrame, true, p.expect(pingFrame)))
			}
			// From here on it answers none.
			p.expectEnd()
		})
	}
}

// recorded is a connection that keeps what is written, each write when it is allowed to.
type recorded struct {
	net.Conn
	allowed chan struct{}

	mu  sync.Mutex
	all bytes.Buffer
}

func (c *recorded) Write(p []byte) (int, error) {
	<-c.allowed
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.Write(p)
}

// TestOutputOrder: control frames go out behind the frame under way, and a close frame
// behind the message. Behind it nothing goes out.
func TestOutputOrder(t *testing.T) {
	to := &recorded{allowed: make(chan struct{}, 100)}
	c := newTestConn(to, nil)
	for range cap(to.allowed) {
		to.allowed <- struct{}{}
	}
	write := func(frame []byte) {
		t.Helper()
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	frame := func(first byte, payload string) []byte {
		return appendWebSocketFrame(nil, first, false, []byte(payload))
	}

	begin := frame(textBegins, "one")
	write(begin[:4])
	c.answerPing([]byte("a"))
	c.out.want(wantPing)
	b := c.out.setBye(coder.StatusGoingAway, "bye")
	told := make(chan struct{})
	go func() {
		c.out.close(b, false)
		close(told)
	}()
	waitFor(t, "the close frame is wanted", func() bool { return c.out.wants.Load()&wantClose != 0 })
	write(begin[4:])
	select {
	case <-told:
		t.Error("closed within a message")
	default:
	}
	write(frame(lastFrame, "two"))
	<-told
	if _, err := c.Write(frame(textFrame, "three")); err == nil {
		t.Error("a message behind the close frame is taken")
	}
	write(frame(closeFrame, "\x03\xE8")) // coder/websocket's own.
	c.out.want(wantPing)

	want := bytes.Join([][]byte{
		begin, frame(pongFrame, "a"), frame(pingFrame, ""), frame(lastFrame, "two"), frame(closeFrame, "\x03\xE9bye"),
	}, nil)
	if diff := cmp.Diff(want, to.all.Bytes()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOutputConcurrent: no frame is lost and none is torn, whoever writes.
func TestOutputConcurrent(t *testing.T) {
	client, server := net.Pipe()
	c := newTestConn(server, nil)
	const pongs, messages = 200, 2000
	var writers sync.WaitGroup
	writers.Go(func() {
		for range messages {
			frame := appendWebSocketFrame(nil, textFrame, false, []byte("message"))
			for _, part := range [][]byte{frame[:3], frame[3:]} { // As bufio splits them.
				if _, err := c.Write(part); err != nil {
					t.Error(err)
				}
			}
		}
	})
	writers.Go(func() {
		for range pongs {
			c.out.want(wantPing)
		}
	})
	go func() {
		writers.Wait()
		c.out.close(c.out.setBye(coder.StatusGoingAway, ""), false)
		_ = server.Close()
	}()
	p := &webSocketPeer{t: t, r: client}
	counts := make(map[byte]int)
	for {
		first, _, err := p.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		counts[first]++
	}
	if pings := counts[pingFrame]; pings == 0 || pings > pongs || counts[textFrame] != messages || counts[closeFrame] != 1 {
		t.Errorf("frames %v", counts)
	}
}

// heldWriter holds each write back until it is released.
type heldWriter struct {
	begun, release chan struct{}
	wrote          bytes.Buffer
}

func (w *heldWriter) Write(p []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.release
	return w.wrote.Write(p)
}

// TestPingWhilePongIsWritten: a ping that comes while the pong before it is being written, by
// another goroutine, has its pong as well.
func TestPingWhilePongIsWritten(t *testing.T) {
	t.Parallel()
	w := &heldWriter{begun: make(chan struct{}, 2), release: make(chan struct{})}
	c := &watchedConn{}
	c.out.writer.to = w
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.answerPing([]byte("first"))
	}()
	<-w.begun
	c.answerPing([]byte("second"))
	close(w.release)
	<-done
	want := appendWebSocketFrame(appendWebSocketFrame(nil, pongFrame, false, []byte("first")), pongFrame, false, []byte("second"))
	if got := w.wrote.Bytes(); !bytes.Equal(got, want) {
		t.Errorf("wrote %q, want %q", got, want)
	}
}
