package websocket

import (
	"bytes"
	"net"
	"net/http"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testOwner is an [Owner] of functions, which may be nil.
type testOwner struct {
	count func(received, sent int)
	ends  func(r *http.Request, reason string)
}

func (o *testOwner) CountMessages(received, sent int) {
	if o.count != nil {
		o.count(received, sent)
	}
}

func (o *testOwner) WebSocketEnds(r *http.Request, reason string) {
	if o.ends != nil {
		o.ends(r, reason)
	}
}

// newTestConn returns a watchedConn of a session without a server. The owner may be nil.
func newTestConn(c net.Conn, owner Owner) *watchedConn {
	w := newWatchedConn(c, nil)
	w.session = &Session{owner: owner}
	return w
}

// rawConn has a raw socket that can be read past it.
type rawConn struct{ *net.TCPConn }

func (*rawConn) CountRead(int) {}

func (*rawConn) NoteError(error) {}

func (c *rawConn) ReadConn() (syscall.RawConn, bool) {
	raw, err := c.SyscallConn()
	return raw, err == nil
}

// tcpPair returns two ends of a loopback connection, closed with the test.
func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// TestWatchedConnReads: what is longer than the reader's buffer is read ahead, what is
// shorter is not, and nothing is lost between the two.
func TestWatchedConnReads(t *testing.T) {
	client, server := tcpPair(t)
	c := newTestConn(&rawConn{server}, nil)
	p := make([]byte, smallBuffer)
	for _, size := range []int{10, smallBuffer - 1, 5 * smallBuffer, 7, 7} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := client.Write(sent); err != nil {
			t.Fatal(err)
		}
		var got []byte
		ahead := false
		for len(got) < size {
			n, err := c.Read(p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p[:n]...)
			ahead = ahead || c.in.buffered()
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came as %x", size, got)
		}
		if want := size > 2*smallBuffer; ahead != want {
			t.Errorf("%d bytes: read ahead is %t, want %t", size, ahead, want)
		}
	}
}
