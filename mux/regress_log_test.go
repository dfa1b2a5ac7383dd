package mux_test

import (
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// TestRequestIDs: two requests that one connection has at a time have two ids, each by its number.
func TestRequestIDs(t *testing.T) {
	var log lines
	begun, finish := make(chan struct{}, 2), make(chan struct{})
	s := start(t, false, mux.WithAccessLog(slog.New(slog.NewJSONHandler(&log, nil))), mux.WithHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-finish
	})))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.get(1, "/one")
	within(t, "the first", begun)
	c.get(3, "/two")
	within(t, "the second", begun)
	close(finish)
	c.rest(1)
	c.rest(3)
	var all []map[string]any
	eventually(t, "two lines", func() bool { all = log.all(t); return len(all) == 2 })
	ids := map[any]any{}
	for _, line := range all {
		ids[line["path"]] = line["request_id"]
	}
	if ids["/one"] == ids["/two"] {
		t.Errorf("both are %v", ids["/one"])
	}
}

// TestCloseReasons: a connection that is closed for a reason that the package has a word for is told with it.
func TestCloseReasons(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.Sniff.Timeout = 100 * time.Millisecond
		c.HTTP1.MaxConnections = 1
	}))
	slow := s.dial(t)
	send(t, slow, "GE")
	eventually(t, "given up", func() bool { return s.Stats().Pools["sniffing"].Closed == 1 })
	if got := s.Stats().Closed["sniffing"]; got["sniff_timeout"] != 1 {
		t.Errorf("not recognised in time: %v", got)
	}
	s.hold(t)
	if got := s.status(t, "/echo"); got != http.StatusServiceUnavailable {
		t.Fatal(got)
	}
	eventually(t, "refused", func() bool { return s.Stats().Pools["refused"].Closed == 1 })
	if got := s.Stats().Closed["refused"]; got["refused"] != 1 {
		t.Errorf("refused: %v", got)
	}
	secure := start(t, true)
	conn, err := net.Dial("tcp", secure.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "\x16\x03\x01\x00\x05hello")
	eventually(t, "failed", func() bool { return len(secure.Stats().Closed["sniffing"]) == 1 })
	if got := secure.Stats().Closed["sniffing"]; got["tls_handshake"] != 1 {
		t.Errorf("a broken handshake: %v", got)
	}
}
