package websocket

import (
	"net"
	"net/http"
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

// aheadConn reads ahead, so small reads of it are cheap.
type aheadConn struct{ *net.TCPConn }

func (aheadConn) IsBare() bool { return true }

func (c aheadConn) ReadAhead(p []byte) (int, error) { return c.Read(p) }
