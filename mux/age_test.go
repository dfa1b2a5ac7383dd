package mux_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
)

// TestMaxRequests: the last request that a connection may have is answered, and
// the answer says that it was the last.
func TestMaxRequests(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		for i := range 3 {
			resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, resp.Body)
			if want := i == 2; resp.Close != want || resp.StatusCode != http.StatusOK {
				t.Errorf("request %d: %s, Connection: close %v", i+1, resp.Status, resp.Close)
			}
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("after the last request: %v", err)
		}
		c := s.client(t, 2)
		for range 7 {
			if got := <-get(c, s.scheme()+"://"+s.addr+"/echo"); got != "" {
				t.Error(got)
			}
		}
		if got := s.Stats().Pools["http2"].Accepted; got != 3 {
			t.Errorf("7 HTTP/2 requests on %d connections, want 3", got)
		}
	}, mux.Configure(func(c *mux.Config) { c.HTTP1.MaxRequests, c.HTTP2.MaxRequests = 3, 3 }))
}

// TestMaxAge: a connection that has reached its age ends with its next response.
func TestMaxAge(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxAge, c.HTTP2.MaxAge = 50*time.Millisecond, 50*time.Millisecond
	}))
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	old := func() bool {
		resp := roundTrip(t, conn, r, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Close
	}
	if old() {
		t.Error("a new connection is told to leave")
	}
	eventually(t, "told to leave", old)
	c := s.client(t, 2)
	eventually(t, "a second HTTP/2 connection", func() bool {
		if got := <-get(c, s.scheme()+"://"+s.addr+"/echo"); got != "" {
			t.Fatal(got)
		}
		return s.Stats().Pools["http2"].Accepted >= 2
	})
}
