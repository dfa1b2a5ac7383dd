package mux_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// Answers whose handlers return while the client has room for lateRoom bytes of them. grpc-go
// keeps a unary answer behind its handler, however long, and of a stream so much as lateParts.
const (
	lateRoom  = 10
	lateUnary = 200 << 10
	lateParts = 3
	latePart  = 10 << 10
)

// lateAnswers gives such answers.
type lateAnswers struct {
	testpb.UnimplementedTestServiceServer
}

func (lateAnswers) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: make([]byte, lateUnary)}}, nil
}

func (lateAnswers) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for range lateParts {
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, latePart)}}); err != nil {
			return err
		}
	}
	return nil
}

// FullDuplexCall lasts until its client ends it.
func (lateAnswers) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	<-s.Context().Done()
	return s.Context().Err()
}

func (lateAnswers) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return new(testpb.Empty), nil
}

// serveLate gives such an answer to a request.
func serveLate(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	_, _ = w.Write(make([]byte, latePart))
}

// lateKinds are the answers, by the path.
var lateKinds = map[string]int{
	testpb.TestService_UnaryCall_FullMethodName:           lateUnary,
	testpb.TestService_StreamingOutputCall_FullMethodName: lateParts * latePart,
	"/late": latePart,
}

// startLate starts a server of late answers that sweeps often.
func startLate(t *testing.T, options ...mux.Option) *server {
	t.Helper()
	options = append([]mux.Option{
		mux.WithHandler(http.HandlerFunc(serveLate)),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, lateAnswers{}) }),
		limits(func(c *mux.Config) { c.HTTP2.MaxAgeGrace = 400 * time.Millisecond }),
	}, options...)
	return start(t, false, options...)
}

// lateClient is a client that opens the window of its streams late.
type lateClient struct {
	*h2Client

	conn net.Conn
}

// dialLate opens a connection that is grpc-go's by its SETTINGS, or net/http's by its first
// request.
func dialLate(t *testing.T, addr string) *lateClient {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := &lateClient{newH2Client(t, conn, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: lateRoom}), conn}
	c.noCredit = true
	c.ready()
	return c
}

// ask makes the call to path, or the request for it, and waits until the window is full.
func (c *lateClient) ask(stream uint32, path string) {
	c.t.Helper()
	if path == "/late" {
		c.get(stream, path)
	} else {
		c.request(stream, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", path,
			"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0")
		c.must(c.WriteData(stream, true, make([]byte, 5)))
	}
	for path != testpb.TestService_EmptyCall_FullMethodName && c.stream(stream).body.Len() < lateRoom {
		c.step()
	}
}

// take opens the window, and checks that the answer on stream 1 is complete.
func (c *lateClient) take(path string) {
	c.t.Helper()
	c.must(c.WriteWindowUpdate(1, 1<<20))
	if body, status := c.rest(1), c.header(1)["grpc-status"]; len(body) < lateKinds[path] || status != "0" {
		c.t.Errorf("%d bytes, want %d; status %q", len(body), lateKinds[path], status)
	}
}

// leaves answers the server until it ends the connection.
func (c *lateClient) leaves() {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		switch f := f.(type) {
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		case nil:
			if err != io.EOF && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset by peer") {
				c.t.Fatal(err)
			}
			_ = c.conn.Close()
			return
		}
	}
}

// lateServer is a server whose connections leave, ours or a plain one.
type lateServer struct {
	addr    string
	running func() int64        // handlers
	leave   func(c *lateClient) // has the connections leave, this one by all means
	ended   func(t *testing.T)  // checks the end of the server, behind the last connection
}

// lateLeaving are the ways in which a server may have connections leave.
var lateLeaving = map[string]func(t *testing.T) lateServer{
	"plain grpc-go": func(t *testing.T) lateServer {
		srv := grpc.NewServer()
		testpb.RegisterTestServiceServer(srv, lateAnswers{})
		l := listen(t)
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(srv.Stop)
		done := make(chan struct{})
		leave := func(*lateClient) { go func() { srv.GracefulStop(); close(done) }() }
		return lateServer{l.Addr().String(), func() int64 { return 0 }, leave, func(t *testing.T) { within(t, "GracefulStop", done) }}
	},
	"drain": func(t *testing.T) lateServer {
		s := startLate(t)
		done := make(chan error, 1)
		return s.late(func(*lateClient) { go func() { done <- s.Shutdown(context.Background()) }() }, func(t *testing.T) {
			if err := within(t, "Shutdown", done); err != nil {
				t.Error(err)
			}
		})
	},
	"disconnect": func(t *testing.T) lateServer {
		s := startLate(t)
		return s.late(func(*lateClient) { s.Disconnect(everything, time.Minute) }, nil)
	},
	"reload": func(t *testing.T) lateServer {
		s := startLate(t)
		return s.late(func(*lateClient) {
			s.reload(t, func(c *mux.Config) { c.HTTP2.MaxStreams, c.GRPC.MaxStreams = 300, 300 })
		}, nil)
	},
	"mixed": func(t *testing.T) lateServer {
		s := startLate(t)
		return s.late(func(c *lateClient) {
			c.get(3, "/late")
			c.goneAway()
			s.Disconnect(func(info mux.ConnInfo) bool { return info.RemoteAddr != c.conn.LocalAddr().String() }, time.Minute)
		}, nil)
	},
}

// late describes a server of ours.
func (s *server) late(leave func(*lateClient), ended func(*testing.T)) lateServer {
	running := func() int64 {
		stats := s.Stats()
		return stats.Requests["grpc"].InFlight + stats.Requests["http2"].InFlight
	}
	if ended == nil {
		ended = func(t *testing.T) {
			eventually(t, "no connection", func() bool { return len(s.Connections()) == 0 })
		}
	}
	return lateServer{s.addr, running, leave, ended}
}

