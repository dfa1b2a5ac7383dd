package stress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

const (
	fewFiles    = 64  // RLIMIT_NOFILE of the server.
	manyClients = 100 // More than that, and fewer than the kernel's queue holds.
	// maxBusy is the share of one processor that a server may use which only
	// waits for file descriptors. One that spins uses all of it.
	maxBusy = 0.1
	// warnInterval is how often the server may say that it cannot accept.
	warnInterval = 10 * time.Second
	// fullService is how long the server may take to serve everyone again, and
	// noise what a busy machine adds to that.
	fullService = time.Second
	noise       = 500 * time.Millisecond
)

// What the server logs when it runs out of file descriptors.
const failing = "cannot accept connections"

// TestNoFileDescriptors lets more clients connect than the server has file
// descriptors for, and takes away the limit that by default keeps it from that. It must not spin or fill its log, and must serve all of them
// as soon as it can.
func TestNoFileDescriptors(t *testing.T) {
	p := start(t, process.Options{Binary: embedding, Bare: true, MaxFiles: fewFiles})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	clients := newHolders(ctx, t, p.Addr)
	defer clients.close()
	eventually(t, "the server has no file descriptor left", func() bool { return strings.Contains(p.Log(), failing) })
	held := clients.count()

	shortage := pick(3*time.Second, 25*time.Second)
	used := processorTime(t, p)
	timer := time.NewTimer(shortage)
	<-timer.C
	used = processorTime(t, p) - used

	ended := time.Now()
	clients.release()
	if err := clients.wait(); err != nil {
		t.Fatal(err)
	}
	recovered := time.Since(ended)
	lines := strings.Count(p.Log(), failing)
	t.Logf("%d of %d clients held a connection; in %v of shortage the server used %v of processor time and logged %d lines; all were served %v after its end",
		held, manyClients, shortage, used, lines, recovered.Round(time.Millisecond))
	if busy := used.Seconds() / shortage.Seconds(); busy > maxBusy {
		t.Errorf("the server used %.2f of a processor without a file descriptor, want at most %.2f", busy, maxBusy)
	}
	if want := 1 + int(shortage/warnInterval); lines > want {
		t.Errorf("%d log lines in %v, want at most %d", lines, shortage, want)
	}
	if recovered > fullService+noise {
		t.Errorf("all were served %v after the shortage, want %v", recovered, fullService)
	}
	if err := get(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+p.Addr+"/livez"); err != nil {
		t.Error(err)
	}
}

// holders are clients that ask once and then keep their connections.
type holders struct {
	conns    []net.Conn
	answered chan error // What came of each client's request.
	released chan struct{}
	once     sync.Once
	wg       sync.WaitGroup

	mu   sync.Mutex // guards held
	held int
}

// newHolders connects all of them. Those that the server does not accept wait
// in the kernel's queue, and their requests with them.
func newHolders(ctx context.Context, t *testing.T, addr string) *holders {
	t.Helper()
	h := &holders{answered: make(chan error, manyClients), released: make(chan struct{})}
	for range manyClients {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			h.close()
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(2 * patience))
		h.conns = append(h.conns, conn)
		h.wg.Go(func() { h.answered <- h.hold(conn) })
	}
	return h
}

// hold asks, and then keeps the connection until release.
func (h *holders) hold(conn net.Conn) error {
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("stress: answered %s", resp.Status)
	}
	h.mu.Lock()
	h.held++
	h.mu.Unlock()
	<-h.released
	return nil
}

// count returns how many were served and hold their connections.
func (h *holders) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// release ends the shortage: who was served leaves, and so do those who are
// served from now on.
func (h *holders) release() { h.once.Do(func() { close(h.released) }) }

// wait waits until each of them was served, and returns the first error.
func (h *holders) wait() error {
	for range manyClients {
		if err := <-h.answered; err != nil {
			return err
		}
	}
	return nil
}

// close ends all of them.
func (h *holders) close() {
	h.release()
	for _, conn := range h.conns {
		_ = conn.Close()
	}
	h.wg.Wait()
}
