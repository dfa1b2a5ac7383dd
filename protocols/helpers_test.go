package protocols

import (
	"bytes"
	"flag"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// atOnce is how many tests run in parallel unless -parallel says otherwise. They wait most
// of the time, so there are more of them than processors.
const atOnce = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(atOnce); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// wireTime bounds every wait for the peer. No test is about this bound.
const wireTime = 20 * time.Second

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

// clientBytes returns an HTTP/2 client's preface and what write adds to it.
func clientBytes(write func(*http2.Framer)) []byte {
	buf := bytes.NewBufferString(http2.ClientPreface)
	fr := http2.NewFramer(buf, nil)
	fr.AllowIllegalWrites = true
	write(fr)
	return buf.Bytes()
}

// headerBlock encodes name, value, name, value and so on.
func headerBlock(fields ...string) []byte {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	for i := 0; i < len(fields); i += 2 {
		// A bytes.Buffer takes every write.
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return buf.Bytes()
}

func getFields(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "localhost"}, more...)
}