// TestLateAnswers: a connection that is to leave stays until its client has taken the answers
// of handlers that have returned. Idle ones that were told later leave meanwhile.
func TestLateAnswers(t *testing.T) {
	for name, serve := range lateLeaving {
		for path := range lateKinds {
			if path == "/late" && (name == "plain grpc-go" || name == "mixed") {
				continue // They are of grpc-go alone.
			}
			t.Run(name+path, func(t *testing.T) {
				t.Parallel()
				s := serve(t)
				busy := dialLate(t, s.addr)
				busy.ask(1, path)
				var idle [2]*lateClient
				for i := range idle {
					idle[i] = dialLate(t, s.addr)
					idle[i].ask(1, testpb.TestService_EmptyCall_FullMethodName)
					idle[i].rest(1)
				}
				if path != "/late" { // net/http's handlers wait for the client.
					eventually(t, "no handler", func() bool { return s.running() == 0 })
				}
				s.leave(busy)
				busy.goneAway()
				busy.answersPing()
				for _, c := range idle {
					c.goneAway()
					c.leaves()
				}
				busy.sync()
				busy.take(path)
				busy.leaves()
				s.ended(t)
			})
		}
	}
}

// TestLateAnswersMakeNoRoom: where a limit is full, a connection whose client has not taken
// its answer yet does not count as idle.
func TestLateAnswersMakeNoRoom(t *testing.T) {
	for path := range lateKinds {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s := startLate(t, limits(func(c *mux.Config) { c.Limits.MaxConnections = 2 }))
			busy := dialLate(t, s.addr)
			busy.ask(1, path)
			if path != "/late" {
				eventually(t, "no handler", func() bool { return s.Stats().Requests["grpc"].InFlight == 0 })
			}
			for _, info := range s.Connections() {
				if info.State == "idle" {
					t.Errorf("it is shown as idle")
				}
			}
			for range 4 {
				c := dialLate(t, s.addr)
				c.ask(1, testpb.TestService_EmptyCall_FullMethodName)
				c.rest(1)
			}
			busy.sync()
			if busy.goAway != nil {
				t.Errorf("%v", busy.goAway)
			}
			busy.take(path)
			eventually(t, "idle", func() bool {
				for _, info := range s.Connections() {
					if info.RemoteAddr == busy.conn.LocalAddr().String() && info.State == "idle" {
						return true
					}
				}
				return false
			})
		})
	}
}

// TestStuckAnswersMakeRoom: where a limit is full, a connection whose client has not moved for
// the progress timeout makes room for a newcomer, and the server ends it. Where no newcomer
// comes, the server keeps it.
func TestStuckAnswersMakeRoom(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	s := startLate(t, limits(func(c *mux.Config) { c.GRPC.MaxConnections, c.HTTP2.Progress.ProgressTimeout = 1, timeout }))
	stuck := dialLate(t, s.addr)
	stuck.ask(1, testpb.TestService_UnaryCall_FullMethodName)
	time.Sleep(4 * timeout)
	stuck.sync()
	if stuck.goAway != nil {
		t.Fatalf("%v, though nobody needs its place", stuck.goAway)
	}
	eventually(t, "a newcomer is served", func() bool {
		c := dialLate(t, s.addr)
		c.ask(1, testpb.TestService_EmptyCall_FullMethodName)
		c.rest(1)
		return c.header(1)["grpc-status"] == "0"
	})
	stuck.goneAway()
	stuck.leaves()
}

// TestLargeWindowSteps: a client of grpc-go's that was told to leave, and has taken much of its
// answer, has longer than the progress timeout for the rest, because something in between may
// hold what it has not read yet.
func TestLargeWindowSteps(t *testing.T) {
	t.Parallel()
	const timeout, step = 200 * time.Millisecond, lateUnary / 2
	s := startLate(t, limits(func(c *mux.Config) { c.HTTP2.Progress.ProgressTimeout = timeout }))
	c := dialLate(t, s.addr)
	c.ask(1, testpb.TestService_UnaryCall_FullMethodName)
	c.must(c.WriteWindowUpdate(1, step))
	for c.stream(1).body.Len() < step {
		c.step()
	}
	s.Disconnect(func(mux.ConnInfo) bool { return true }, time.Minute)
	c.goneAway()
	c.sync()
	time.Sleep(8 * timeout) // What is under test is time.
	c.take(testpb.TestService_UnaryCall_FullMethodName)
}

// TestUnstuckMakesNoRoom: a connection that has stood still, and goes on, is no room for others.
func TestUnstuckMakesNoRoom(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	s := startLate(t, limits(func(c *mux.Config) { c.GRPC.MaxConnections, c.HTTP2.Progress.ProgressTimeout = 1, timeout }))
	c := dialLate(t, s.addr)
	c.ask(1, testpb.TestService_UnaryCall_FullMethodName)
	time.Sleep(4 * timeout)
	s.reload(t, func(c *mux.Config) { c.HTTP2.Progress.ProgressTimeout = 0 })
	c.take(testpb.TestService_UnaryCall_FullMethodName)
	c.request(3, false, ":method", "POST", ":scheme", "http", ":authority", "x", ":path", testpb.TestService_FullDuplexCall_FullMethodName,
		"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0")
	eventually(t, "the call", func() bool { return s.Stats().Requests["grpc"].InFlight == 1 })
	other := dialLate(t, s.addr)
	other.ask(1, testpb.TestService_EmptyCall_FullMethodName)
	other.rest(1)
	if got := other.header(1)["grpc-status"]; got != "14" {
		t.Errorf("another client has got status %q", got)
	}
	c.sync()
	if c.goAway != nil {
		t.Errorf("%v", c.goAway)
	}
}
