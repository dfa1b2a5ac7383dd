//go:build unix

package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listenNotify returns the socket of a service manager that reads nothing, and its path.
func listenNotify(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(socketDir(t), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	return socket, path
}

// serviceManager is a service manager that records the messages to it.
type serviceManager struct {
	path   string
	socket *net.UnixConn
	ended  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	said  []string   // without those of the watchdog
	alive int        // the messages of the watchdog
}

func startServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := new(serviceManager)
	m.socket, m.path = listenNotify(t)
	m.ended.Go(func() {
		for text := make([]byte, 1<<10); ; {
			n, err := m.socket.Read(text)
			if err != nil {
				return
			}
			m.mu.Lock()
			if s := string(text[:n]); s == "WATCHDOG=1" {
				m.alive++
			} else {
				m.said = append(m.said, strings.ReplaceAll(s, "\n", "|"))
			}
			m.mu.Unlock()
		}
	})
	return m
}

// all ends the service manager and returns its messages.
func (m *serviceManager) all() []string {
	_ = m.socket.Close()
	m.ended.Wait()
	return m.said
}

// isAlive waits for the next message of the watchdog.
func (m *serviceManager) isAlive(t *testing.T) {
	t.Helper()
	count := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.alive
	}
	before := count()
	eventually(t, "a message of the watchdog", func() bool { return count() > before })
}

// TestServiceManager reads the messages to systemd during an upgrade. The old process
// must not send STOPPING, which would end the service.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	m := startServiceManager(t)
	const watchdog = 50_000 // Microseconds.
	p := startWith(t, []string{"NOTIFY_SOCKET=" + m.path, fmt.Sprint("WATCHDOG_USEC=", watchdog)},
		textLog, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=0")
	p.endSuccessors(t)
	m.isAlive(t)
	pid := p.upgrade(t, p.cmd.Process.Pid)
	p.logged(t, "phase=stopped", 1)
	m.isAlive(t)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if diff := cmp.Diff([]string{"READY=1", fmt.Sprintf("MAINPID=%d|READY=1", pid), "STOPPING=1"}, m.all()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// TestReloadTellsServiceManager: a reload begins with RELOADING and the monotonic clock,
// and ends with READY.
func TestReloadTellsServiceManager(t *testing.T) {
	t.Parallel()
	m := startServiceManager(t)
	p := startWith(t, []string{"NOTIFY_SOCKET=" + m.path}, textLog, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--drain-delay=0")
	// The process says that it is ready after it has printed its addresses.
	eventually(t, "READY", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.said) > 0
	})
	p.signal(t, syscall.SIGHUP)
	p.logged(t, "certificates unchanged", 1)
	p.signal(t, syscall.SIGTERM)
	p.wait(t)
	said := m.all()
	for i := range said {
		said[i] = strings.TrimRight(said[i], "0123456789")
	}
	want := []string{"READY=", "RELOADING=1|MONOTONIC_USEC=", "READY=", "STOPPING="} // without the numbers
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// TestTermCrossesUpgrade sends SIGTERM to the old process while the new one serves and
// has not told the busy service manager yet. The old process must not end the new one,
// which has connections.
func TestTermCrossesUpgrade(t *testing.T) {
	t.Parallel()
	_, path := listenNotify(t)
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
