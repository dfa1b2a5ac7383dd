package admin

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// TestCurveIsBounded: a drain that lasts for long has fewer points a second, and its first
// and last one.
func TestCurveIsBounded(t *testing.T) {
	t.Parallel()
	c := new(curve)
	const n = 10 * maxCurve
	for i := range n {
		c.add(time.Duration(i)*curveInterval, map[string]int64{"http1": n - int64(i)}, i == n-1)
	}
	c.add(n*curveInterval, nil, true)
	points := c.list()
	if len(points) > maxCurve || len(points) < maxCurve/4 {
		t.Errorf("%d points", len(points))
	}
	if first, last := points[0], points[len(points)-1]; first.ElapsedSeconds != 0 || last.Remaining["http1"] != 1 {
		t.Errorf("from %+v to %+v", first, last)
	}
	for i := range points[1:] {
		if points[i+1].ElapsedSeconds <= points[i].ElapsedSeconds {
			t.Fatalf("point %d is not behind the one before", i+1)
		}
	}
}

// TestEventsHead: HEAD does not wait for the end of the stream.
func TestEventsHead(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	New(example(), Options{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodHead, "http://127.0.0.1/events", nil))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// TestRejectedByMinute: the history has the reasons of each minute.
func TestRejectedByMinute(t *testing.T) {
	t.Parallel()
	h := new(history)
	total := func(n int) mux.Stats {
		return mux.Stats{Rejected: map[string]map[string]uint64{"http1": {"limit": uint64(n)}, "grpc": {"limit": 5}}}
	}
	now := exampleTime
	for i := range 2*perMinute + perMinute/2 + 1 {
		h.add(now.Add(time.Duration(i)*sampleInterval), total(i))
	}
	want := []rejections{
		{"http1": {"limit": uint64(perMinute) + 3}}, {"http1": {"limit": uint64(perMinute)}}, {"http1": {"limit": uint64(perMinute) / 2}},
	}
	got := h.byMinute(total(2*perMinute + perMinute/2 + 3).Rejected)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := new(history).byMinute(total(1).Rejected); len(got) != 0 {
		t.Errorf("without a history: %v", got)
	}
}

// TestStreamsAreBounded: one stream too many is refused, and an ended one makes room.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	pages := New(example(), Options{})
	srv := httptest.NewServer(pages)
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	open := func() (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		return srv.Client().Do(req)
	}
	for range maxStreams {
		resp, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil || line != "event: health\n" || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%q, %v, %v", line, err, resp.Header)
		}
	}
	resp, err := open()
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %s %v", resp.Status, resp.Header)
	}
	cancel()
	deadline := time.Now().Add(20 * time.Second)
	for pages.watchers.wait() {
		if time.Now().After(deadline) {
			t.Fatal("streams whose clients have left stay open")
		}
		time.Sleep(time.Millisecond)
	}
}

// event is one event of a stream.
type event struct {
	name string
	data json.RawMessage
}

// readEvents returns the events of a stream up to its end.
func readEvents(t *testing.T, resp *http.Response) []event {
	t.Helper()
	var events []event
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			events = append(events, event{name: name})
		} else if data, ok := strings.CutPrefix(line, "data: "); ok {
			events[len(events)-1].data = json.RawMessage(data)
		}
	}
	return events
}

