package mux_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// handledMethod is a method of a service that only the HTTP handler has.
const handledMethod = "/handled.Service/Call"

// handlesCalls serves calls of the service handled.Service in gRPC's words, and the test
// routes. It answers other calls as net/http's mux does.
func handlesCalls() http.Handler {
	m := http.NewServeMux()
	m.Handle("/", routes())
	m.HandleFunc("POST "+handledMethod, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("X-Served-By", "handler")
		_, _ = w.Write(make([]byte, 5)) // An empty message.
		w.Header().Set("Grpc-Status", "0")
	})
	m.HandleFunc("GET /method/Call", func(http.ResponseWriter, *http.Request) {})
	m.HandleFunc("/refused/Call", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	})
	return m
}

// call makes an empty call, and returns its status and who says to have served it.
func call(ctx context.Context, cc *grpc.ClientConn, method string) (st *status.Status, by string) {
	var header metadata.MD
	err := cc.Invoke(ctx, method, new(emptypb.Empty), new(emptypb.Empty), grpc.Header(&header), grpc.WaitForReady(true))
	return status.Convert(err), strings.Join(header["x-served-by"], ",")
}

// TestWhoServesACall: grpc-go serves the calls of its services, the HTTP handler the
// others, and what neither has is UNIMPLEMENTED, whichever way the server serves. Each call
// is booked once, as a call, whoever served it.
func TestWhoServesACall(t *testing.T) {
	t.Parallel()
	const known, unknown = testpb.TestService_EmptyCall_FullMethodName, "/unknown.Service/Call"
	for _, transport := range []protocols.GRPCTransport{protocols.TransportAuto, protocols.TransportShared} {
		for _, withTLS := range []bool{false, true} {
			for _, listens := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, TLS %t, ListenAndServe %t", transport, withTLS, listens), func(t *testing.T) {
					var lines syncBuffer
					options := []mux.Option{
						mux.WithHandler(handlesCalls()),
						mux.WithAccessLog(slog.New(slog.NewJSONHandler(&lines, nil))),
						mux.Configure(func(c *mux.Config) { c.GRPC.Transport = transport }),
					}
					var s *server
					if listens {
						listener := mux.DefaultConfig().Listeners[0]
						listener.Address = "127.0.0.1:0"
						s = startOn(t, withTLS, []mux.ListenerConfig{listener}, options...)[0]
					} else {
						s = start(t, withTLS, options...)
					}
					cc := s.grpcClient(t)
					for range 2 {
						for _, tt := range []struct {
							method, by string
							code       codes.Code
						}{
							{known, "", codes.Unimplemented}, // grpc-go's word: the service has no such method.
							{handledMethod, "handler", codes.OK},
							{unknown, "", codes.Unimplemented},
							{"/method/Call", "", codes.Unimplemented},
							{"/refused/Call", "", codes.PermissionDenied},
						} {
							st, by := call(t.Context(), cc, tt.method)
							if st.Code() != tt.code || by != tt.by {
								t.Errorf("%s: %v by %q, want %v by %q", tt.method, st, by, tt.code, tt.by)
							}
							if tt.method == unknown && st.Message() != "unknown service unknown.Service" {
								t.Errorf("message %q", st.Message())
							}
						}
					}
					want := map[int]uint64{int(codes.OK): 2, int(codes.Unimplemented): 6, int(codes.PermissionDenied): 2}
					eventually(t, "the books", func() bool { return cmp.Equal(want, s.Stats().Codes["grpc"]) })
					eventually(t, "ten lines of calls in the access log", func() bool {
						return strings.Count(lines.String(), `"protocol":"grpc"`) >= 10
					})
					if got := strings.Count(lines.String(), `"protocol":"grpc"`); got != 10 {
						t.Errorf("%d lines of calls in the access log:\n%s", got, &lines)
					}
					if n := s.Stats().Codes["http2"]; len(n) > 0 {
						t.Errorf("booked as requests: %v", n)
					}
				})
			}
		}
	}
}

