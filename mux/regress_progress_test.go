package mux_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

type endlessZeros struct{}

func (endlessZeros) Read(p []byte) (int, error) { return len(p), nil }

// TestSteadyHTTP2Download: a download by io.Copy, which a client takes at 1 MB/s
// without a pause, must outlive the progress timeout.
func TestSteadyHTTP2Download(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	outcomes := make(chan error, 1)
	s := start(t, false, impatient(protocols.ProgressConfig{ProgressTimeout: 400 * time.Millisecond}),
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.Copy(w, io.LimitReader(endlessZeros{}, size))
			outcomes <- err
		})))
	conn := s.dial(t)
	c := newH2Client(t, conn, conn)
	// Windows that hold whole frames: otherwise this client's updates keep breaking them into ever smaller ones.
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

// TestSlowHTTP2Window: a client that takes a KiB every 20 ms, which moves all the time, is not one that has stopped.
func TestSlowHTTP2Window(t *testing.T) {
	t.Parallel()
	outcomes := make(chan error, 1)
	// A frame of 16 KiB, which is what the server sees move, takes 320 ms; four of them take longer than the timeout.
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

// TestUnreadBody: a body that the handler does not read, and that never comes, must
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

// TestHijackedQuiet: a connection that a handler has taken over, and serves before it returns as a proxy
// of upgrades does, is no upload.
func TestHijackedQuiet(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	})
	for name, request := range map[string]string{
		"echo":                    "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
		"CONNECT":                 "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"WebSocket as the second": "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + handshake,
		"WebSocket as the first":  handshake,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, false, mux.WithHandler(handler), impatient(protocols.ProgressConfig{ProgressTimeout: 150 * time.Millisecond}))
			conn := s.dial(t)
			r := bufio.NewReader(conn)
			resp := roundTrip(t, conn, r, request)
			if resp.StatusCode == http.StatusOK {
				_, _ = io.Copy(io.Discard, resp.Body)
				if _, err := http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(600 * time.Millisecond)
			send(t, conn, "still here")
			b := make([]byte, 10)
			if _, err := io.ReadFull(r, b); err != nil {
				t.Errorf("after a silence: %v; closed %v", err, s.Stats().Closed)
			}
		})
	}
}

// TestSlowSharedCall: a unary call on the shared transport whose message comes slowly is
// no response that the client does not take.
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