// TestWatchedDrain: a stream shows a drain with its steps and its curve, and ends with the
// account. Hold waits for it.
func TestWatchedDrain(t *testing.T) {
	t.Parallel()
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Listeners[0].TLS.Mode = listeners.ModeSelfSigned
			c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout = 3*time.Second, 0, 4*time.Second // A sample is taken each second.
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
		mux.WithHandler(mux.WebSocket(func(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
			_, _, err := c.Read(ctx)
			return err
		})),
	)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	pages := New(s, Options{})
	running, stop := context.WithCancel(t.Context())
	defer stop()
	go pages.Run(running)
	srv := httptest.NewServer(pages)
	defer srv.Close()

	var before progressView
	ask := func(path string, into any) {
		t.Helper()
		resp, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	ask("/drain", &before)
	if before.Running || before.Over || before.Plan.Delay != 3 || before.Plan.Timeout != 4 || before.Account != nil {
		t.Errorf("before: %+v", before)
	}
	checkListeners(t, s, ask)

	resp, err := srv.Client().Get(srv.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Muxserve-Pid"); got != strconv.Itoa(os.Getpid()) {
		t.Errorf("the process is %q", got)
	}
	// It is cut, because it neither reads nor answers.
	stays := dialWebSocket(t, s)
	defer stays.Close()
	go func() { _ = s.Shutdown(context.Background()) }()
	events := readEvents(t, resp)
	seen := make(map[string]int)
	steps := make(map[string]bool)
	var last progressView
	for _, e := range events {
		seen[e.name]++
		if e.name == "drain" || e.name == "end" {
			last = progressView{}
			if err := json.Unmarshal(e.data, &last); err != nil {
				t.Fatal(err)
			}
			steps[last.Step] = true
		}
	}
	if seen["health"] == 0 || seen["drain"] == 0 || seen["end"] != 1 || events[len(events)-1].name != "end" {
		t.Errorf("events %v", seen)
	}
	if !steps[""] || !steps[lifecycle.StepDrainDelay] {
		t.Errorf("steps %v", steps)
	}
	if len(last.Cut) != 1 || last.Cut[0].RemoteAddr != stays.LocalAddr().String() || last.Cut[0].Outcome != mux.EndCut || last.Account.Forced["websocket"] != 1 {
		t.Errorf("cut %+v, forced %v, closed %+v", last.Cut, last.Account.Forced, s.Closed())
	}
	if last.TraceID == "" || last.TraceID != last.Account.TraceID {
		t.Errorf("trace id %q, in the account %q", last.TraceID, last.Account.TraceID)
	}
	if !last.Over || last.Running || last.Account == nil || len(last.Account.Steps) != 6 || len(last.Steps) != 6 || len(last.History) < 2 {
		t.Errorf("the end: %+v", last)
	}
	pages.Hold()
	if pages.watchers.wait() {
		t.Error("it was not waited for")
	}
	<-ended
	var after progressView
	ask("/drain", &after)
	if !after.Over || after.Account == nil || after.Account.TraceID != last.Account.TraceID {
		t.Errorf("after: %+v", after)
	}
}

// dialWebSocket opens a WebSocket on which nothing is read or written.
func dialWebSocket(t *testing.T, s *mux.Server) net.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Addrs()[0].String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "101") {
		t.Fatalf("%q, %v", line, err)
	}
	return conn
}

// checkListeners looks at the listener and the certificate of a server.
func checkListeners(t *testing.T, s *mux.Server, ask func(string, any)) {
	t.Helper()
	var servers struct{ Listeners []listenerView }
	ask("/servers", &servers)
	want := []listenerView{{
		Address: s.Addrs()[0].String(), Configured: "127.0.0.1:0", TLS: listeners.ModeSelfSigned, ProxyProtocol: listeners.ProxyOff,
		Protocols: []string{"http1", "http2", "grpc", "websocket"},
	}}
	if diff := cmp.Diff(want, servers.Listeners); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
	var list struct{ Certificates []certificateView }
	ask("/certificates", &list)
	if len(list.Certificates) != 1 {
		t.Fatalf("certificates %+v", list)
	}
	c := list.Certificates[0]
	if c.Listener != s.Addrs()[0].String() || len(c.Names) == 0 || c.RemainingSeconds <= 0 || c.Issuer == "" || c.KeyType == "" || c.Serial == "" {
		t.Errorf("certificate %+v", c)
	}
}

// TestHoldIsBounded: who asked for the drain is waited for until he has its account, and
// not longer than three seconds.
func TestHoldIsBounded(t *testing.T) {
	t.Parallel()
	w := new(watchers)
	if w.wait() {
		t.Error("nobody watches, and is waited for")
	}
	w.polled(false)
	if !w.wait() {
		t.Error("who has asked for the drain is not waited for")
	}
	w.polled(true)
	if w.wait() {
		t.Error("who has the account is waited for")
	}
	pages := New(example(), Options{})
	if !pages.watchers.begin() {
		t.Fatal("no stream")
	}
	pages.Hold() // The stream does not end.
}

// TestHealthKnowsTheProcess has the fields about the process.
func TestHealthKnowsTheProcess(t *testing.T) {
	t.Parallel()
	a := peers(lifecycle.PhaseServing)
	_ = a.SetReady(false)
	a.level = slog.LevelWarn
	_, answer := call(t, a, http.MethodGet, "/health")
	var got map[string]any
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatal(err)
	}
	if got["pid"] == float64(0) || got["version"] != "v1.2.3" || got["log_level"] != "warn" || got["ready"] != false || got["not_ready"] != "switched off" {
		t.Errorf("%v", got)
	}
	if diff := cmp.Diff(map[string]any{"degraded": 0.8, "overloaded": 0.95}, got["thresholds"]); diff != "" {
		t.Error(diff)
	}
}