// TestCallsOfNobody: what neither has is answered as by grpc-go, though the handler was asked.
func TestCallsOfNobody(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.WithHandler(handlesCalls()))
	for method, message := range map[string]string{
		"/unknown.Service/Call": "unknown service unknown.Service",
		"/nothing":              `malformed method name: "/nothing"`,
	} {
		var header metadata.MD
		err := s.grpcClient(t).Invoke(t.Context(), method, new(emptypb.Empty), new(emptypb.Empty), grpc.Header(&header))
		if st := status.Convert(err); st.Code() != codes.Unimplemented || st.Message() != message || len(header.Get("date")) > 0 {
			t.Errorf("%s: %v, %v", method, st, header)
		}
	}
}

// TestCallsWithoutHandler: with no handler, and on native connections that were asked for,
// grpc-go answers every call.
func TestCallsWithoutHandler(t *testing.T) {
	for name, options := range map[string][]mux.Option{
		"no handler": {mux.WithHandler(nil)},
		"native": {mux.WithHandler(handlesCalls()), mux.Configure(func(c *mux.Config) {
			c.GRPC.Transport = protocols.TransportNative
		})},
	} {
		t.Run(name, func(t *testing.T) {
			options = append(options, mux.WithLogger(discard), mux.Configure(noDelay), mux.WithGRPC(func(r mux.GRPCRegistrar) {
				testpb.RegisterTestServiceServer(r, testService{})
			}))
			s := serve(t, mux.New(options...))
			cc := s.grpcClient(t)
			st, _ := call(t.Context(), cc, handledMethod)
			if st.Code() != codes.Unimplemented || st.Message() != "unknown service handled.Service" {
				t.Errorf("%v", st)
			}
			if got := s.Stats().Pools["grpc"].Accepted; got != 1 {
				t.Errorf("%d native connections", got)
			}
		})
	}
}

// TestUnknownServiceHandler: a server with a handler of unknown services has them all.
func TestUnknownServiceHandler(t *testing.T) {
	s := start(t, false, mux.WithHandler(handlesCalls()), mux.WithGRPC(nil, grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
		_ = ss.SetHeader(metadata.Pairs("x-served-by", "unknown"))
		return ss.SendMsg(new(emptypb.Empty))
	})))
	if st, by := call(t.Context(), s.grpcClient(t), handledMethod); st.Code() != codes.OK || by != "unknown" {
		t.Errorf("%v by %q", st, by)
	}
}

// TestCallsOfBothServers: a gRPC client whose calls go to both servers loses none, and its
// calls under way go on, when its native connection is given up.
func TestCallsOfBothServers(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		cc := s.grpcClient(t)
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		echo := func() {
			t.Helper()
			if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload("echo")}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		echo()
		if got := s.active("grpc"); got != 1 {
			t.Fatalf("%d native connections", got)
		}
		for range 20 {
			if st, by := call(t.Context(), cc, handledMethod); st.Code() != codes.OK || by != "handler" {
				t.Fatalf("%v by %q", st, by)
			}
			if _, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
			echo()
		}
		stats := s.Stats()
		if got := stats.Pools["grpc"].Accepted; got != 1 || stats.Reclassified["call"] != 1 {
			t.Errorf("%d native connections, reclassified %v", got, stats.Reclassified)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the end: %v", err)
		}
		eventually(t, "the native connection is closed", func() bool { return s.active("grpc") == 0 })
		if got := s.Stats().Closed["grpc"]; !cmp.Equal(map[string]uint64{"reclassified": 1}, got) {
			t.Errorf("closed: %v", got)
		}
	}, mux.WithHandler(handlesCalls()))
}

