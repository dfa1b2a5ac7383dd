package mux_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// TestStalledStream: the server resets an HTTP/2 stream whose window stays shut. Other
// streams of its connection go on.
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

// TestQuietStreams: the server leaves a stream alone that is silent for longer than the
// progress timeout because its handler is, in every protocol.
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

// readers returns a handler that reads the body and reports its end. At the path /busy it
// does not read until the request is over.
func readers(outcomes chan<- error) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			<-r.Context().Done()
			return
		}
		_, err := io.Copy(io.Discard, r.Body)
		outcomes <- err
	})
}

// TestStalledBesideUnread: a stalled upload ends although the handler of another stream
// does not read its body.
func TestStalledBesideUnread(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}),
		mux.WithHandler(readers(outcomes)))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	for i, path := range []string{"/busy", "/read"} {
		c.request(uint32(2*i+1), false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", path, "content-length", "10")
	}
	select {
	case err := <-outcomes:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(3 * time.Second):
		t.Error("an upload that has stopped is still waited for, because another stream's body is not read")
	}
}

// TestStalledBesideSmall: a stream whose window stays shut ends although its client makes
// other requests.
func TestStalledBesideSmall(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, mux.WithHandler(movers(outcomes)), impatient(protocols.ProgressConfig{ProgressTimeout: 200 * time.Millisecond}))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.must(c.WriteWindowUpdate(0, 1<<20))
	c.get(1, "/flood")
	done := make(chan error, 1)
	go func() {
		for { // Nothing is granted to stream 1.
			if f, err := c.ReadFrame(); err != nil {
				done <- err
				return
			} else if reset, ok := f.(*http2.RSTStreamFrame); ok && reset.StreamID == 1 {
				done <- nil
				return
			}
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	over := time.After(20 * time.Second)
	for stream := uint32(3); ; stream += 2 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			within(t, "the handler", outcomes)
			return
		case <-tick.C:
			c.get(stream, "/small")
		case <-over:
			_ = conn.Close()
			t.Fatal("a stream whose client takes nothing goes on while it asks for other things")
		}
	}
}

// TestSteadyHTTP2Download: a download by io.Copy at a steady 1 MB/s outlives the progress
// timeout.
func TestSteadyHTTP2Download(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	outcomes := make(chan error, 1)
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: 400 * time.Millisecond}),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.Copy(w, io.LimitReader(zeros{}, size))
			outcomes <- err
		})))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	// The windows hold whole frames. Otherwise this client's updates break them into ever
	// smaller ones.
	c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	c.must(c.WriteWindowUpdate(0, 1<<20))
	c.get(1, "/")
	for stream := c.stream(1); !stream.ended; {
		before := stream.body.Len()
		c.step()
		time.Sleep(time.Duration(stream.body.Len()-before) * time.Microsecond)
	}
	if got := c.stream(1).body.Len(); got != size {
		t.Errorf("%d bytes", got)
	}
	if err := within(t, "the handler", outcomes); err != nil {
		t.Error(err)
	}
}

// TestSlowHTTP2Window: a client that takes 1 KiB every 20 ms has not stalled.
func TestSlowHTTP2Window(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	// The server sees progress by frames of 16 KiB, which take 320 ms. Four of them take
	// longer than the timeout.
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: time.Second}),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, 200<<10))
			outcomes <- err
		})))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.noCredit = true
	c.get(1, "/")
	go func() {
		for t.Context().Err() == nil {
			time.Sleep(20 * time.Millisecond)
			if c.WriteWindowUpdate(0, 1<<10) != nil || c.WriteWindowUpdate(1, 1<<10) != nil {
				return
			}
		}
	}()
	for !c.stream(1).ended {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			c.stream(1).body.Write(f.Data())
			c.stream(1).ended = f.StreamEnded()
		case *http2.RSTStreamFrame:
			t.Fatalf("reset with %v after %d bytes, which came at a KiB every 20 ms", f.ErrCode, c.stream(1).body.Len())
		}
		if c.stream(1).body.Len() > 150<<10 {
			break
		}
	}
	_ = conn.Close()
	within(t, "the handler", outcomes)
}

// TestWindowInLargeSteps: a client that reads all the time may give its windows back in steps of
// megabytes, as browsers do.
func TestWindowInLargeSteps(t *testing.T) {
	t.Parallel()
	const step, limit = 256 << 10, 300 * time.Millisecond
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: limit}),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 3*step)) })))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: step})
	c.noCredit = true
	c.must(c.WriteWindowUpdate(0, 3*step))
	c.get(1, "/")
	for taken := step; ; taken += step {
		for c.stream(1).body.Len() < taken {
			c.step()
		}
		if taken == 3*step {
			break
		}
		time.Sleep(5 * limit)
		c.must(c.WriteWindowUpdate(1, step))
	}
}

// TestSlowSharedCall: a unary call on the shared transport whose message arrives slowly
// is not a response that the client does not take.
func TestSlowSharedCall(t *testing.T) {
	t.Parallel()
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: 300 * time.Millisecond}),
		mux.Configure(func(c *mux.Config) { c.GRPC.Transport = protocols.TransportShared }))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.request(1, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", "/grpc.testing.TestService/UnaryCall",
		"content-type", "application/grpc", "te", "trailers")
	message, err := proto.Marshal(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 60)}})
	if err != nil {
		t.Fatal(err)
	}
	framed := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	framed = append(framed, message...)
	for i, b := range framed {
		time.Sleep(25 * time.Millisecond)
		if err := c.WriteData(1, i == len(framed)-1, []byte{b}); err != nil {
			t.Fatalf("byte %d of %d: %v; closed %v", i, len(framed), err, s.Stats().Closed)
		}
	}
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("%v; closed %v", err, s.Stats().Closed)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			t.Fatalf("GOAWAY %v; closed %v", g.ErrCode, s.Stats().Closed)
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			t.Log(h.PseudoValue("status"))
			return
		}
	}
}

// TestUploadBehindSlowHandlers: an upload is not too slow while its client may not send,
// because other handlers of the connection have not read the data that fills its window.
func TestUploadBehindSlowHandlers(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	s := start(t, false, impatient(protocols.ProgressConfig{MinBodyRate: 1000, BodyGrace: 200 * time.Millisecond, ProgressTimeout: 500 * time.Millisecond}),
		mux.WithHandler(readers(outcomes)))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	part := int(mux.DefaultConfig().HTTP2.ConnectionWindow) / 16
	post := func(stream uint32, path string) {
		c.request(stream, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", path, "content-length", strconv.Itoa(part))
	}
	post(1, "/busy")
	for c.settings == nil || c.window == 65535 { // The server widens the connection's window behind its SETTINGS.
		c.step()
	}
	c.send(1, make([]byte, part), 16<<10)
	stream := uint32(3)
	for c.window >= part {
		post(stream, "/busy")
		c.send(stream, make([]byte, part), 16<<10)
		stream += 2
	}
	rest := min(c.window, part-1)
	post(stream, "/read")
	c.send(stream, make([]byte, rest), 16<<10) // All that the window allows.
	t.Logf("%d streams are open; the last has sent %d bytes, and %d are left of the connection's window", (stream+1)/2, rest, c.window)
	select {
	case err := <-outcomes:
		t.Errorf("an upload whose client has no window: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
}
