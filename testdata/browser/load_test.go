package browser

import (
	"context"
	"crypto/tls"
	"io"
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
	ctx     context.Context
	group   sync.WaitGroup
}

// load opens so many connections of each protocol, each with about a request in a period,
// until the end of the test.
func load(t *testing.T, service string, each int, period time.Duration) *clients {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &clients{service: service, ctx: ctx}
	t.Cleanup(func() { cancel(); c.group.Wait() })
	for range each {
		c.every(period, c.http(false))
		c.every(period, c.http(true))
		c.every(period, c.call())
		c.group.Go(func() { c.chat(period) })
	}
	return c
}

// every calls f about once in a period, until it fails.
func (c *clients) every(period time.Duration, f func() error) {
	c.group.Go(func() {
		for f() == nil {
			select {
			case <-c.ctx.Done():
				return
			case <-time.After(period/2 + rand.N(period)):
			}
		}
	})
}

// http returns a function that makes a request on a connection of its own.
func (c *clients) http(h2 bool) func() error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	client := &http.Client{Transport: &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	return func() error {
		r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, c.service+"/echo", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
}

// chat sends messages on a WebSocket, and leaves when the server closes it.
func (c *clients) chat(period time.Duration) {
	conn, err := dialWebSocket(c.ctx, c.service, "")
	if err != nil {
		return
	}
	defer conn.CloseNow()
	c.every(period, func() error { return conn.Write(c.ctx, websocket.MessageText, []byte("hello")) })
	for {
		if _, _, err := conn.Read(c.ctx); err != nil { // A close frame is answered below this.
			return
		}
	}
}

// call returns a function that makes a gRPC call on a connection of its own.
func (c *clients) call() func() error {
	target, _ := url.Parse(c.service)
	conn, err := grpc.NewClient(target.Host, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		return func() error { return err }
	}
	context.AfterFunc(c.ctx, func() { conn.Close() })
	return func() error {
		_, err := healthpb.NewHealthClient(conn).Check(c.ctx, &healthpb.HealthCheckRequest{})
		return err
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
	u, _ := url.Parse(c.service)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, strings.Repeat("gibberish ", 4)+"\r\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
}
