package protocols

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestRefusedUpload: a client that goes on uploading is not cut before it has had the time to see
// its answer. Many report the reset alone.
func TestRefusedUpload(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			RefuseHTTP1(c, http.StatusServiceUnavailable, TooManyConnections, func(*http.Request) {})
		}
	}()
	began := time.Now()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cut := make(chan time.Duration, 1)
	go func() {
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
		for chunk := make([]byte, 64<<10); err == nil; {
			_, err = c.Write(chunk)
		}
		cut <- time.Since(began)
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("%s, last of its connection %t", resp.Status, resp.Close)
	}
	if at := <-cut; at < refusalTime {
		t.Errorf("cut after %v, want %v at least", at, refusalTime)
	}
}
