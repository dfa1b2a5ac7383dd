package admin

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// served is made once, because its metrics do not change.
var served struct {
	once     sync.Once
	registry *prometheus.Registry
}

// servedRegistry returns the metrics of a server after connections of all protocols and
// of an unknown one, and after a drain that has cut a connection.
func servedRegistry(t *testing.T) *prometheus.Registry {
	t.Helper()
	served.once.Do(func() { served.registry = serveAll(t) })
	if served.registry == nil {
		t.Fatal("the server could not be used")
	}
	return served.registry
}

func serveAll(t *testing.T) *prometheus.Registry {
	t.Helper()
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Listeners[0].TLS.Mode = listeners.ModeSelfSigned
			c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout = 0, 0, time.Second
		}),
		mux.WithHandler(demo.Routes(demo.Files{})),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	defer func() { <-ended }()
	defer s.Close()

	addr := s.Addrs()[0].String()
	visitHTTP(t, addr)
	visitGRPC(t, addr)
	visitStrangely(t, addr)
	client, transport := httpsClient(false)
	defer transport.CloseIdleConnections()
	ws, _, err := websocket.Dial(t.Context(), "wss://"+addr+"/ws", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	_ = s.Shutdown(t.Context()) // It says that the WebSocket was cut.
	return newRegistry(s)
}

// anyCertificate accepts the server's self-signed certificate.
func anyCertificate() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

func httpsClient(http2 bool) (*http.Client, *http.Transport) {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{Protocols: &protocols, TLSClientConfig: anyCertificate()}
	return &http.Client{Transport: transport}, transport
}

func visitHTTP(t *testing.T, addr string) {
	t.Helper()
	for _, http2 := range []bool{false, true} {
		client, transport := httpsClient(http2)
		resp, err := client.Get("https://" + addr + "/echo")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		transport.CloseIdleConnections()
	}
}

func visitGRPC(t *testing.T, addr string) {
	t.Helper()
	calls, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(anyCertificate())))
	if err != nil {
		t.Fatal(err)
	}
	defer calls.Close()
	if _, err := healthpb.NewHealthClient(calls).Check(t.Context(), new(healthpb.HealthCheckRequest)); err != nil {
		t.Fatal(err)
	}
}

// visitStrangely connects with an unknown protocol.
func visitStrangely(t *testing.T, addr string) {
	t.Helper()
	stranger, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	fmt.Fprint(stranger, "this is no TLS record\r\n")
	_, _ = io.Copy(io.Discard, stranger)
}
