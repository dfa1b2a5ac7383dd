package mux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// impatient sets short progress timeouts for both HTTP versions.
func impatient(p protocols.ProgressConfig) mux.Option {
	return mux.Configure(func(c *mux.Config) { c.HTTP1.Progress, c.HTTP2.Progress = p, p })
}

// movers are handlers that report the end of their request.
func movers(outcomes chan<- error) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		outcomes <- err
		if err != nil {
			http.Error(w, "too slow", http.StatusRequestTimeout)
		}
	})
	m.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for range 256 {
			if _, err := w.Write(block); err != nil {
				outcomes <- err
				return
			}
		}
		outcomes <- nil
	})
	m.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") })
	m.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		for range 4 {
			select {
			case <-time.After(300 * time.Millisecond):
			case <-r.Context().Done():
				outcomes <- r.Context().Err()
				return
			}
			_, _ = io.WriteString(w, "data: still here\n\n")
			_ = http.NewResponseController(w).Flush()
		}
		outcomes <- nil
	})
	return m
}

// drip is a request body that comes a byte at a time.
type drip struct {
	ctx  context.Context
	left int
	wait time.Duration
}

func (d *drip) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(d.wait):
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
	d.left--
	p[0] = 'x'
	return 1, nil
}

// post sends a body to /read. length is -1 for a body of unknown length.
func post(t *testing.T, s *server, version int, body io.Reader, length int64) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.scheme()+"://"+s.addr+"/read", body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = length
	client := s.client(t, version)
	go func() {
		if resp, err := client.Do(r); err == nil { // The handler says how it went.
			_ = resp.Body.Close()
		}
	}()
}

// TestSlowBody: an upload of declared length must keep its rate, and every upload must
// move. An upload that moves may take as long as it likes.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	const never = time.Hour
	for _, test := range []struct {
		name   string
		config protocols.ProgressConfig
		wait   time.Duration // between two bytes
		length int64
		slow   bool
	}{
		{"declared and too slow", protocols.ProgressConfig{MinBodyRate: 10_000, BodyGrace: 100 * time.Millisecond}, 20 * time.Millisecond, 50, true},
		{"declared and fast enough", protocols.ProgressConfig{MinBodyRate: 1, BodyGrace: 100 * time.Millisecond}, 20 * time.Millisecond, 50, false},
		{"not declared, so as slow as it likes", protocols.ProgressConfig{MinBodyRate: 10_000, BodyGrace: 100 * time.Millisecond}, 20 * time.Millisecond, -1, false},
		{"slow but living", protocols.ProgressConfig{ProgressTimeout: time.Second}, 40 * time.Millisecond, -1, false},
		{"no longer moving", protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}, never, -1, true},
		{"no longer moving, of declared length", protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}, never, 50, true},
		{"not bounded", protocols.ProgressConfig{}, 20 * time.Millisecond, 50, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for version := 1; version <= 2; version++ {
				outcomes := make(chan error, 1)
				s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(test.config))
				events := observe(t, s.Server)
				post(t, s, version, &drip{t.Context(), 50, test.wait}, test.length)
				err := within(t, "the handler", outcomes)
				if errors.Is(err, os.ErrDeadlineExceeded) != test.slow || !test.slow && err != nil {
					t.Errorf("HTTP/%d: %v, want slow %v", version, err, test.slow)
				}
				if test.slow {
					tag := []protocols.Protocol{protocols.HTTP1, protocols.HTTP2}[version-1]
					eventually(t, "the event", func() bool { return events.count(mux.EventTimeout, tag, "slow_body") > 0 })
				}
			}
		})
	}
}

// TestQuietCall: the messages of a call that a handler serves may be as far apart as they
// like, as those of grpc-go's services are. The sweep ends other bodies that stop.
func TestQuietCall(t *testing.T) {
	t.Parallel()
	for contentType, slow := range map[string]bool{
		"application/grpc": false, "application/grpc+json": false, "application/connect+proto": false,
		"application/grpc-web": true, "application/proto": true, "": true,
	} {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			for version := 1; version <= 2; version++ {
				outcomes := make(chan error, 1)
				s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}))
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.scheme()+"://"+s.addr+"/read", &drip{t.Context(), 2, 1500 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				r.ContentLength = -1
				r.Header.Set("Content-Type", contentType)
				client := s.client(t, version)
				go func() {
					if resp, err := client.Do(r); err == nil { // The handler says how it went.
						_ = resp.Body.Close()
					}
				}()
				if err := within(t, "the handler", outcomes); errors.Is(err, os.ErrDeadlineExceeded) != slow || !slow && err != nil {
					t.Errorf("HTTP/%d: %v, want slow %v", version, err, slow)
				}
			}
		})
	}
}

