package mux_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// orderDelay is much longer than the steps of these tests that must happen within it.
const orderDelay = 3 * time.Second

// TestStopBeforeDelay: without accept_during_delay, the server refuses new connections
// from the beginning of the delay. Open connections are served all through it.
func TestStopBeforeDelay(t *testing.T) {
	t.Parallel()
	handling, release := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(handling)
		<-release
		_, _ = io.WriteString(w, "served")
	})
	s := start(t, false, mux.WithHandler(handler), mux.Configure(func(c *mux.Config) {
		c.Drain.Delay, c.Drain.AcceptDuringDelay = orderDelay, false
	}))
	call, echo := s.echoCall(t)
	echo("before")
	conn := s.dial(t)
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	within(t, "the handler", handling)

	delay, over := s.begun(t, lifecycle.StepDrainDelay), s.begun(t, lifecycle.StepWaitConnections)
	done := s.drain(t.Context())
	within(t, "the delay", delay)
	for range 10 {
		if c, err := net.Dial("tcp", s.addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a new connection: %v, want it refused", err)
			if err == nil {
				_ = c.Close()
			}
		}
	}
	echo("during the delay")
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "served" || err != nil || !resp.Close {
		t.Errorf("the request under way: %q, %v, close %v", body, err, resp.Close)
	}
	if !isOpen(over) {
		t.Error("the delay was over before this had been shown")
	}
	within(t, "the end of the delay", over)
	echo("after it")
	if err := call.CloseSend(); err != nil {
		t.Fatal(err)
	}
	checkOrder(t, within(t, "the drain", done), "announce", "stop-accepting", "drain-delay", "wait-connections", "force-close", "cleanup")
}

// TestKeepAliveDuringDelay: with accept_during_delay, readiness fails during the delay.
// New connections are served, and a client with a kept-alive connection is not told to
// leave yet.
func TestKeepAliveDuringDelay(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.Drain.Delay = orderDelay }))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	ask := func(path string) (status int, last bool) {
		t.Helper()
		resp := roundTrip(t, conn, r, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Close
	}
	if status, _ := ask("/readyz"); status != http.StatusOK {
		t.Fatalf("ready: %d", status)
	}
	delay, over := s.begun(t, lifecycle.StepDrainDelay), s.begun(t, lifecycle.StepStopAccepting)
	done := s.drain(t.Context())
	within(t, "the delay", delay)
	for path, want := range map[string]int{
		"/readyz": http.StatusServiceUnavailable,
		"/livez":  http.StatusOK,
		"/echo":   http.StatusOK,
	} {
		if got, last := ask(path); got != want || last {
			t.Errorf("%s on the kept connection: %d, close %v; want %d", path, got, last, want)
		}
		if got := s.status(t, path); got != want {
			t.Errorf("%s on a new connection: %d, want %d", path, got, want)
		}
	}
	if !isOpen(over) {
		t.Error("the delay was over before this had been shown")
	}
	within(t, "the end of the delay", over)
	if n, err := io.Copy(io.Discard, r); n != 0 || err != nil {
		t.Errorf("%d bytes and %v for an end of the kept connection", n, err)
	}
	checkOrder(t, within(t, "the drain", done), "announce", "drain-delay", "stop-accepting", "wait-connections", "force-close", "cleanup")
}
