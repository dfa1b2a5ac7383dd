package mux_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/mux"
)

func TestHTTP(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		for version, want := range map[int]string{1: "http1", 2: "http2"} {
			for _, method := range []string{"GET", "POST", "PATCH", "PROPFIND", "QUERY", "MY-METHOD"} {
				req, err := http.NewRequestWithContext(t.Context(), method, s.scheme()+"://"+s.addr+"/echo", strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := s.client(t, version).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				got := []string{resp.Header.Get("X-Method"), resp.Header.Get("X-Protocol"), string(body)}
				if diff := cmp.Diff([]string{method, want, "hello"}, got); diff != "" {
					t.Errorf("HTTP/%d %s (-want +got):\n%s", version, method, diff)
				}
				if hasTLS := resp.Header.Get("X-TLS") != ""; hasTLS != (s.roots != nil) {
					t.Errorf("HTTP/%d: r.TLS is %q", version, resp.Header.Get("X-TLS"))
				}
			}
		}
	})
}

func payload(s string) *testpb.Payload { return &testpb.Payload{Body: []byte(s)} }

func TestGRPC(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		ctx := t.Context()
		c := testpb.NewTestServiceClient(s.grpcClient(t))
		var p peer.Peer
		resp, err := c.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload("one")}, grpc.Peer(&p))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(resp.GetPayload().GetBody()) + " " + resp.GetUsername(); got != "one grpc" {
			t.Errorf("unary call: %q", got)
		}
		if _, isTLS := p.AuthInfo.(credentials.TLSInfo); isTLS != (s.roots != nil) {
			t.Errorf("AuthInfo is a %T", p.AuthInfo)
		}
		streams(ctx, t, c)

		_, err = c.UnimplementedCall(ctx, &testpb.Empty{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("unknown method: %v", err)
		}
	})
}

// streams calls all three streaming kinds.
func streams(ctx context.Context, t *testing.T, c testpb.TestServiceClient) {
	t.Helper()
	out, err := c.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
		Payload:            payload("out"),
		ResponseParameters: make([]*testpb.ResponseParameters, 10),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		_, err := out.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 10 {
		t.Errorf("server stream: %d messages, want 10", n)
	}

	in, err := c.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := in.Send(&testpb.StreamingInputCallRequest{Payload: payload("in")}); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := in.CloseAndRecv()
	if err != nil || sum.GetAggregatedPayloadSize() != 20 {
		t.Errorf("client stream: %v, %v", sum, err)
	}

	both, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		want := fmt.Sprint("message ", i)
		if err := both.Send(&testpb.StreamingOutputCallRequest{Payload: payload(want)}); err != nil {
			t.Fatal(err)
		}
		got, err := both.Recv()
		if err != nil || string(got.GetPayload().GetBody()) != want {
			t.Fatalf("duplex stream: %v, %v; want %q", got, err, want)
		}
	}
	if err := both.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Recv(); err != io.EOF {
		t.Errorf("duplex stream ended with %v", err)
	}
}

func TestWebSocket(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		c := s.webSocket(t)
		c.SetReadLimit(-1)
		for _, m := range []struct {
			typ websocket.MessageType
			msg []byte
		}{
			{websocket.MessageText, []byte("text")},
			{websocket.MessageBinary, []byte{0, 1, 2}},
		} {
			if err := c.Write(t.Context(), m.typ, m.msg); err != nil {
				t.Fatal(err)
			}
			typ, msg, err := c.Read(t.Context())
			if err != nil || typ != m.typ || !bytes.Equal(msg, m.msg) {
				t.Fatalf("echo of %v %q: %v %q, %v", m.typ, m.msg, typ, msg, err)
			}
		}
		fragmented(t, c)

		ctx := c.CloseRead(t.Context())
		if err := c.Ping(ctx); err != nil {
			t.Errorf("ping: %v", err)
		}
		if got := s.Stats().Pools["websocket"].Active; got != 1 {
			t.Errorf("%d connections in the WebSocket pool, want 1", got)
		}
	}, mux.Configure(func(c *mux.Config) { c.WebSocket.ReadLimit = 2 << 20 }))
}

