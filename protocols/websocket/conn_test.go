package websocket

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testOwner is an [Owner] of functions, which may be nil.
type testOwner struct {
	count func(received, sent int)
	ends  func(r *http.Request, reason string)
	queue func() (acked uint64, unsent, known bool)
	sent  uint64
}

func (o *testOwner) SentData() uint64 { return o.sent }

func (o *testOwner) Unread() uint64 { return o.sent }

func (o *testOwner) CountMessages(received, sent int) {
	if o.count != nil {
		o.count(received, sent)
	}
}

// SendQueue knows nothing without a function, as for a connection that is no TCP socket.
func (o *testOwner) SendQueue() (acked uint64, unsent, known bool) {
	if o.queue == nil {
		return 0, false, false
	}
	return o.queue()
}

func (o *testOwner) WebSocketEnds(r *http.Request, reason string) {
	if o.ends != nil {
		o.ends(r, reason)
	}
}

// newTestConn returns a watchedConn. The owner may be nil.
func newTestConn(c net.Conn, owner Owner) *watchedConn {
	w := newWatchedConn(c, nil)
	w.owner = owner
	return w
}

// aheadConn reads ahead, so small reads of it are cheap.
type aheadConn struct{ *net.TCPConn }

func (aheadConn) IsBare() bool { return true }

func (c aheadConn) ReadAhead(p []byte) (int, error) { return c.Read(p) }

// oneReader is a connection that reads ahead, and fails t where two goroutines read it.
type oneReader struct {
	aheadConn

	t       *testing.T
	readers atomic.Int32
}

func (c *oneReader) ReadAhead(p []byte) (int, error) { return c.Read(p) }

func (c *oneReader) Read(p []byte) (int, error) {
	if c.readers.Add(1) > 1 {
		c.t.Error("two goroutines read at the same time")
	}
	defer c.readers.Add(-1)
	return c.aheadConn.Read(p)
}

// TestCloseWhileReading: Close, which reads what the client still sends, waits for the
// Read of another goroutine to end. A connection that reads ahead has one reader.
func TestCloseWhileReading(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := newTestConn(&oneReader{aheadConn: aheadConn{server.(*net.TCPConn)}, t: t}, nil)
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	for reading, _ := c.isReading(); !reading; reading, _ = c.isReading() {
		time.Sleep(time.Millisecond)
	}
	go func() {
		time.Sleep(closeLinger / 4)
		_ = client.Close()
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; err == nil {
		t.Error("the Read has not failed")
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes read behind Close", n)
	}
}
