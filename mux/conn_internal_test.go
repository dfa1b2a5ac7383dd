package mux

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
)

// TestReplayLetsGo: what was read to tell TLS from plaintext is not kept behind its replay.
func TestReplayLetsGo(t *testing.T) {
	c := &replayConn{rest: []byte("hello")}
	for _, want := range []string{"hel", "lo"} {
		p := make([]byte, 3)
		if n, err := c.Read(p); err != nil || string(p[:n]) != want {
			t.Errorf("read %q, %v; want %q", p[:n], err, want)
		}
	}
	if c.rest != nil {
		t.Error("the memory is kept")
	}
}

// TestConnAround: a connection is found by what its recogniser wraps, with and without TLS.
func TestConnAround(t *testing.T) {
	c, near := pipedConn(t)
	for name, inner := range map[string]net.Conn{
		"plaintext":    &c.account,
		"tls":          tls.Server(&c.account, nil),
		"optional tls": tls.Server(&replayConn{Conn: &c.account}, nil),
	} {
		if connAround(inner) != c {
			t.Errorf("%s: it is not found", name)
		}
	}
	if c := connAround(tls.Server(near, nil)); c != nil {
		t.Errorf("another's is %v", c)
	}
}

// pipedConn returns a connection that has an account, over one end of a pipe.
func pipedConn(t *testing.T) (c *conn, near net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	c = new(conn)
	new(pool.Set).Add(&c.account, near, c)
	t.Cleanup(func() {
		_ = c.account.Close()
		_ = far.Close()
	})
	return c, near
}

// TestEndpointChain: the first of a chain of endpoints knows the last, so that none between
// stays in memory.
func TestEndpointChain(t *testing.T) {
	first := &endpoint{brought: true}
	last := first.successor().successor()
	if first.next != last || last.first != first {
		t.Error("the first does not lead to the last")
	}
}

// TestConnSize: one allocation holds a connection, its account and its recogniser. The
// limit leaves room for the context and the pool entry of HTTP/1.1. TestMemory measures
// the sum.
func TestConnSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the figure is for 64 bits")
	}
	const most = 288 // A size class; the next is 320.
	if got := unsafe.Sizeof(conn{}); got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}

// TestRequestAgainstCloseIdle: a request that arrives when net/http's wait for it has been
// ended, and the connection is not closed yet, is served.
func TestRequestAgainstCloseIdle(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the system cannot be asked for bytes that are unread")
	}
	for _, header := range []string{"", "PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n"} {
		t.Run(header, func(t *testing.T) { requestAgainstCloseIdle(t, header) })
	}
}

func requestAgainstCloseIdle(t *testing.T, header string) {
	t.Helper()
	s := New(WithLogger(slog.New(slog.DiscardHandler)), WithHandler(http.NotFoundHandler()))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if header != "" {
		if l, err = listeners.NewProxyListener(l, listeners.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{"127.0.0.1"}}); err != nil {
			t.Fatal(err)
		}
	}
	serveOnListener(t, s, l)
	client, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(client)
	send := func() { _, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }
	answer := func() {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	_, _ = io.WriteString(client, header)
	send()
	answer()
	c := s.books.all((*conn).isServing)[0]
	for c.account.State() != pool.StateIdle {
		time.Sleep(time.Millisecond)
	}
	received := c.account.Received()
	d := c.root.departures
	d.idle.Lock()
	c.closingIdle = true // As closeIdle does.
	_ = c.SetReadDeadline(aLongTimeAgo)
	time.Sleep(10 * time.Millisecond) // The read has failed, and waits for the lock.
	send()
	for sent := time.Now(); !c.account.HasUnread() && c.account.Received() == received; time.Sleep(time.Millisecond) {
		if time.Since(sent) > 10*time.Second {
			t.Error("the request is not seen")
			break
		}
	}
	d.idle.Unlock()
	answer()
}

// serveOnLoopback serves s until the end of the test, and returns the address.
func serveOnLoopback(t *testing.T, s *Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOnListener(t, s, l)
	return l.Addr().String()
}

// serveOnListener serves s on l until the end of the test.
func serveOnListener(t *testing.T, s *Server, l net.Listener) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
}

// wordyLayer is a layer, as TLS is one, whose Close writes to the connection below.
type wordyLayer struct {
	net.Conn

	spoke bool
}

func (l *wordyLayer) Close() error {
	if _, err := l.Conn.Write([]byte("bye")); err == nil {
		l.spoke = true
	}
	return l.Conn.Close()
}

// TestRefusedWithoutAWord: a connection that is refused without a word is closed below TLS, whose
// last word would wait for a client that takes nothing, and with it all that are dispatched next.
func TestRefusedWithoutAWord(t *testing.T) {
	s := New(WithLogger(slog.New(slog.DiscardHandler)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	a := s.topology.admission
	r := &root{books: s.topology.books, departures: s.topology.departures, backend: new(backend), listener: listeners.New(l, nil)}
	r.unsettled.Add(1)
	c := &conn{root: r, refused: refusedLimit}
	a.books.conns.Add(&c.account, near, c)
	layer := &wordyLayer{Conn: &c.account}
	c.Init(layer)
	c.advance(stageOpen)
	c.advance(stageKnown)
	a.refuse(c, pool.Sniffing) // No protocol is known to refuse it in.
	if layer.spoke {
		t.Error("the layer has written behind the refusal")
	}
	if _, err := near.Write([]byte("x")); err == nil {
		t.Error("the connection is open")
	}
}
