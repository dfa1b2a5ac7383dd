package sniff

import (
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// atOnce is how many tests run in parallel unless -parallel says otherwise. They wait
// most of the time, so there are more of them than processors.
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

// newConn returns a Conn over inner.
func newConn(inner net.Conn) *Conn {
	c := new(Conn)
	c.Init(inner)
	return c
}

// endTrack lets reads pass, as the server's ACK does; see
// TestServerAcknowledgesBeforeItReadsOn.
func endTrack(c *Conn) {
	if t := c.h2.Load(); t != nil {
		t.End()
	}
}

func TestConnIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, server := wiretest.TCPPair(t)
		c1, c2 = newConn(client), newConn(server)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// TestConnHidesTLS is point 9: net/http would not look for the HTTP/2 preface.
func TestConnHidesTLS(t *testing.T) {
	var c any = newConn(tls.Server(nil, nil))
	if _, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
		t.Error("Conn has a ConnectionState method")
	}
}

// TestConnPassesThrough is point 13: what the wrapped connection can do, and
// what there is to say where it cannot.
func TestConnPassesThrough(t *testing.T) {
	client, server := wiretest.TCPPair(t)
	c := newConn(server)
	if _, err := c.SyscallConn(); err != nil {
		t.Errorf("SyscallConn: %v", err)
	}
	if c.NetConn() != server {
		t.Error("NetConn is another connection")
	}
	if err := c.CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read = %d, %v; want 0, EOF", n, err)
	}

	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	c = newConn(pipe)
	if _, err := c.SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SyscallConn of a pipe: %v", err)
	}
	if err := c.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("CloseWrite of a pipe: %v", err)
	}
}

// A copyCounter tells which of its methods moved the bytes.
type copyCounter struct {
	*net.TCPConn
	readFrom, writeTo, writes int
}

func (c *copyCounter) ReadFrom(r io.Reader) (int64, error) {
	c.readFrom++
	return c.TCPConn.ReadFrom(r)
}

func (c *copyCounter) WriteTo(w io.Writer) (int64, error) {
	c.writeTo++
	return c.TCPConn.WriteTo(w)
}

func (c *copyCounter) Write(p []byte) (int, error) {
	c.writes++
	return c.TCPConn.Write(p)
}

// TestSendfileIsKept is point 13: the wrapped connection does the copying,
// unless frames are to be taken out.
func TestSendfileIsKept(t *testing.T) {
	client, server := wiretest.TCPPair(t)
	inner := &copyCounter{TCPConn: server}
	c := newConn(inner)
	want := pingFrame(0, "12345678")
	output := slices.Concat(testSettings, ackFrame(), want)

	c.h2.Store(h2.New(inner, h2.Options{Played: true}))
	if n, err := c.ReadFrom(bytes.NewReader(output)); n != int64(len(output)) || err != nil {
		t.Fatalf("ReadFrom = %d, %v; want %d", n, err, len(output))
	}
	if inner.readFrom != 0 || inner.writes == 0 {
		t.Error("ReadFrom passed over the filter")
	}
	c.h2.Store(nil) // As on a connection that is not HTTP/2.
	if n, err := c.ReadFrom(strings.NewReader("more")); n != 4 || err != nil {
		t.Fatalf("ReadFrom = %d, %v; want 4", n, err)
	}
	if inner.readFrom != 1 {
		t.Error("ReadFrom was not passed on")
	}
	c.CloseWrite()
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(slices.Concat(testSettings, want), "more"...), got); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