// fragmented sends 1 MiB in many frames.
func fragmented(t *testing.T, c *websocket.Conn) {
	t.Helper()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	w, err := c.Writer(t.Context(), websocket.MessageBinary)
	if err != nil {
		t.Fatal(err)
	}
	for part := range slicesOf(want, 10_000) {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, got, err := c.Read(t.Context())
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("1 MiB: got %d bytes, %v", len(got), err)
	}
}

func slicesOf(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

func (s *server) webSocket(t *testing.T) *websocket.Conn {
	t.Helper()
	c, resp, err := websocket.Dial(t.Context(), strings.Replace(s.scheme(), "http", "ws", 1)+"://"+s.addr+"/ws",
		&websocket.DialOptions{HTTPClient: s.client(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// grpcOverHTTP makes a gRPC call as a client of a proxy would, on a shared connection.
func grpcOverHTTP(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/grpc.testing.TestService/UnaryCall", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc+proto")
	req.Header.Set("TE", "trailers")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Trailer.Get("Grpc-Status")
}

func TestMixedConnection(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		for _, first := range []string{"GET", "gRPC"} {
			c := s.client(t, 2)
			url := s.scheme() + "://" + s.addr
			before := s.Stats().Pools["http2"].Accepted
			for i := range 6 {
				if (i%2 == 0) == (first == "gRPC") {
					if got := grpcOverHTTP(t, c, url); got != "0" {
						t.Fatalf("%s first: grpc-status %q", first, got)
					}
					continue
				}
				resp, err := c.Get(url + "/echo")
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Fatalf("%s first: GET: %s", first, resp.Status)
				}
			}
			if got := s.Stats().Pools["http2"].Accepted - before; got != 1 {
				t.Errorf("%s first: %d connections, want 1", first, got)
			}
		}
	})
}

func TestByteByByte(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		const request = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
		for i := range len(request) - 1 {
			if _, err := conn.Write([]byte{request[i]}); err != nil {
				t.Fatal(err)
			}
		}
		resp := roundTrip(t, conn, r, request[len(request)-1:])
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %s", resp.Status)
		}
	})
}

// TestSilentAndGarbage: a connection that matches no protocol is closed and counted by
// its reason.
func TestSilentAndGarbage(t *testing.T) {
	t.Parallel()
	bothForms(t, func(t *testing.T, s *server) {
		for reason, bytes := range map[string]string{
			"silent":        "",
			"no_match":      "\x00\x01\x02 garbage",
			"sniff_timeout": "GET /half",
		} {
			conn := s.dial(t)
			send(t, conn, bytes)
			if rest, err := io.ReadAll(conn); len(rest) > 0 {
				t.Errorf("%s: got %q, %v; want the end", reason, rest, err)
			}
			eventually(t, "counted as "+reason, func() bool { return s.Stats().Rejected["sniffing"][reason] == 1 })
		}
	}, quickSniff(200*time.Millisecond))
}

// TestManyConnections: 500 h2c clients of each kind are all served: clients that send
// their request at once, and clients that wait for SETTINGS first, as gRPC's do.
func TestManyConnections(t *testing.T) {
	bothForms(t, func(t *testing.T, s *server) {
		const connections, workers = 500, 20
		calls := map[string]func() error{
			"http2": func() error {
				c := s.client(t, 2)
				defer c.CloseIdleConnections()
				resp, err := c.Get(s.scheme() + "://" + s.addr + "/echo")
				if err != nil {
					return err
				}
				return resp.Body.Close()
			},
			"grpc": func() error {
				cc := s.grpcClient(t)
				defer cc.Close()
				_, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), &testpb.SimpleRequest{})
				return err
			},
		}
		for name, call := range calls {
			var wg sync.WaitGroup
			errs := make(chan error, connections)
			for range workers {
				wg.Go(func() {
					for range connections / workers {
						errs <- call()
					}
				})
			}
			wg.Wait()
			for range connections {
				if err := <-errs; err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if got := s.Stats().Pools[name].Accepted; got != connections {
				t.Errorf("pool %s took %d connections, want %d", name, got, connections)
			}
		}
	})
}

// TestHealthPerService: the gRPC health service knows each service by its name.
func TestHealthPerService(t *testing.T) {
	s := start(t, false)
	health := healthpb.NewHealthClient(s.grpcClient(t))
	for _, name := range []string{"", testpb.TestService_ServiceDesc.ServiceName} {
		h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", name, h.GetStatus(), err)
		}
	}
}
