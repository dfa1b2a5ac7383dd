package mux_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// heldCalls sends the path of each call to served. A FullDuplexCall lasts until its client
// ends it.
type heldCalls struct {
	testpb.UnimplementedTestServiceServer

	served chan<- string
}

func (h heldCalls) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	h.served <- testpb.TestService_FullDuplexCall_FullMethodName
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

func (h heldCalls) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	h.served <- testpb.TestService_EmptyCall_FullMethodName
	return new(testpb.Empty), nil
}

// TestLastStreamOfNative: the same behind its age, in a drain and behind a reload where grpc-go
// serves all calls. Behind a reload nothing would refuse a stream, so no last one is named.
func TestLastStreamOfNative(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"age", "drain", "reload"} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			served := make(chan string, 10)
			s := start(t, false, mux.WithGRPC(func(r mux.GRPCRegistrar) {
				testpb.RegisterTestServiceServer(r, heldCalls{served: served})
			}), mux.Configure(func(c *mux.Config) {
				c.GRPC.Transport, c.Drain.Spread = protocols.TransportNative, 0
				c.HTTP2.Progress.BodyGrace = 100 * time.Millisecond // So it sweeps often.
				if why == "age" {
					c.GRPC.MaxAge = 300 * time.Millisecond
				}
			}))
			conn := s.dial(t)
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			c := newH2Client(t, conn, conn)
			c.ready()
			ask := func(stream uint32, path string) {
				c.request(stream, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", path,
					"content-type", "application/grpc", "te", "trailers")
				c.must(c.WriteData(stream, stream > 1, make([]byte, 5)))
			}
			ask(1, testpb.TestService_FullDuplexCall_FullMethodName)
			within(t, "the stream that is held", served)
			switch why {
			case "drain":
				_ = s.drain(t.Context())
			case "reload":
				s.reload(t, func(c *mux.Config) { c.GRPC.MaxStreams = 10 })
			}
			for c.goneAway(); c.lastTold == maxStream && why != "reload"; {
				c.step()
			}
			if why == "reload" {
				c.answersPing()
				time.Sleep(300 * time.Millisecond) // Sweeps could tell it.
			}
			ask(3, testpb.TestService_EmptyCall_FullMethodName)
			c.sync()
			select {
			case path := <-served:
				if c.lastTold != maxStream {
					t.Errorf("%s was served behind the last GOAWAY", path)
				}
			case <-time.After(100 * time.Millisecond):
				if c.lastTold == maxStream {
					t.Error("nothing was served, and the client was not told that")
				}
			}
		})
	}
}

// TestLastStreamOfBusy: a client that keeps a stream open when it is told to leave is told its
// last stream as well, once it has answered the PING. The stream goes on. What the client opens
// all the same is not served.
func TestLastStreamOfBusy(t *testing.T) {
	t.Parallel()
	const greetings = "text/event-stream"
	const heldCall, nextCall = testpb.TestService_FullDuplexCall_FullMethodName, testpb.TestService_EmptyCall_FullMethodName
	for name, form := range map[string]struct {
		pool, held, next string
		wantType         string
		key              string // of metadata whose value differs from call to call
	}{
		"http2":                 {"http2", "/held", "/next", greetings, ""},
		"grpc":                  {"grpc", heldCall, nextCall, "application/grpc", "x"},
		"grpc with a long name": {"grpc", heldCall, nextCall, "application/grpc", strings.Repeat("x", 300)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			served := make(chan string, 10)
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				served <- r.URL.Path
				w.Header().Set("Content-Type", greetings)
				_ = http.NewResponseController(w).Flush()
				if r.URL.Path == form.held {
					<-r.Context().Done()
				}
			})
			s := start(t, false, mux.WithHandler(handler), mux.WithGRPC(func(r mux.GRPCRegistrar) {
				testpb.RegisterTestServiceServer(r, heldCalls{served: served})
			}), mux.Configure(func(c *mux.Config) { c.HTTP2.Progress.BodyGrace = 100 * time.Millisecond })) // So it sweeps often.
			conn := s.dial(t)
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			c := newH2Client(t, conn, conn)
			c.ready()
			ask := func(stream uint32, path string) {
				if form.pool != "grpc" {
					c.get(stream, path)
					return
				}
				c.request(stream, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", path,
					"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0", form.key, strconv.Itoa(int(stream)))
				c.must(c.WriteData(stream, path != form.held, make([]byte, 5)))
			}
			ask(1, form.held)
			if got := c.header(1)["content-type"]; got != form.wantType {
				t.Fatalf("content-type %q", got)
			}
			within(t, "the stream that is held", served)
			for _, stream := range []uint32{3, 5} {
				ask(stream, form.next)
				within(t, "the next stream", served)
				c.header(stream)
			}
			if got := s.active(form.pool); got != 1 {
				t.Fatalf("%d connections of %s", got, form.pool)
			}
			s.Disconnect(func(mux.ConnInfo) bool { return true }, time.Minute)
			for c.goneAway(); c.lastTold == maxStream; {
				c.step()
			}
			if c.lastTold != 5 || c.goAway.ErrCode != http2.ErrCodeNo {
				t.Errorf("the last GOAWAY: %d, %v", c.lastTold, c.goAway)
			}
			ask(7, form.next)
			c.sync()
			c.sync()
			select {
			case path := <-served:
				t.Errorf("%s was served behind the last GOAWAY", path)
			case <-time.After(100 * time.Millisecond):
			}
			if c.stream(1).ended {
				t.Error("the stream that is held has ended")
			}
		})
	}
}

// TestRoomOfNative: where grpc-go serves all calls, no last stream is named either when a crowd
// has idle connections leave. A call that crosses is served.
func TestRoomOfNative(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithGRPC(func(r mux.GRPCRegistrar) {
		testpb.RegisterTestServiceServer(r, lateAnswers{})
	}), mux.Configure(func(c *mux.Config) {
		c.GRPC.Transport, c.GRPC.MaxConnections = protocols.TransportNative, 1
	}))
	s.SetLeaving(1, time.Minute)
	dial := func() *h2Client {
		conn := s.dial(t)
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		c := newH2Client(t, conn, conn)
		c.ready()
		return c
	}
	call := func(c *h2Client, stream uint32) {
		c.request(stream, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", testpb.TestService_EmptyCall_FullMethodName,
			"content-type", "application/grpc", "te", "trailers")
		c.must(c.WriteData(stream, true, make([]byte, 5)))
		c.rest(stream)
		if got := c.header(stream)["grpc-status"]; got != "0" {
			t.Errorf("call %d: status %q", stream, got)
		}
	}
	c := dial()
	call(c, 1)
	eventually(t, "idle", func() bool { return s.Stats().Requests["grpc"].InFlight == 0 })
	call(dial(), 1)
	c.goneAway()
	call(c, 3)
	if c.lastTold != maxStream {
		t.Errorf("it was told %d as its last stream", c.lastTold)
	}
}
