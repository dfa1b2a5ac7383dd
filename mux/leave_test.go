package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// goAways reads frames until the connection ends, and returns the GOAWAY frames; PINGs are answered and requests made by next.
func (c *h2Client) goAways(next func(seen int)) (last []uint32, codes []http2.ErrCode) {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return last, codes
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.must(c.WriteSettingsAck())
			}
		case *http2.GoAwayFrame:
			last, codes = append(last, f.LastStreamID), append(codes, f.ErrCode)
			if next != nil {
				next(len(last))
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			c.stream(f.StreamID).header = map[string]string{":status": f.PseudoValue("status")}
		}
	}
}

const maxStream = 1<<31 - 1

// TestTwoStepGoAway: in a drain, an HTTP/2 client is first told that there will be an end, then which stream was the last; what
// it sends in between is served.
func TestTwoStepGoAway(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		c.get(1, "/echo")
		if got := c.header(1)[":status"]; got != "200" {
			t.Fatalf("status %s", got)
		}
		done := s.drain(t.Context())
		last, codes := c.goAways(func(seen int) {
			if seen == 1 {
				c.get(3, "/echo") // It was on its way.
			}
		})
		if len(last) != 2 || last[0] != maxStream || last[1] != 3 {
			t.Errorf("GOAWAY %v, want %d and 3", last, maxStream)
		}
		for _, code := range codes {
			if code != http2.ErrCodeNo {
				t.Errorf("codes %v", codes)
			}
		}
		if got := c.stream(3).header[":status"]; got != "200" {
			t.Errorf("the stream that crossed the GOAWAY: %q", got)
		}
		if got := within(t, "the drain", done); got.err != nil || got.report.ForcedTotal() != 0 {
			t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
		}
	})
}

// aged makes connections of both versions of HTTP old soon.
func aged(age, grace time.Duration) mux.Option {
	return mux.Configure(func(c *mux.Config) {
		c.HTTP1.MaxAge, c.HTTP2.MaxAge = age, age
		c.HTTP1.MaxAgeGrace, c.HTTP2.MaxAgeGrace = grace, grace
	})
}

// TestAgeEndsIdle: a connection that is idle when it has reached its age is ended, too, in the words of its protocol.
func TestAgeEndsIdle(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		events := observe(t, s.Server)
		one := s.dial(t, "http/1.1")
		r := bufio.NewReader(one)
		_ = roundTrip(t, one, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
		two := s.dial(t, "h2")
		c := newH2Client(t, two, two)
		c.get(1, "/echo")
		last, codes := c.goAways(nil)
		if len(last) != 2 || last[0] != maxStream || last[1] != 1 || codes[1] != http2.ErrCodeNo {
			t.Errorf("GOAWAY %v %v, want %d and 1", last, codes, maxStream)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("the end of the HTTP/1.1 connection: %v", err)
		}
		for _, p := range []protocols.Protocol{protocols.HTTP1, protocols.HTTP2} {
			eventually(t, "closed for its age", func() bool { return events.count(mux.EventRemoved, p, "max_age") == 1 })
		}
	}, aged(100*time.Millisecond, time.Hour))
}

// TestAgeGrace: what is in flight gets the grace and no more.
func TestAgeGrace(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	s := start(t, false, aged(50*time.Millisecond, 200*time.Millisecond), mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- r.Context().Err()
	})))
	for version := 1; version <= 2; version++ {
		got := get(s.client(t, version), "http://"+s.addr+"/")
		if err := within(t, "the handler", ended); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if text := within(t, "the client", got); text == "" {
			t.Errorf("HTTP/%d: answered", version)
		}
	}
}

// TestTooManyResets: a client that resets its streams over and over is told to calm down and sent away, on either transport.
func TestTooManyResets(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) { c.HTTP2.MaxResetsPerMinute = 20 }))
	events := observe(t, s.Server)
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	go func() {
		for stream := uint32(1); stream < 200; stream += 2 {
			c.block.Reset()
			c.get(stream, "/slow")
			if c.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	_, codes := (&h2Client{Framer: http2.NewFramer(io.Discard, conn), t: t, streams: make(map[uint32]*h2Stream)}).goAways(nil)
	if len(codes) != 1 || codes[0] != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("GOAWAY %v", codes)
	}
	eventually(t, "closed for it", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "too_many_resets") == 1 })
}

// leaving returns the context that ends when the connection of x is to leave.
func leaving(x any) context.Context {
	c, _ := mux.ConnOf(x)
	return c.Draining()
}

// TestDrainContext: whoever serves a connection for long learns that it is to leave: an HTTP handler, a custom
// listener's owner, and who took a connection over.
func TestDrainContext(t *testing.T) {
	causes := make(chan error, 3)
	begun := make(chan struct{}, 3)
	wait := func(ctx context.Context) {
		begun <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
	}
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard), mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := leaving(r.Context())
		if r.URL.Path == "/hijack" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
		}
		wait(ctx)
	})))
	custom := m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	go func() {
		for {
			nc, err := custom.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				wait(leaving(nc))
			}()
		}
	}()
	s := serve(t, m)
	for _, first := range []string{"SSH-2.0-x\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n"} {
		send(t, s.dial(t), first)
		within(t, "its handler", begun)
	}
	if got := within(t, "the drain", s.drain(t.Context())); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
	for range 3 {
		if err := <-causes; !errors.Is(err, mux.ErrDraining) {
			t.Error(err)
		}
	}
	for _, x := range []any{t.Context(), mux.Event{}, nil} {
		if c, ok := mux.ConnOf(x); ok || leaving(x).Done() != nil || c.Info().ID != 0 {
			t.Errorf("%T has a connection", x)
		}
	}
}

// TestDrainContextOfClosed: the context ends with the connection.
func TestDrainContextOfClosed(t *testing.T) {
	ctxs := make(chan context.Context, 1)
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctxs <- leaving(r.Context())
	})))
	conn := s.dial(t)
	send(t, conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	ctx := <-ctxs
	within(t, "its end", ctx.Done())
	if err := context.Cause(ctx); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestCustomQueueAtDrain: what a custom listener has queued at a drain is accepted and served.
func TestCustomQueueAtDrain(t *testing.T) {
	m := mux.New(mux.Configure(noDelay), mux.WithLogger(discard))
	custom := m.Match("ssh", cmux.PrefixMatcher("SSH-2.0-"))
	s := serve(t, m)
	const queued = 50
	conns := make([]net.Conn, queued)
	for i := range conns {
		conns[i] = s.dial(t)
		send(t, conns[i], "SSH-2.0-client\r\n")
	}
	eventually(t, "all are queued", func() bool { return s.active("ssh") == queued })
	done := s.drain(t.Context())
	eventually(t, "draining", func() bool { return s.Phase() != "serving" })
	go func() {
		for {
			nc, err := custom.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(nc, "served")
			_ = nc.Close()
		}
	}()
	for i, conn := range conns {
		if b, err := io.ReadAll(conn); string(b) != "served" {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
	}
	if got := within(t, "the drain", done); got.err != nil || got.report.ForcedTotal() != 0 {
		t.Errorf("drain: %v, forced %v", got.err, got.report.Forced)
	}
}