// frames reads frames until one satisfies last, and answers PINGs. It returns what it saw
// of RST_STREAM and GOAWAY.
func (c *h2Client) frames(last func(http2.Frame) bool) (seen []string) {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			c.t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
		case *http2.RSTStreamFrame:
			seen = append(seen, fmt.Sprint("reset ", f.StreamID, " ", f.ErrCode))
		case *http2.GoAwayFrame:
			seen = append(seen, fmt.Sprint("gone behind ", f.LastStreamID, " ", f.ErrCode))
		}
		if last(f) {
			return seen
		}
	}
}

// libraryCall is the HEADERS of a duplex call by a gRPC library.
func libraryCall() []string {
	return []string{":method", "POST", ":scheme", "http", ":authority", "x", ":path", testpb.TestService_FullDuplexCall_FullMethodName,
		"content-type", "application/grpc", "te", "trailers", "user-agent", "grpc-go/1.85.0"}
}

// TestRequestOnNativeConnection: a request behind a call on a native connection is refused
// so that the client asks again. The call goes on to its end, and the client's next
// connection has both. A client with other SETTINGS stays native.
func TestRequestOnNativeConnection(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		c.ready()
		c.request(1, false, libraryCall()...)
		c.must(c.WriteData(1, false, make([]byte, 5)))
		isMessage := func(f http2.Frame) bool { return f.Header().Type == http2.FrameData && f.Header().Length > 0 }
		if seen := c.frames(isMessage); len(seen) > 0 {
			t.Fatalf("the call: %q", seen)
		}
		c.get(3, "/echo")
		c.get(5, "/echo")
		isReset := func(f http2.Frame) bool { return f.Header().Type == http2.FrameRSTStream }
		if diff := cmp.Diff([]string{"gone behind 1 NO_ERROR", "reset 3 REFUSED_STREAM"}, c.frames(isReset)); diff != "" {
			t.Errorf("the request (-want +got):\n%s", diff)
		}
		c.must(c.WriteData(1, true, make([]byte, 5)))
		if seen := c.frames(func(f http2.Frame) bool {
			h, ok := f.(*http2.MetaHeadersFrame)
			return ok && h.StreamEnded() && h.StreamID == 1
		}); len(seen) > 0 {
			t.Errorf("the end of the call: %q", seen)
		}
		if last, codes := c.goAways(nil); len(last) > 0 { // It answers PINGs until the end.
			t.Errorf("more GOAWAYs: %d, %v", last, codes)
		}

		conn = s.dial(t, "h2")
		c = newH2Client(t, conn, conn)
		c.ready()
		c.request(1, true, libraryCall()...)
		c.get(3, "/echo")
		served := c.header(3)["x-protocol"]
		c.rest(1)
		if code := c.header(1)["grpc-status"]; served != "http2" || code != "0" {
			t.Errorf("the next connection: served by %q, the call's code %q", served, code)
		}
		if got := s.Stats().Reclassified; !cmp.Equal(map[string]uint64{"request": 1, "call": 0}, got) {
			t.Errorf("reclassified: %v", got)
		}

		other := s.dial(t, "h2")
		c = newH2Client(t, other, other, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		c.ready()
		c.request(1, false, libraryCall()...)
		eventually(t, "native", func() bool { return s.active("grpc") == 1 })
	})
}

