package mux_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// windowWatch opens the connections of a client, and notes each initial window of streams
// that their server says.
type windowWatch struct {
	tls *tls.Config // nil: plaintext

	mu      sync.Mutex // guards what follows
	conns   int
	windows []uint32
}

// dial is for grpc.WithContextDialer.
func (w *windowWatch) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if w.tls != nil {
		conn = tls.Client(conn, w.tls)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns++
	return &watchedConn{Conn: conn, watch: w}, nil
}

// client returns a client of gRPC whose connections are watched.
func (w *windowWatch) client(t *testing.T, s *server) *grpc.ClientConn {
	t.Helper()
	if s.roots != nil {
		w.tls = &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1", NextProtos: []string{"h2"}}
	}
	cc, err := grpc.NewClient(s.addr, grpc.WithContextDialer(w.dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// isNarrow reports whether the last window is less than half of what the server says first.
func (w *windowWatch) isNarrow() bool {
	windows, _ := w.said()
	return len(windows) > 0 && windows[len(windows)-1] < windows[0]/2
}

// said returns the initial windows that were said, and the number of connections.
func (w *windowWatch) said() (windows []uint32, conns int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.windows), w.conns
}

// watchedConn is a connection of a windowWatch.
type watchedConn struct {
	net.Conn
	watch *windowWatch
	rest  []byte // of a frame that is not complete
}

func (c *watchedConn) Read(p []byte) (int, error) {
	const headerLen, settingLen = 9, 6 // RFC 9113, sections 4.1 and 6.5.1.
	n, err := c.Conn.Read(p)
	for c.rest = append(c.rest, p[:n]...); len(c.rest) >= headerLen; {
		end := headerLen + int(binary.BigEndian.Uint32(c.rest)>>8)
		if len(c.rest) < end {
			break
		}
		if http2.FrameType(c.rest[3]) == http2.FrameSettings {
			for setting := range slices.Chunk(c.rest[headerLen:end], settingLen) {
				if http2.SettingID(binary.BigEndian.Uint16(setting)) == http2.SettingInitialWindowSize {
					c.watch.mu.Lock()
					c.watch.windows = append(c.watch.windows, binary.BigEndian.Uint32(setting[2:]))
					c.watch.mu.Unlock()
				}
			}
		}
		c.rest = c.rest[end:]
	}
	return n, err
}

// stalledCalls are uploads whose handlers do not read yet.
type stalledCalls struct {
	sent    atomic.Int64 // bytes
	results chan string
}

// stall begins so many uploads. Each sends so many messages.
func stall(ctx context.Context, client testpb.TestServiceClient, calls, messages, size int) *stalledCalls {
	s := &stalledCalls{results: make(chan string, calls)}
	for range calls {
		go func() {
			stream, err := client.StreamingInputCall(ctx)
			for range messages {
				if err == nil {
					err = stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}})
					s.sent.Add(int64(size))
				}
			}
			if err != nil {
				s.results <- err.Error()
				return
			}
			resp, err := stream.CloseAndRecv()
			s.results <- fmt.Sprint(resp.GetAggregatedPayloadSize(), err)
		}()
	}
	return s
}

// TestStalledCallsHoldBackNoOthers: calls whose handlers do not read yet hold back no other
// call of their connection, also where they are so many that their windows become narrow.
// Their client gets what that of a plain server gets, and its windows back. It has one
// connection all the time.
func TestStalledCallsHoldBackNoOthers(t *testing.T) {
	const (
		budget = 16 << 20 // As in the package protocols.
		wide   = 1 << 20
		size   = 50_000
		// laterMessages are more than a narrow window has room for. Those of 200 calls that
		// come are more than the window of the connection.
		laterMessages = 2
	)
	for name, tt := range map[string]struct {
		calls, messages int
		later           int // calls that begin when the windows are narrow
		narrow, overTLS bool
	}{
		"12 calls":             {12, 30, 0, false, false},
		"40 calls":             {40, 20, 0, true, false},
		"20 calls, then 200":   {20, 30, 200, true, false},
		"20, then 200, by TLS": {20, 30, 200, true, true},
	} {
		if raceEnabled && tt.overTLS {
			continue // It takes the race detector long.
		}
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			// stalled makes calls beside those that are stalled, and returns what the client gets.
			stalled := func(cc *grpc.ClientConn, service lateService, ready func(sent int64) bool) (got []string) {
				client := testpb.NewTestServiceClient(cc)
				s := stall(ctx, client, tt.calls, tt.messages, size)
				for part := range int64(16) { // Each has its own patience.
					eventually(t, "the calls send", func() bool { return s.sent.Load() >= part*int64(tt.calls)*wide/2/16 })
				}
				eventually(t, "the calls are stalled", func() bool { return ready(s.sent.Load()) })
				later := stall(ctx, client, tt.later, laterMessages, size)
				eventually(t, "later ones have begun", func() bool { return later.sent.Load() >= int64(tt.later*laterMessages*size/2) })
				for range 2 {
					for _, length := range []int{10, 10_000, 100_000, 1_000_000} {
						resp, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, length)}})
						got = append(got, fmt.Sprint(length, " ", resp.GetUsername(), err))
					}
				}
				close(service.read)
				for range tt.calls {
					got = append(got, <-s.results)
				}
				for range tt.later {
					got = append(got, <-later.results)
				}
				return got
			}
			plainService := lateService{read: make(chan struct{})}
			plain := &server{addr: plainServeHTTP(t, plainService)}
			all := int64(tt.calls * tt.messages * size)
			want := stalled(plain.grpcClient(t), plainService, func(sent int64) bool { return sent == all })

			service := lateService{read: make(chan struct{})}
			s := start(t, tt.overTLS, mux.WithHandler(nil), mux.Configure(func(c *mux.Config) {
				c.GRPC.Transport = protocols.TransportShared
			}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
			var watch windowWatch
			cc := watch.client(t, s)
			got := stalled(cc, service, func(sent int64) bool {
				return sent > int64(tt.calls)*wide/2 && !tt.narrow || sent > budget && watch.isNarrow()
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-plain +muxed):\n%s", diff)
			}
			eventually(t, "the windows are wide", func() bool {
				windows, _ := watch.said()
				return windows[len(windows)-1] == wide
			})
			// In a narrow window there would be no room for half of this.
			late, err := testpb.NewTestServiceClient(cc).StreamingInputCall(metadata.AppendToOutgoingContext(ctx, "read", "nothing until the end"))
			for range wide / 2 / size {
				if err == nil {
					err = late.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}})
				}
			}
			if err != nil {
				t.Error(err)
			}
			if windows, conns := watch.said(); conns != 1 {
				t.Errorf("%d connections, with the windows %d", conns, windows)
			}
		})
	}
}