// TestRestOfBody: what net/http reads of a body that its handler has left has to come fast
// enough, also where its length is not declared: behind the handler, and where that closes it.
func TestRestOfBody(t *testing.T) {
	t.Parallel()
	handlers := map[string]http.Handler{
		"left":   http.NotFoundHandler(),
		"closed": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = r.Body.Close() }),
	}
	for name, begin := range map[string]string{
		"declared":        "Content-Length: 1000\r\n\r\n",
		"chunk":           "Transfer-Encoding: chunked\r\n\r\nffff\r\n",
		"chunk extension": "Transfer-Encoding: chunked\r\n\r\n1;",
		"trailer":         "Transfer-Encoding: chunked\r\n\r\n0\r\nA: ",
	} {
		for how, handler := range handlers {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				s := start(t, false, mux.WithHandler(handler),
					impatient(protocols.ProgressConfig{MinBodyRate: 10_000, BodyGrace: 100 * time.Millisecond}))
				events := observe(t, s.Server)
				conn := s.dial(t)
				send(t, conn, "POST / HTTP/1.1\r\nHost: x\r\n"+begin)
				dripped := make(chan struct{})
				go func() {
					defer close(dripped)
					for err := error(nil); err == nil; time.Sleep(20 * time.Millisecond) {
						_, err = conn.Write([]byte("a"))
					}
				}()
				eventually(t, "the event", func() bool { return events.count(mux.EventTimeout, protocols.HTTP1, "slow_body") > 0 })
				<-dripped
			})
		}
	}
}

// TestStalledReader: the server cuts a client that takes nothing of a response, and keeps
// one that takes it slowly.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	bothForms(t, func(t *testing.T, s *server) {
		events := observe(t, s.Server)
		conn := s.dial(t)
		send(t, conn, "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
		if err := within(t, "the handler", outcomes); err == nil {
			t.Error("256 MiB were written to a client that reads nothing")
		}
		eventually(t, "the event", func() bool { return events.count(mux.EventTimeout, protocols.HTTP1, "write_stalled") == 1 })
		eventually(t, "closed", func() bool { return s.active("http1") == 0 })
	}, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: 300 * time.Millisecond}))
}

// TestSlowReader: a client that takes a response slowly keeps its connection.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: 2 * time.Second}))
	conn := s.dial(t)
	if err := conn.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	send(t, conn, "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
	piece := make([]byte, 16<<10)
	for range 120 {
		if _, err := io.ReadFull(conn, piece); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond) // What is under test is time.
	}
	if got := s.active("http1"); got != 1 {
		t.Errorf("%d connections after 3.6 s of slow reading", got)
	}
	_ = conn.Close()
	within(t, "the handler", outcomes)
}

// TestSteadyReader: the kernel lets a writer go on when a third of the send buffer is free. A
// client of HTTP/2 with wide windows that reads steadily keeps its stream meanwhile.
func TestSteadyReader(t *testing.T) {
	t.Parallel()
	const step = 8 << 10 // each 20 ms, for 8 s: a third of a send buffer of 4 MB takes 3 s
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: 2 * time.Second}))
	conn := s.dial(t)
	if err := conn.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	c.must(c.WriteWindowUpdate(0, 1<<30))
	c.get(1, "/flood")
	part := make([]byte, step)
	for read := 0; read < 400*step; read += step {
		if _, err := io.ReadFull(conn, part); err != nil {
			t.Fatalf("behind %d bytes: %v", read, err)
		}
		time.Sleep(20 * time.Millisecond) // What is under test is time.
		select {
		case err := <-outcomes:
			t.Fatalf("the response ended behind %d bytes: %v", read, err)
		default:
		}
	}
	_ = conn.Close()
	_ = within(t, "the handler", outcomes)
}

// TestStalledTail: the end of a response whose handler has returned does not wait for a
// shut window for ever.
func TestStalledTail(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithHandler(movers(nil)), impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}))
	events := observe(t, s.Server)
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	c.get(1, "/small")
	if code := c.goneAway(); code != http2.ErrCodeNo {
		t.Errorf("GOAWAY %v", code)
	}
	eventually(t, "closed", func() bool { return events.count(mux.EventRemoved, protocols.HTTP2, "write_stalled") == 1 })
}

