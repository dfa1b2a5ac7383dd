package mux_test

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/muxserve/muxserve/mux"
)

// lines collects the records of a JSON handler.
type lines struct{ syncBuffer }

// all returns the records without the fields that differ from run to run.
func (l *lines) all(t *testing.T) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		record := make(map[string]any)
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if d, ok := record["duration_seconds"].(float64); !ok || d <= 0 {
			t.Errorf("duration_seconds %v in %s", record["duration_seconds"], line)
		}
		if addr, ok := record["remote_addr"].(string); !ok || !strings.HasPrefix(addr, "127.0.0.1:") {
			t.Errorf("remote_addr %v in %s", record["remote_addr"], line)
		}
		for _, key := range []string{"time", "duration_seconds", "remote_addr", "level", "user_agent"} {
			delete(record, key)
		}
		all = append(all, record)
	}
	return all
}

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID      = "00f067aa0ba902b7"
	traceparent = "00-" + traceID + "-" + spanID + "-01"
)

// TestAccessLog: each request, call and WebSocket session gets one line, with its ids.
func TestAccessLog(t *testing.T) {
	var log lines
	s := start(t, false, mux.WithAccessLog(slog.New(slog.NewJSONHandler(&log, nil))))
	for version := 1; version <= 2; version++ {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+"/echo?secret=1", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Traceparent", traceparent)
		if version == 2 {
			r.Header.Set("X-Request-Id", "mine-7")
		}
		resp, err := s.client(t, version).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	cc := testpb.NewTestServiceClient(s.grpcClient(t))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", traceparent, "x-request-id", "bad id")
	if _, err := cc.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	ws := s.webSocket(t)
	for range 3 {
		if err := echoed(t, ws, "message"); err != nil {
			t.Fatal(err)
		}
	}
	_ = ws.CloseNow()
	eventually(t, "four lines", func() bool { return len(log.all(t)) == 4 })
	want := []map[string]any{
		{
			"msg": "request", "conn_id": 1.0, "request_id": "1-1", "protocol": "http1", "trace_id": traceID, "span_id": spanID,
			"method": "POST", "path": "/echo", "code": 200.0, "bytes_written": 5.0,
		},
		{
			"msg": "request", "conn_id": 2.0, "request_id": "mine-7", "protocol": "http2", "trace_id": traceID, "span_id": spanID,
			"method": "POST", "path": "/echo", "code": 200.0, "bytes_written": 5.0,
		},
		{
			"msg": "request", "conn_id": 3.0, "request_id": "3-1", "protocol": "grpc", "trace_id": traceID, "span_id": spanID,
			"path": "/grpc.testing.TestService/UnaryCall", "code": 0.0,
		},
		{
			"msg": "request", "conn_id": 4.0, "request_id": "4-1", "protocol": "websocket",
			"method": "GET", "path": "/ws", "code": 101.0, "messages_read": 3.0, "messages_written": 3.0,
		},
	}
	if diff := cmp.Diff(want, log.all(t)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// TestAccessLogOfPanic: a request whose handler panics gets a line.
func TestAccessLogOfPanic(t *testing.T) {
	var log lines
	s := start(t, false, mux.WithAccessLog(slog.New(slog.NewJSONHandler(&log, nil))), mux.WithHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	})))
	<-get(s.client(t, 1), "http://"+s.addr+"/")
	eventually(t, "a line", func() bool { return len(log.all(t)) >= 1 })
	if got := log.all(t)[0]["code"]; got != 500.0 {
		t.Errorf("code %v", got)
	}
}

// TestRequestIDs: two concurrent requests of one connection have different request ids.
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

// faultyLog is a log that panics.
type faultyLog struct {
	slog.Handler
	lines *atomic.Int64
}

func (faultyLog) Enabled(context.Context, slog.Level) bool { return true }

func (l faultyLog) Handle(context.Context, slog.Record) error {
	l.lines.Add(1)
	panic("fault of the log")
}

// TestFaultyAccessLog: the server survives an access log that panics at the end of a
// WebSocket. The WebSocket is served after its handler has returned, so net/http does not
// recover the panic.
func TestFaultyAccessLog(t *testing.T) {
	ended := func(context.Context, *websocket.Conn, *http.Request) error { return nil }
	var lines atomic.Int64
	s := start(t, false, mux.WithLogger(discard), mux.WithWebSocket(ended),
		mux.WithAccessLog(slog.New(faultyLog{slog.DiscardHandler, &lines})))
	for i := range 2 {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		resp := roundTrip(t, conn, r, handshake)
		if resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(resp.Status)
		}
		if _, err := r.ReadByte(); err != nil { // A close frame, which the test does not answer.
			t.Error(err)
		}
		_ = conn.Close()
		eventually(t, "the connection to be gone", func() bool {
			return s.Stats().Pools["websocket"].Active == 0 && lines.Load() == int64(i+1)
		})
	}
}
