package main

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A heldListener gives away what it has accepted only when the test says so.
type heldListener struct {
	net.Listener
	accepted, closed, release chan struct{}
	once                      sync.Once
}

func (l *heldListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		close(l.accepted)
		<-l.release
	}
	return c, err
}

func (l *heldListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// TestAdminSiteAnswersWhatItHasAccepted ends the site between the accept of a connection
// and the moment at which net/http knows it. The process may exit behind end, so the answer
// has to be out by then.
func TestAdminSiteAnswersWhatItHasAccepted(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &heldListener{Listener: inner, accepted: make(chan struct{}), closed: make(chan struct{}), release: make(chan struct{})}
	answered := make(chan struct{})
	pages := func(http.ResponseWriter, *http.Request) { close(answered) }
	site := newAdminSite([]net.Listener{l}, pages, slog.New(slog.DiscardHandler))
	site.serve()

	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: admin\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-l.accepted
	ended := make(chan struct{})
	go func() {
		site.end(time.Minute)
		close(ended)
	}()
	<-l.closed
	select {
	case <-ended:
		t.Error("the site has ended before its last connection was answered")
	case <-time.After(100 * time.Millisecond): // Long enough for a wrong end.
	}
	close(l.release)
	<-ended
	select {
	case <-answered:
	default:
		t.Error("the last connection was not answered")
	}
}

// TestAdminConnectionsAreBounded: the process has its bound of the admin listener's
// connections. An idle one leaves for one that comes.
func TestAdminConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	p := start(t)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.admin.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	idle := dial()
	_ = idle.SetDeadline(time.Now().Add(patience)) // Less than adminIdleTimeout.
	if _, err := io.WriteString(idle, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(idle)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	for range 600 { // More than twice the bound.
		dial()
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}
