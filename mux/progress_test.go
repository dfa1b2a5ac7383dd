package mux_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// eventLog collects events.
type eventLog struct {
	mu     sync.Mutex
	events []mux.Event
}

func observe(t *testing.T, s *mux.Server) *eventLog {
	t.Helper()
	l := new(eventLog)
	t.Cleanup(s.Observe(func(e mux.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, e)
	}))
	return l
}

// count returns how many events of a kind there were for a reason.
func (l *eventLog) count(kind mux.EventKind, tag protocols.Protocol, reason string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind && e.Protocol == string(tag) && e.Reason == reason {
			n++
		}
	}
	return n
}

// impatient makes the times of progress short, for both versions of HTTP.
func impatient(p protocols.ProgressConfig) mux.Option {
	return mux.Configure(func(c *mux.Config) { c.HTTP1.Progress, c.HTTP2.Progress = p, p })
}

// movers are handlers that say in the end what became of their request.
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

// post sends a body to /read; length is -1 where it is not declared.
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

// TestSlowBody: an upload of declared length must keep its rate, one of any kind must move, and one
// that moves may take as long as it likes.
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
		{"slow but living", protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}, 20 * time.Millisecond, -1, false},
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

// TestStalledReader: who takes nothing of a response is cut off; who takes it slowly is not.
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
	s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: time.Second}))
	conn := s.dial(t)
	if err := conn.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	send(t, conn, "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
	piece := make([]byte, 16<<10)
	for range 80 {
		if _, err := io.ReadFull(conn, piece); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond) // What is under test is time.
	}
	if got := s.active("http1"); got != 1 {
		t.Errorf("%d connections after 2.4 s of slow reading", got)
	}
	_ = conn.Close()
	within(t, "the handler", outcomes)
}

// TestStalledStream: an HTTP/2 stream whose window stays shut is reset, and the other streams of its connection go on.
func TestStalledStream(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}))
	events := observe(t, s.Server)
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.noCredit = true
	c.get(1, "/flood")
	if got := c.header(1)[":status"]; got != "200" {
		t.Fatalf("status %s", got)
	}
	got := make(chan http2.ErrCode, 1)
	go func() {
		for {
			f, err := c.ReadFrame()
			if err != nil {
				got <- http2.ErrCodeConnect
				return
			}
			if reset, ok := f.(*http2.RSTStreamFrame); ok && reset.StreamID == 1 {
				got <- reset.ErrCode
				return
			}
		}
	}()
	if err := within(t, "the handler", outcomes); err == nil {
		t.Error("256 MiB were written into a shut window")
	}
	if code := within(t, "RST_STREAM", got); code != http2.ErrCodeInternal {
		t.Errorf("reset with %v", code)
	}
	c.must(c.WriteWindowUpdate(0, 1<<20))
	c.get(3, "/small")
	if body := c.rest(3); body != "small" {
		t.Errorf("the next stream: %q", body)
	}
	eventually(t, "the event", func() bool { return events.count(mux.EventTimeout, protocols.HTTP2, "write_stalled") == 1 })
}

// TestStalledTail: the end of a response, whose handler is gone, does not wait for a shut window for ever.
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

// TestQuietStreams: a stream that has nothing to say for longer than the progress timeout is left alone,
// in every protocol.
func TestQuietStreams(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(movers(outcomes)), mux.WithWebSocket(echoWebSocket),
		impatient(protocols.ProgressConfig{MinBodyRate: 240, BodyGrace: 50 * time.Millisecond, ProgressTimeout: 100 * time.Millisecond}))
	ws := s.webSocket(t)
	stream, err := testpb.NewTestServiceClient(s.grpcClient(t)).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for version := 1; version <= 2; version++ {
		resp, err := s.client(t, version).Get("http://" + s.addr + "/events")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if n := strings.Count(string(body), "still here"); err != nil || n != 4 {
			t.Errorf("HTTP/%d: %d events, %v", version, n, err)
		}
		if err := <-outcomes; err != nil {
			t.Errorf("HTTP/%d: %v", version, err)
		}
	}
	if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Error(err)
	}
	if err := echoed(t, ws, "after all this time"); err != nil {
		t.Error(err)
	}
	_ = ws.CloseNow()
}

// TestTimeoutReasons: when a connection is closed because a time has run out, the event says which.
func TestTimeoutReasons(t *testing.T) {
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.HTTP1.HeaderTimeout, c.HTTP1.IdleTimeout = 150*time.Millisecond, 100*time.Millisecond
		c.Sniff.Timeout = 100 * time.Millisecond
	}))
	events := observe(t, s.Server)
	idle := s.dial(t)
	r := bufio.NewReader(idle)
	_ = roundTrip(t, idle, r, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").Body.Close()
	half := s.dial(t)
	send(t, half, "GET / HTTP/1.1\r\nHost: x\r\n")
	eventually(t, "both are closed", func() bool {
		return events.count(mux.EventRemoved, protocols.HTTP1, "idle_timeout") == 1 &&
			events.count(mux.EventRemoved, protocols.HTTP1, "header_timeout") == 1
	})
	for _, reason := range []string{"idle_timeout", "header_timeout"} {
		if n := events.count(mux.EventTimeout, protocols.HTTP1, reason); n != 1 {
			t.Errorf("%s: %d timeouts", reason, n)
		}
	}
	if got := s.Stats().Closed["http1"]; got["idle_timeout"] != 1 || got["header_timeout"] != 1 {
		t.Errorf("closed: %v", got)
	}
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