// TestStalledCallsOfHTTPClient: the same holds for net/http's client, whose calls have no end.
func TestStalledCallsOfHTTPClient(t *testing.T) {
	const (
		calls = 40
		most  = 24 << 20 // the budget, the window of the connection, and 80 KiB of each call
	)
	s := start(t, false, mux.WithHandler(nil), mux.Configure(func(c *mux.Config) {
		c.GRPC.Transport = protocols.TransportShared
	}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, readingService{}) }))
	client := s.client(t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var ended sync.WaitGroup
	for range calls {
		r := callRequest(ctx, t, s.addr, testpb.TestService_StreamingInputCall_FullMethodName, shortMessages{})
		r.Header.Set("Read", "nothing until the end")
		ended.Go(func() {
			if resp, err := client.Do(r); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	defer ended.Wait()
	defer cancel()
	// A buffer of grpc-go counts with its whole length, so that less than the budget may do.
	eventually(t, "the calls are stalled", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].BytesReceived > 14<<20
	})
	sent := uint64(0)
	for _, length := range []int{10, 10_000, 100_000, 1_000_000} {
		for range 5 {
			message, err := proto.Marshal(&testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, length)}})
			if err != nil {
				t.Fatal(err)
			}
			body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
			sent += uint64(len(body))
			resp, err := client.Do(callRequest(ctx, t, s.addr, testpb.TestService_UnaryCall_FullMethodName, bytes.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.Copy(io.Discard, resp.Body); err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
				t.Fatal(resp, err)
			}
			_ = resp.Body.Close()
		}
	}
	if conns := s.Connections(); len(conns) != 1 || conns[0].BytesReceived > most+sent {
		t.Errorf("%+v, want one connection with at most %d bytes", conns, most+sent)
	}
}

// TestNarrowConnectionEnds: a connection whose windows are narrow ends with its client, and in
// a drain with its calls.
func TestNarrowConnectionEnds(t *testing.T) {
	const calls, messages, size = 40, 20, 50_000
	for name, drain := range map[string]bool{"the client leaves": false, "drain": true} {
		t.Run(name, func(t *testing.T) {
			service := lateService{read: make(chan struct{})}
			s := start(t, false, mux.WithHandler(nil), mux.Configure(func(c *mux.Config) {
				c.GRPC.Transport = protocols.TransportShared
				c.Drain.Timeout = time.Minute
			}), mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service) }))
			var watch windowWatch
			cc := watch.client(t, s)
			stalled := stall(t.Context(), testpb.NewTestServiceClient(cc), calls, messages, size)
			eventually(t, "the windows are narrow", watch.isNarrow)
			if !drain {
				_ = cc.Close()
				eventually(t, "the connection has ended", func() bool { return s.active("http2") == 0 })
				close(service.read)
				return
			}
			drained := make(chan error, 1)
			go func() {
				_, err := s.Drain(t.Context())
				drained <- err
			}()
			eventually(t, "draining", func() bool { return s.Phase() == mux.PhaseDraining })
			close(service.read)
			for range calls {
				if got, want := <-stalled.results, fmt.Sprint(messages*size, nil); got != want {
					t.Errorf("a call: %s, want %s", got, want)
				}
			}
			if err := <-drained; err != nil {
				t.Error(err)
			}
		})
	}
}
