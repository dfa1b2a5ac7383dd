package browser

import (
	"context"
	"crypto/tls"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// clients are clients of a server: connections of all four protocols with traffic on them.
// They leave when the server tells them to.
type clients struct {
	service string
	period  time.Duration // about the time between two requests of a client
	ctx     context.Context
	group   sync.WaitGroup
}

// newClients returns no clients yet. All end with the test.
func newClients(t *testing.T, service string, period time.Duration) *clients {
	ctx, cancel := context.WithCancel(context.Background())
	c := &clients{service: service, period: period, ctx: ctx}
	t.Cleanup(func() { cancel(); c.group.Wait() })
	return c
}

// load opens so many connections of each protocol.
func load(t *testing.T, service string, each int, period time.Duration) *clients {
	t.Helper()
	c := newClients(t, service, period)
	for range each {
		for _, client := range c.kinds() {
			c.group.Go(func() { client(c.ctx) })
		}
	}
	return c
}

// kinds has a client of each protocol, which lives until the end of its context.
func (c *clients) kinds() []func(context.Context) {
	return []func(context.Context){
		func(ctx context.Context) { c.get(ctx, false) }, func(ctx context.Context) { c.get(ctx, true) }, c.call, c.chat,
	}
}

// waves lets the numbers of clients swell and fall for a time.
func (c *clients) waves(length time.Duration) {
	kinds := c.kinds()
	leave := make([][]context.CancelFunc, len(kinds))
	begin := time.Now()
	for t := time.Duration(0); t < length; t = time.Since(begin) {
		for i, client := range kinds {
			base, swing := []float64{14, 9, 7, 16}[i], []float64{6, 3, 2, 2}[i]
			want := int(math.Round(base + swing*math.Sin(t.Seconds()/[]float64{23, 31, 47, 61}[i]) + t.Seconds()/100))
			for len(leave[i]) < want {
				ctx, cancel := context.WithCancel(c.ctx)
				leave[i] = append(leave[i], cancel)
				c.group.Go(func() { client(ctx) })
			}
			for len(leave[i]) > want {
				leave[i][0]()
				leave[i] = leave[i][1:]
			}
		}
		if rand.N(6) == 0 {
			go c.gibberish()
		}
		time.Sleep(time.Second)
	}
}

// every calls f about once in a period, until it fails.
func (c *clients) every(ctx context.Context, f func() error) {
	for f() == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(c.period/2 + rand.N(c.period)):
		}
	}
}

// get makes requests over HTTP/1.1 or HTTP/2.
func (c *clients) get(ctx context.Context, h2 bool) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	c.every(ctx, func() error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.service+"/echo", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	})
}

// call makes gRPC calls.
func (c *clients) call(ctx context.Context) {
	target, err := url.Parse(c.service)
	if err != nil {
		return
	}
	conn, err := grpc.NewClient(target.Host, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		return
	}
	defer conn.Close()
	c.every(ctx, func() error {
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	})
}

// chat sends messages on a WebSocket, and leaves when the server closes it.
func (c *clients) chat(ctx context.Context) {
	conn, err := dialWebSocket(ctx, c.service, "")
	if err != nil {
		return
	}
	defer conn.CloseNow()
	c.group.Go(func() {
		c.every(ctx, func() error { return conn.Write(ctx, websocket.MessageText, []byte("hello")) })
	})
	for {
		if _, _, err := conn.Read(ctx); err != nil { // Read answers a close frame.
			return
		}
	}
}

// dialWebSocket opens a WebSocket, for which the client names the server as it likes.
func dialWebSocket(ctx context.Context, service, serverName string) (*websocket.Conn, error) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: serverName}}}
	conn, _, err := websocket.Dial(ctx, service+"/ws", &websocket.DialOptions{HTTPClient: client})
	return conn, err
}

// stubborn opens a WebSocket that does not leave when it is told to, until the end of the
// test.
func stubborn(t *testing.T, service, serverName string) {
	t.Helper()
	conn, err := dialWebSocket(t.Context(), service, serverName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
}

// gibberish opens a connection that says nothing that the server knows.
func (c *clients) gibberish() {
	u, err := url.Parse(c.service)
	if err != nil {
		return
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, strings.Repeat("gibberish ", 4)+"\r\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
}
