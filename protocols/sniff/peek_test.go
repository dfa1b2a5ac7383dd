package sniff

import (
	"errors"
	"io"
	"net"
	"reflect"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// TestConnIsSmall: there is one Conn for each connection, most of which are idle.
func TestConnIsSmall(t *testing.T) {
	if strconv.IntSize != 64 {
		t.Skip("the sizes are those of a 64-bit platform")
	}
	for _, tt := range []struct {
		value any
		most  uintptr
	}{
		{Conn{}, 96},
		{h2.Track{}, 256}, // An HTTP/2 connection has one more.
	} {
		typ := reflect.TypeOf(tt.value)
		t.Logf("%s: %d bytes", typ, typ.Size())
		if typ.Size() > tt.most {
			t.Errorf("%s has %d bytes, want %d at most", typ, typ.Size(), tt.most)
		}
	}
}

// TestRecognitionIsDropped: what is needed until the verdict goes with the last byte
// of it, and the methods that may come later find it gone.
func TestRecognitionIsDropped(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	c := newConn(server)
	defer c.Close()
	const head = "GET / HTTP/1.1\r\n"
	go func() { _, _ = io.WriteString(client, head) }()
	v := c.Sniff(nil)
	late := c.PeekReader()
	early := c.recognition.Load()
	if _, err := io.ReadFull(c, make([]byte, len(head))); err != nil {
		t.Fatal(err)
	}
	if c.recognition.Load() != nil {
		t.Fatal("the state is still there")
	}
	if early.peek.b != nil {
		t.Error("the buffer was not given back")
	}
	c.SetPeek(nil)
	c.EndWait()
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, ErrPeekFull) {
		t.Errorf("late peek: %v, want %v", err, ErrPeekFull)
	}
	for _, got := range []Verdict{c.Verdict(), c.Sniff(nil)} {
		if diff := cmp.Diff(v, got); diff != "" {
			t.Errorf("late verdict (-want +got):\n%s", diff)
		}
	}
}

// TestLateEndWait: an EndWait that has found the state before it was dropped does not
// end the server's reads.
func TestLateEndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSniff(t, testConfig())
		s.send(opening())
		s.expect(append(append([]byte(nil), testSettings...), ackFrame()...))
		synctest.Wait()
		early := s.conn.recognition.Load()
		s.send(append(ackFrame(), firstRequest()...))
		s.decided(grpcVerdict)
		s.replays(append(opening(), firstRequest()...))
		early.endWait()
		more := pingFrame(0, "12345678")
		time.AfterFunc(time.Second, func() { s.send(more) })
		if _, err := io.ReadFull(s.conn, make([]byte, len(more))); err != nil {
			t.Errorf("read: %v", err)
		}
	})
}
