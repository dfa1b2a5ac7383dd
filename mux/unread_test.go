package mux_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// posting are the fields of a POST to path. A negative length is not declared.
func posting(path string, length int, more ...string) []string {
	fields := []string{":method", "POST", ":scheme", "http", ":authority", "x", ":path", path}
	if length >= 0 {
		fields = append(fields, "content-length", strconv.Itoa(length))
	}
	return append(fields, more...)
}

// leavers returns a handler that answers without reading the body to its end.
func leavers() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	m.HandleFunc("/some", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 10))
	})
	m.HandleFunc("/close", func(w http.ResponseWriter, r *http.Request) {
		_ = r.Body.Close()
		if n, err := r.Body.Read(make([]byte, 1)); n > 0 || err == nil {
			http.Error(w, "read from a closed body", http.StatusInternalServerError)
		}
	})
	m.HandleFunc("/close/only", func(_ http.ResponseWriter, r *http.Request) { _ = r.Body.Close() })
	m.HandleFunc("/flush", func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() })
	m.HandleFunc("/error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	m.HandleFunc("/error/flush", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		w.(http.Flusher).Flush()
	})
	m.HandleFunc("/error/long", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, strings.Repeat("no", 3000), http.StatusForbidden)
	})
	return m
}

// TestLeftBody: a client that sends the whole body before it looks at the response gets
// the response, where net/http would reset the stream.
func TestLeftBody(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	s := start(t, false, mux.WithHandler(leavers()))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	for i, path := range []string{"/", "/some", "/close", "/flush", "/error"} {
		stream := uint32(2*i + 1)
		c.request(stream, false, posting(path, size)...)
		c.send(stream, make([]byte, size), 16<<10)
		c.sync()
		if c.stream(stream).ended {
			t.Errorf("%s: the response has ended before the body", path)
		}
		c.must(c.WriteData(stream, true, nil))
		c.rest(stream)
		want := "200"
		if path == "/error" {
			want = "403"
		}
		if got := c.header(stream)[":status"]; got != want {
			t.Errorf("%s: status %s", path, got)
		}
		c.sync()
		if c.stream(stream).reset {
			t.Errorf("%s: reset", path)
		}
	}
}

// TestLeftBodyIsRefused: net/http resets the stream where the client cannot be
// waiting for room, where it may be waiting for the end of the response, where it is told
// of an error, and where the rest is too long.
func TestLeftBodyIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithHandler(leavers()))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	for i, fields := range [][]string{
		posting("/", 60<<10),
		posting("/", -1),
		posting("/", 17<<20),
		posting("/", 3<<20, "expect", "100-continue"),
		posting("/close", 17<<20),
		posting("/error/flush", 3<<20),
		posting("/error/long", 3<<20),
	} {
		stream := uint32(2*i + 1)
		c.request(stream, false, fields...)
		c.rest(stream)
		for !c.stream(stream).reset {
			c.step()
		}
	}
}

// TestExpectUnread: a client that has asked whether to send the body is not told to, as
// behind net/http, unless the handler reads of it.
func TestExpectUnread(t *testing.T) {
	t.Parallel()
	beside(t, leavers(), func(t *testing.T, s *server) string {
		conn := s.dial(t)
		c := newH2Client(t, conn, conn)
		var seen []string
		for i, path := range []string{"/", "/close/only", "/flush", "/error", "/error/flush", "/error/long"} {
			stream := uint32(2*i + 1)
			c.request(stream, false, posting(path, 3<<20, "expect", "100-continue")...)
			c.rest(stream)
			seen = append(seen, path, strconv.FormatBool(c.stream(stream).asked), c.header(stream)[":status"])
		}
		const read = 99
		c.request(read, false, posting("/some", 3<<20, "expect", "100-continue")...)
		for !c.stream(read).asked {
			c.step()
		}
		return strings.Join(seen, " ")
	}, mux.Configure(func(c *mux.Config) { c.HTTP2.Progress.BodyGrace = 1000 * time.Hour }))
}

