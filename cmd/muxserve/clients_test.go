package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"connectrpc.com/connect"
	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/pool"
)

// anyCertificate accepts the self-signed certificates of tests.
func anyCertificate() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true}
}

// httpClient returns a client that speaks one version of HTTP and follows no redirects.
func httpClient(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{Protocols: &protocols, TLSClientConfig: anyCertificate()}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// answer is the answer of /echo.
type answer struct {
	Method    string        `json:"method"`
	Path      string        `json:"path"`
	Proto     string        `json:"proto"`
	Protocol  string        `json:"protocol"`
	TLS       *pool.TLSInfo `json:"tls"`
	ConnID    uint64        `json:"conn_id"`
	BodyBytes int64         `json:"body_bytes"`
}

// fetch makes a request and returns its status and body.
func fetch(ctx context.Context, c *http.Client, method string, u *url.URL, body io.Reader) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, data, err
}

// fetchEcho makes a request to /echo.
func fetchEcho(ctx context.Context, c *http.Client, u *url.URL, body io.Reader) (answer, error) {
	var a answer
	status, data, err := fetch(ctx, c, http.MethodPost, u, body)
	if err != nil {
		return a, err
	}
	if status != http.StatusOK {
		return a, fmt.Errorf("%s answered %d %s", u, status, data)
	}
	return a, json.Unmarshal(data, &a)
}

// adminStatus returns the status of an admin page, 0 for no answer.
func (p *running) adminStatus(t *testing.T, c *http.Client, path string) int {
	t.Helper()
	status, _, err := fetch(t.Context(), c, http.MethodGet, p.admin.JoinPath(path), nil)
	if err != nil {
		return 0
	}
	return status
}

// connections returns the live connections of the process that are in a state.
func (p *running) connections(t *testing.T, c *http.Client, state string) int {
	t.Helper()
	_, data, err := fetch(t.Context(), c, http.MethodGet, p.admin.JoinPath("connections"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Connections []pool.Info }
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, conn := range list.Connections {
		if conn.State == state {
			n++
		}
	}
	return n
}

// dialGRPC returns a client connection to the service port.
func (p *running) dialGRPC(t *testing.T) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if p.service.Scheme == "https" {
		creds = credentials.NewTLS(anyCertificate())
	}
	conn, err := grpc.NewClient(p.service.Host, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// webClient returns a client of one call of the echo service in gRPC-Web.
func (p *running) webClient(t *testing.T, http2 bool, procedure string) *connect.Client[demov1.EchoRequest, demov1.EchoResponse] {
	t.Helper()
	return connect.NewClient[demov1.EchoRequest, demov1.EchoResponse](httpClient(t, http2), p.service.String()+procedure, connect.WithGRPCWeb())
}

// dialWebSocket opens a WebSocket on /ws.
func (p *running) dialWebSocket(t *testing.T) *websocket.Conn {
	t.Helper()
	u := p.service.JoinPath("ws")
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	c, _, err := websocket.Dial(t.Context(), u.String(), &websocket.DialOptions{HTTPClient: httpClient(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// echoMessage sends a message and expects it back.
func echoMessage(ctx context.Context, c *websocket.Conn, kind websocket.MessageType, data []byte) error {
	if err := c.Write(ctx, kind, data); err != nil {
		return err
	}
	gotKind, got, err := c.Read(ctx)
	if err != nil {
		return err
	}
	if gotKind != kind || string(got) != string(data) {
		return errors.New("the message came back changed")
	}
	return nil
}
