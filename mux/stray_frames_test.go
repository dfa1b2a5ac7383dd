package mux_test

import (
	"errors"
	"net/http"
	"os"
	"testing"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/mux"
)

// TestStrayFrames: a client that has had its requests, and then resets a stream that it never
// opened, gets the answers in flight whole. nghttpx does so where GOAWAY has kept it from
// opening the stream. Before GOAWAY that ends the connection, as with net/http alone.
func TestStrayFrames(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	routes := http.NewServeMux()
	routes.HandleFunc("/half", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("half"))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
			_, _ = w.Write([]byte(" and half"))
		case <-r.Context().Done():
		}
	})
	options := []mux.Option{
		mux.WithHandler(routes), mux.Configure(upgradesOn),
		mux.Configure(func(c *mux.Config) { c.HTTP2.MaxRequests = 3 }),
	}
	open := func(t *testing.T, s *server) *h2Client {
		conn := s.dial(t, "h2")
		return newH2Client(t, conn, conn)
	}
	upgrade := func(t *testing.T, s *server) *h2Client {
		c, _ := s.upgrade(t, "GET /half HTTP/1.1\r\n"+upgradeFields+"\r\n")
		return c
	}
	whole := func(t *testing.T, c *h2Client, first uint32) {
		for stream := first; stream <= 5; stream += 2 {
			c.get(stream, "/half")
		}
		for stream := uint32(1); stream <= 5; stream += 2 {
			_ = c.data(stream, len("half"))
		}
		for stream := uint32(7); c.goAway == nil; stream += 2 {
			c.get(stream, "/") // A response may have to say it.
			for c.goAway == nil && !c.stream(stream).ended {
				c.step()
			}
		}
		for range 3 {
			c.must(c.WriteRSTStream(101, http2.ErrCodeCancel))
			c.must(c.WriteWindowUpdate(103, 1))
		}
		c.sync()
		for range 3 {
			release <- struct{}{}
		}
		for stream := uint32(1); stream <= 5; stream += 2 {
			if got := c.rest(stream); got != " and half" {
				t.Errorf("stream %d ends with %q", stream, got)
			}
		}
	}
	bothForms(t, func(t *testing.T, s *server) {
		c := open(t, s)
		whole(t, c, 1)
		// One that goes on with them does not hold the connection open.
		var err error
		for err == nil {
			_, _ = c.WriteRSTStream(101, http2.ErrCodeCancel), c.WritePing(false, [8]byte{})
			var f http2.Frame
			if f, err = c.ReadFrame(); err != nil {
				break
			}
			if ping, ok := f.(*http2.PingFrame); ok && !ping.IsAck() {
				_ = c.WritePing(true, ping.Data)
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection stays open")
		}
	}, options...)
	t.Run("upgraded", func(t *testing.T) {
		s := start(t, false, options...)
		whole(t, upgrade(t, s), 3)
	})
	t.Run("before GOAWAY", func(t *testing.T) {
		s := start(t, false, options...)
		for _, open := range []func(*testing.T, *server) *h2Client{open, upgrade} {
			c := open(t, s)
			c.ready()
			c.must(c.WriteRSTStream(7, http2.ErrCodeCancel))
			if code := c.goneAway(); code != http2.ErrCodeProtocol {
				t.Errorf("GOAWAY %v, want %v", code, http2.ErrCodeProtocol)
			}
		}
	})
}