// TestRefusedDataIsCredited: what comes on refused streams takes nothing of the
// connection's window for good, however it is split and however long its header is.
func TestRefusedDataIsCredited(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t, "h2")
		c := newH2Client(t, conn, conn)
		c.ready()
		c.request(1, false, libraryCall()...)
		var out bytes.Buffer
		fr := http2.NewFramer(&out, nil)
		sent := 0
		for stream := uint32(3); stream < 11; stream += 2 {
			block := bytes.Repeat([]byte{0x82}, 3*16384) // ":method: GET", again and again.
			c.must(fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block[:16384]}))
			c.must(fr.WriteContinuation(stream, false, block[16384:2*16384]))
			c.must(fr.WriteContinuation(stream, true, block[2*16384:]))
			for _, n := range []int{0, 1, 5000, 1000} {
				c.must(fr.WriteDataPadded(stream, n == 1000, make([]byte, n), make([]byte, n%256)))
				sent += 1 + n + n%256
			}
		}
		for b := out.Bytes(); len(b) > 0; {
			n := min(len(b), 1+len(b)%3001)
			send(t, conn, string(b[:n]))
			b = b[n:]
		}
		credit := 0
		c.frames(func(f http2.Frame) bool {
			if w, ok := f.(*http2.WindowUpdateFrame); ok && w.StreamID == 0 {
				credit += int(w.Increment)
			}
			return credit >= sent
		})
		if credit != sent {
			t.Errorf("%d bytes of credit for %d", credit, sent)
		}
		c.must(c.WriteData(1, true, nil))
		c.frames(func(f http2.Frame) bool {
			return f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagHeadersEndStream)
		})
	})
}

// TestManyCallsUnderWay: a request on a native connection with many calls under way loses
// none of them.
func TestManyCallsUnderWay(t *testing.T) {
	t.Parallel()
	const calls = 1000
	s := start(t, false, mux.WithLogger(discard), mux.Configure(func(c *mux.Config) { c.GRPC.MaxStreams = calls }))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	c.ready()
	for i := range uint32(calls) {
		c.request(2*i+1, false, libraryCall()...)
	}
	c.get(2*calls+1, "/echo")
	var ends sync.WaitGroup
	ends.Go(func() {
		for i := range uint32(calls) {
			if c.WriteData(2*i+1, true, nil) != nil {
				return
			}
		}
	})
	ended := 0
	c.frames(func(f http2.Frame) bool {
		if h, ok := f.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
			if ended++; h.PseudoValue("status") != "" && h.PseudoValue("status") != "200" {
				t.Errorf("stream %d: %v", h.StreamID, h.Fields)
			}
		}
		return ended == calls
	})
	ends.Wait()
	if got := s.Stats().Codes["grpc"][int(codes.OK)]; got != calls {
		t.Errorf("%d calls ended well", got)
	}
}

// TestALPNBindsConnections: a connection whose ALPN has chosen a protocol speaks that or is
// closed, and a protocol of the embedder's own goes to its matcher.
func TestALPNBindsConnections(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	config := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "server.test")},
		NextProtos:   []string{"h2", "http/1.1", "acme-tls/1", "own/1"},
	}
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(routes()), mux.WithLogger(discard), mux.WithTLS(config))
	own := m.Match("own", mux.ALPN("own/1"))
	go func() {
		for {
			c, err := own.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 299 own\r\n\r\n")
			_ = c.Close()
		}
	}()
	s := serve(t, m)
	s.roots = ca.pool
	const request = "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for _, tt := range []struct{ alpn, send, want string }{
		{"http/1.1", request, "HTTP/1.1 200"},
		{"h2", request, ""},
		{"http/1.1", http2.ClientPreface, ""},
		{"acme-tls/1", request, ""},
		{"acme-tls/1", "", ""},
		{"own/1", request, "HTTP/1.1 299"},
	} {
		conn := s.dial(t, tt.alpn)
		send(t, conn, tt.send)
		if got, _ := io.ReadAll(conn); !strings.HasPrefix(string(got), tt.want) || tt.want == "" && len(got) > 0 {
			t.Errorf("ALPN %q, %q: %q, want %q", tt.alpn, tt.send, got, tt.want)
		}
	}
	if got := s.rejected("sniffing", "no_match"); got != 4 {
		t.Errorf("%d rejected", got)
	}
	conn := s.dial(t) // Without ALPN both are spoken.
	c := newH2Client(t, conn, conn)
	c.get(1, "/echo")
	if got := c.header(1)[":status"]; got != "200" {
		t.Errorf("without ALPN: %q", got)
	}
}
