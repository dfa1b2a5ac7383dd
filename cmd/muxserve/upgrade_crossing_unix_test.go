//go:build unix

package main

import (
	"bufio"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestTermCrossesUpgrade sends SIGTERM to the old process when the new one serves but has
// not told the service manager yet, which is busy. What the new one has accepted must not
// be cut after a second.
func TestTermCrossesUpgrade(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	p := startWith(t, []string{"NOTIFY_SOCKET=" + path}, textLog, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=3s", "--drain-spread=0s")
	p.endSuccessors(t)
	// The service manager reads nothing for a while.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Write([]byte("X=1")); err != nil {
			break
		}
	}
	p.signal(t, syscall.SIGUSR2)
	p.logged(t, "phase=serving", 2)
	const requests = 40
	var conns []net.Conn
	for range requests {
		conn, err := net.Dial("tcp", p.service.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET /echo?sleep=2s HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	p.signal(t, syscall.SIGTERM)
	cut := 0
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			cut++
			continue
		}
		response.Body.Close()
	}
	if cut > 0 {
		t.Errorf("%d of %d requests were cut", cut, requests)
	}
}
