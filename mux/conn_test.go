package mux_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestConnectionKeepsItsMethods (DESIGN §2 point 13): a connection has sendfile,
// CloseWrite and SyscallConn behind the mux too.
func TestConnectionKeepsItsMethods(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	const size = 1 << 20
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	hijacked := make(chan net.Conn, 1)
	routes := http.NewServeMux()
	routes.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) })
	routes.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
		}
		hijacked <- conn
	})
	inner := listen(t)
	l := &readFromListener{Listener: inner}
	m := mux.New(mux.Configure(noDelay), mux.WithHandler(routes))
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	s := &server{Server: m, addr: inner.Addr().String()}

	c := s.client(t, 1)
	if got := <-get(c, "http://"+s.addr+"/file"); len(got) != size {
		t.Errorf("got %d bytes, want %d", len(got), size)
	}
	// The first 512 bytes go with the head: net/http sniffs the content type from them.
	if got, want := l.sent.Load(), int64(size-512); got != want {
		t.Errorf("%d bytes went by the socket's ReadFrom, want %d", got, want)
	}

	conn := s.dial(t)
	send(t, conn, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
	h := <-hijacked
	defer h.Close()
	if _, err := h.(syscall.Conn).SyscallConn(); err != nil {
		t.Errorf("SyscallConn: %v", err)
	}
	if err := h.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client sees %v", err)
	}
	eventually(t, "state upgraded", func() bool {
		conns := s.Connections()
		return len(conns) > 0 && conns[len(conns)-1].State == "upgraded"
	})
	_ = h.Close()
	c.CloseIdleConnections()
	_ = s.Close()
	<-served
}

// readFromListener counts the bytes that its connections send by ReadFrom.
type readFromListener struct {
	net.Listener
	sent atomic.Int64
}

func (l *readFromListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &readFromConn{conn.(*net.TCPConn), l}, nil
}

type readFromConn struct {
	*net.TCPConn
	l *readFromListener
}

func (c *readFromConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	c.l.sent.Add(n)
	return n, err
}

// proxiedConn reads its peer's address from the first bytes, as a connection with a PROXY
// header does.
type proxiedConn struct {
	net.Conn
	r    *bufio.Reader
	once sync.Once
}

func (c *proxiedConn) RemoteAddr() net.Addr {
	c.once.Do(func() { _, _ = c.r.Peek(1) })
	return c.Conn.RemoteAddr()
}

func (c *proxiedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestRemoteAddrThatBlocks: a RemoteAddr that blocks delays no other connection of the
// port, nor Connections, nor Close.
func TestRemoteAddrThatBlocks(t *testing.T) {
	s := serveOn(t, mux.New(mux.Configure(patient), mux.WithLogger(discard)), wrapListener{listen(t), func(conn net.Conn) net.Conn {
		return &proxiedConn{Conn: conn, r: bufio.NewReader(conn)}
	}})
	s.dial(t)
	if got := s.status(t, "/livez"); got != http.StatusOK {
		t.Errorf("beside a silent connection: %d", got)
	}
	eventually(t, "the silent one is listed without an address", func() bool {
		conns := s.Connections()
		return len(conns) == 1 && conns[0].RemoteAddr == ""
	})
	if err := within(t, "Close", s.closing()); err != nil {
		t.Errorf("Close: %v", err)
	}
	s.noneLeft(t)
}

// bufferedConn looks like a *net.TCPConn, and has buffered bytes of its own.
type bufferedConn struct {
	*net.TCPConn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestConnThatBuffers: native gRPC calls the Read method of a connection with a buffer,
// and does not read its socket.
func TestConnThatBuffers(t *testing.T) {
	const buffer = 64 << 10
	s := serveOn(t, mux.New(mux.Configure(noDelay), mux.WithLogger(discard),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, testService{}) })),
		wrapListener{listen(t), func(conn net.Conn) net.Conn {
			return &bufferedConn{conn.(*net.TCPConn), bufio.NewReaderSize(conn, buffer)}
		}})
	// More than the recogniser reads and less than bufferedConn does: the rest stays in
	// its buffer.
	conn := s.dial(t)
	send(t, conn, firstCall(t, "grpc-go/1.85.0", buffer/2))
	if err := answered(conn); err != nil {
		t.Errorf("a call in the first bytes: %v", err)
	}
	c := testpb.NewTestServiceClient(s.grpcClient(t))
	for range 20 {
		body := strings.Repeat("x", buffer-5000)
		resp, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: payload(body)})
		if err != nil || string(resp.GetPayload().GetBody()) != body {
			t.Fatalf("%d bytes, %v", len(resp.GetPayload().GetBody()), err)
		}
	}
	if got := s.Stats().Pools["grpc"].Accepted; got != 2 {
		t.Errorf("%d native connections, want 2", got)
	}
}

// onceConn panics at its first read where the first of its kind does.
type onceConn struct {
	net.Conn
	first *atomic.Bool
}

func (c *onceConn) Read(p []byte) (int, error) {
	if c.first.CompareAndSwap(true, false) {
		panic("the first")
	}
	return c.Conn.Read(p)
}

// TestPanicsBelowHTTP: a panic in a function of the embedder's tls.Config, or of its
// listener's connections, ends one connection and is logged, as behind net/http.
func TestPanicsBelowHTTP(t *testing.T) {
	for name, set := range map[string]func(config *tls.Config, panics func()){
		"GetConfigForClient": func(config *tls.Config, panics func()) {
			own := config.Clone()
			config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panics(); return own, nil }
		},
		"GetCertificate": func(config *tls.Config, panics func()) {
			certificate := config.Certificates[0]
			config.Certificates = nil
			config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panics(); return &certificate, nil }
		},
		"VerifyConnection": func(config *tls.Config, panics func()) {
			config.VerifyConnection = func(tls.ConnectionState) error { panics(); return nil }
		},
		"Read": nil,
	} {
		t.Run(name, func(t *testing.T) {
			var first atomic.Bool
			first.Store(true)
			var lines syncBuffer
			options := []mux.Option{mux.Configure(noDelay), mux.WithLogger(recordingLog(&lines)), mux.WithHandler(routes())}
			if set != nil {
				config := selfMade(t)
				set(config, func() {
					if first.CompareAndSwap(true, false) {
						panic("the first")
					}
				})
				options = append(options, mux.WithTLS(config))
			}
			s := serveOn(t, mux.New(options...), wrapListener{listen(t), func(conn net.Conn) net.Conn {
				if set == nil {
					return &onceConn{conn, &first}
				}
				return conn
			}})
			get := func() error {
				conn := s.dial(t)
				defer conn.Close()
				if set != nil {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				}
				if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					return err
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					return err
				}
				return resp.Body.Close()
			}
			if err := get(); err == nil {
				t.Error("the first client was served")
			}
			if err := get(); err != nil {
				t.Errorf("the next client: %v", err)
			}
			eventually(t, "it is in the log", func() bool { return strings.Contains(lines.String(), "the first") })
			if text := lines.String(); strings.Count(text, "panic serving 127.0.0.1:") != 1 {
				t.Errorf("the log has %s", text)
			}
		})
	}
}
