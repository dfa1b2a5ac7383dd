package h2

import (
	"net"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSettings is the first frame of a server.
var testSettings = AppendFrame(nil, http2.FrameSettings, 0, []byte("\x00\x05\x00\x10\x00\x00"))

func pingFrame(flags http2.Flags, data string) []byte {
	return AppendFrame(nil, http2.FramePing, flags, []byte(data))
}

// A trackedConn is a connection with its Track.
type trackedConn struct {
	net.Conn
	*Track
}

func (c *trackedConn) Read(p []byte) (int, error) {
	if n := c.Ready(p); n > 0 {
		return n, nil
	}
	n, err := c.Conn.Read(p)
	return c.Follow(p[:n]), err
}

func (c *trackedConn) Write(p []byte) (n int, err error) {
	if out := c.Begin(p); len(out) > 0 {
		_, err = c.Conn.Write(out)
	}
	return c.Finish(len(p), err)
}

func (c *trackedConn) Close() error {
	c.End()
	return c.Conn.Close()
}

// newTracked returns a connection over inner.
func newTracked(inner net.Conn, o Options) (*trackedConn, *Track) {
	t := New(inner, o)
	return &trackedConn{inner, t}, t
}