func TestWriteTo(t *testing.T) {
	client, server := wiretest.TCPPair(t)
	inner := &copyCounter{TCPConn: server}
	c := newConn(inner)
	const head = "GET / HTTP/1.1\r\n"
	if _, err := io.WriteString(client, head); err != nil {
		t.Fatal(err)
	}
	if v := c.Sniff(nil); v.Protocol != protocols.HTTP1 {
		t.Fatalf("verdict %+v", v)
	}
	if _, err := io.WriteString(client, "the rest"); err != nil {
		t.Fatal(err)
	}
	client.Close()
	var got bytes.Buffer
	n, err := c.WriteTo(&got)
	if err != nil || n != int64(got.Len()) || got.String() != head+"the rest" {
		t.Errorf("WriteTo = %d, %v; wrote %q", n, err, got.String())
	}
	if inner.writeTo != 1 {
		t.Error("WriteTo was not passed on")
	}
}

// TestReadErrors: they are the wrapped connection's own.
func TestReadErrors(t *testing.T) {
	_, server := wiretest.TCPPair(t)
	c := newConn(server)
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("read: %v, want a timeout", err)
	}
	c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v, want %v", err, net.ErrClosed)
	}
}

// A corkedConn holds its writes back while it is corked.
type corkedConn struct {
	net.Conn
	corked bool
	held   []byte
}

func (c *corkedConn) Write(p []byte) (int, error) {
	if c.corked {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// TestDataWithCloseNotify is point 12: with TLS 1.2, the first Read returns
// the data together with io.EOF.
func TestDataWithCloseNotify(t *testing.T) {
	client, server := wiretest.TCPPair(t)
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	sent := make(chan error, 1)
	go func() {
		cork := &corkedConn{Conn: client}
		conn := tls.Client(cork, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		err := conn.Handshake()
		cork.corked = true
		_, err1 := io.WriteString(conn, request)
		err2 := conn.CloseWrite()
		err3 := client.SetWriteDeadline(time.Time{}) // close_notify let it pass.
		_, err4 := client.Write(cork.held)
		sent <- errors.Join(err, err1, err2, err3, err4)
	}()
	c := newConn(tls.Server(server, &tls.Config{Certificates: []tls.Certificate{wiretest.Certificate(t)}}))
	v := c.Sniff(nil)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if v.Protocol != protocols.HTTP1 {
		t.Errorf("verdict %+v, want %s", v, protocols.HTTP1)
	}
	if c.recognition.Load().peek.err != io.EOF {
		t.Errorf("the first Read returned %v, want EOF: the test shows nothing", c.recognition.Load().peek.err)
	}
	got, err := io.ReadAll(c)
	if string(got) != request || err != nil {
		t.Errorf("read %q, %v; want %q", got, err, request)
	}
}

func TestPeekReader(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	c := newConn(server)
	defer c.Close()
	c.SetPeek(&Config{MaxBytes: minSniffBytes})
	const head = "GET / HTTP/1.1\r\n"
	body := strings.Repeat("b", minSniffBytes)
	go func() {
		for _, s := range []string{"GE", head[2:], body} {
			if _, err := io.WriteString(client, s); err != nil {
				return
			}
		}
	}()
	expect := func(when string, r io.Reader, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Errorf("%s: read %q, %v; want %q", when, got, err, want)
		}
	}
	expect("before", c.PeekReader(), "GET /")
	expect("again", c.PeekReader(), "GET /")
	if v := c.Sniff(&Config{MaxBytes: minSniffBytes}); v.Protocol != protocols.HTTP1 {
		t.Errorf("verdict %+v", v)
	}
	r := c.PeekReader()
	expect("after", r, head+body[:minSniffBytes-len(head)])
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrPeekFull) {
		t.Errorf("read of a full buffer: %v, want %v", err, ErrPeekFull)
	}
	expect("in the end", c, head+body)
}

// TestPeekReaderIsBounded: matchers share the time of Sniff, and end with it.
func TestPeekReaderIsBounded(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	c := newConn(server)
	defer c.Close()
	c.SetPeek(&Config{Timeout: time.Nanosecond})
	if _, err := c.PeekReader().Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v, want a timeout", err)
	}
	if v := c.Sniff(&Config{Timeout: time.Nanosecond}); v.Failure != FailureSilent {
		t.Errorf("verdict %+v, want %s", v, FailureSilent)
	}
}
