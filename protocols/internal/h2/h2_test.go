package h2

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns two ends of a loopback connection, closed with the test.
func tcpPair(tb testing.TB) (client, server *net.TCPConn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// testCertificate returns a self-signed certificate.
func testCertificate(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// testSettings is the first frame of a server.
var testSettings = AppendFrame(nil, http2.FrameSettings, 0, []byte("\x00\x05\x00\x10\x00\x00"))

// clientBytes returns the preface and the frames that write writes.
func clientBytes(write func(*http2.Framer)) []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	write(http2.NewFramer(&b, nil))
	return b.Bytes()
}

func pingFrame(flags http2.Flags, data string) []byte {
	return AppendFrame(nil, http2.FramePing, flags, []byte(data))
}

// A trackedConn is a connection with its Track.
type trackedConn struct {
	net.Conn
	*Track
}

func (c *trackedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(c.Admit(p))
	c.Follow(p[:n])
	return n, err
}

func (c *trackedConn) Write(p []byte) (n int, err error) {
	if out := c.Begin(p); len(out) > 0 {
		_, err = c.Conn.Write(out)
	}
	return c.Finish(len(p), err)
}

func (c *trackedConn) Close() error {
	c.OpenGate()
	return c.Conn.Close()
}

// newTracked returns a connection over inner.
func newTracked(inner net.Conn, o Options) (*trackedConn, *Track) {
	t := New(inner, o)
	return &trackedConn{inner, t}, t
}