// TestLastWordIsWritten: a connection is not closed before the GOAWAY that names its client's
// last stream is written, however many sweeps pass in the meantime.
func TestLastWordIsWritten(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(c *h2Client){
		"ended for what it does not take": func(c *h2Client) {
			c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
			c.get(1, "/small")
		},
		"ended when it is idle": func(c *h2Client) {
			c.get(1, "/small")
			_ = c.rest(1)
			c.must(c.WriteSettings(tableOf(64)))
			if code := c.goneAway(); code != http2.ErrCodeNo || c.goAway.LastStreamID != maxStream {
				c.t.Errorf("GOAWAY %v", c.goAway)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mux.New(mux.WithLogger(discard), mux.WithHandler(movers(nil)), impatient(protocols.ProgressConfig{ProgressTimeout: 800 * time.Millisecond}))
			l := listen(t)
			serveOn(t, m, wrapListener{l, func(conn net.Conn) net.Conn { return &lateGoAwayConn{conn} }})
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			c := newH2Client(t, conn, conn)
			leave(c)
			if last, codes := c.goAways(nil); !slices.Equal(last, []uint32{1}) || codes[0] != http2.ErrCodeNo {
				t.Errorf("the last GOAWAYs: %v, %v", last, codes)
			}
		})
	}
}

// lateGoAwayConn takes long to write a GOAWAY that stands alone.
type lateGoAwayConn struct{ net.Conn }

func (c *lateGoAwayConn) Write(p []byte) (int, error) {
	const goAwayLen = 9 + 8
	if len(p) == goAwayLen && http2.FrameType(p[3]) == http2.FrameGoAway {
		time.Sleep(400 * time.Millisecond) // What is under test is time.
	}
	return c.Conn.Write(p)
}

// echoed sends a message and reads it back.
func echoed(t *testing.T, ws *websocket.Conn, text string) error {
	t.Helper()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		return err
	}
	_, got, err := ws.Read(t.Context())
	if err == nil && string(got) != text {
		err = errors.New("echoed " + string(got))
	}
	return err
}

// TestUnreadBody: a body that the handler does not read and the client does not send does
// not keep the connection for ever.
func TestUnreadBody(t *testing.T) {
	s := start(t, false, impatient(protocols.ProgressConfig{MinBodyRate: 10_000, BodyGrace: 100 * time.Millisecond, ProgressTimeout: 200 * time.Millisecond}),
		mux.Configure(func(c *mux.Config) {
			c.HTTP1.IdleTimeout, c.HTTP1.HeaderTimeout = 300*time.Millisecond, 300*time.Millisecond
			c.HTTP1.MaxAge, c.HTTP1.MaxAgeGrace = 0, 0
		}))
	conn := s.dial(t)
	_ = conn.SetDeadline(time.Now().Add(4 * time.Second))
	send(t, conn, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("after 4 s: %v; connections: %+v", err, s.Connections())
	}
	t.Log(resp.Status)
}

// TestUndeclaredTrailer: the handler sees a trailer that the head did not announce.
func TestUndeclaredTrailer(t *testing.T) {
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("X-Sum"))
	})))
	conn := s.dial(t)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "7" {
		t.Errorf("the trailer is %q, want 7", body)
	}
}

// TestBodyIsNetHTTPs: what net/http does with a body that the handler has not read, it does
// behind the mux too. It neither waits for a client that waits for the answer, nor takes
// the rest of a body that was closed for another request.
func TestBodyIsNetHTTPs(t *testing.T) {
	s := start(t, false, mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/closed" {
			_ = r.Body.Close()
		}
		w.WriteHeader(http.StatusForbidden)
	})))
	const head = "POST /%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s"
	long := strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 40_000)
	for name, request := range map[string]string{
		"Expect": fmt.Sprintf(head, "", "Expect: 100-continue\r\n", 100, ""),
		"closed": fmt.Sprintf(head, "closed", "", len(long), long),
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.dial(t)
			_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
			go io.WriteString(conn, request)
			r := bufio.NewReader(conn)
			if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusForbidden {
				t.Fatalf("%v, %v", resp, err)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			if more, _ := io.ReadAll(r); len(more) > 0 {
				t.Errorf("another answer: %.300q", more)
			}
		})
	}
}