// TestLeftBodyWithinTime: what is read behind a handler is bounded by the time of its request,
// and by a time of its own.
func TestLeftBodyWithinTime(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ request, left time.Duration }{
		"of the request": {300 * time.Millisecond, time.Hour},
		"its own":        {time.Hour, 300 * time.Millisecond},
		"no request's":   {0, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, mux.WithHandler(leavers()), requestTimeout(tt.request), mux.Configure(func(c *mux.Config) {
				c.HTTP2.Progress = protocols.ProgressConfig{MinBodyRate: 1, BodyGrace: time.Hour, ProgressTimeout: time.Hour}
			}))
			s.SetLeftTime(tt.left)
			conn := s.dial(t)
			c := newH2Client(t, conn, conn)
			c.request(1, false, posting("/", 3<<20)...)
			c.send(1, make([]byte, 100), 100)
			c.rest(1)
			if got := c.header(1)[":status"]; got != "200" {
				t.Errorf("status %s", got)
			}
		})
	}
}

// TestFewLeftBodies: of the requests of a connection whose handlers have left their bodies
// some are read to their end, and others are reset, as net/http resets all.
func TestFewLeftBodies(t *testing.T) {
	t.Parallel()
	const kept, size = 8, 100 << 10
	s := start(t, false, mux.WithHandler(leavers()))
	s.SetLeftTime(time.Hour)
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	for i := range uint32(kept) {
		c.request(2*i+1, false, posting("/", size)...)
		c.send(2*i+1, make([]byte, 100), 100)
	}
	eventually(t, "they are being read", func() bool { return len(s.Accounts()) == 1 && mux.LeftBodies(s.Accounts()[0]) == kept })
	const next = 2*kept + 1
	c.request(next, false, posting("/", size)...)
	c.rest(next)
	for !c.stream(next).reset {
		c.step()
	}
	for i := range uint32(kept) {
		if c.stream(2*i + 1).ended {
			t.Errorf("stream %d has ended before its body", 2*i+1)
		}
		c.send(2*i+1, make([]byte, size-100), 16<<10)
		c.must(c.WriteData(2*i+1, true, nil))
		c.rest(2*i + 1)
	}
}

// TestLeftReader: a handler's goroutine that reads on behind the handler sees no end where
// the body has not ended, and the response does not wait for the body.
func TestLeftReader(t *testing.T) {
	t.Parallel()
	read := make(chan string, 2)
	upload := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		read <- fmt.Sprint(n, " ", err == nil)
	})
	beside(t, http.TimeoutHandler(upload, time.Second, ""), func(t *testing.T, s *server) string {
		conn := s.dial(t)
		c := newH2Client(t, conn, conn)
		c.request(1, false, posting("/", 200_000)...)
		c.send(1, make([]byte, 20_000), 10_000)
		c.rest(1)
		return c.header(1)[":status"] + " " + <-read
	}, mux.Configure(func(c *mux.Config) { c.HTTP2.Progress.BodyGrace = 1000 * time.Hour }))
}

// TestLeftReaderReadsLater: a goroutine that reads once more behind its handler does not take
// what the server has read meanwhile for the end of the body.
func TestLeftReaderReadsLater(t *testing.T) {
	t.Parallel()
	answered, read := make(chan struct{}), make(chan error, 1)
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		go func() {
			<-answered
			_, err := r.Body.Read(make([]byte, 1))
			read <- err
		}()
	})))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	const size = 200_000
	c.request(1, false, posting("/", size)...)
	c.send(1, make([]byte, size), 16<<10)
	c.must(c.WriteData(1, true, nil))
	c.rest(1)
	close(answered)
	if err := within(t, "the late read", read); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the late read: %v", err)
	}
}

// TestUnreadBesideRead: an upload that its handler does not read, and that has filled its
// window, does not stop another upload of its connection.
func TestUnreadBesideRead(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(readers(outcomes)))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.request(1, false, posting("/busy", 64<<20)...)
	c.sync()
	window := int(mux.DefaultConfig().HTTP2.StreamWindow)
	c.send(1, make([]byte, window), 16<<10)
	c.request(3, false, posting("/read", 4*window)...)
	c.send(3, make([]byte, 4*window), 16<<10)
	c.must(c.WriteData(3, true, nil))
	if got := c.header(3)[":status"]; got != "200" {
		t.Errorf("status %s", got)
	}
	if err := within(t, "the handler", outcomes); err != nil {
		t.Error(err)
	}
}
