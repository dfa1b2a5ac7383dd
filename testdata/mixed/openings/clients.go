package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/testdata/mixed/proxies"
)

// oneCall is the task for the clients of ../clients in node and Python.
const oneCall = `{"address":"ADDRESS","url":"http://ADDRESS/echo","ca":"","connections":1,"each":1,"pause_ms":0,"transport":"","form":"h2c"}`

// httpx makes one request by Python's httpx.
const httpx = `import httpx; httpx.Client(http1=False, http2=True).get("http://ADDRESS/echo").raise_for_status()`

// nodeCall is one call by node's own HTTP/2 client, with the header fields of
// grpc-go, as a proxy on top of it sends them on.
const nodeCall = `const session = require('node:http2').connect('http://ADDRESS');
const stream = session.request({ ':method': 'POST', ':path': '/grpc.health.v1.Health/Check',
  'content-type': 'application/grpc', 'user-agent': 'grpc-go/1.85.0', te: 'trailers' });
stream.end(Buffer.alloc(5));
stream.resume().on('end', () => session.close());`

func clients() []client {
	return []client{
		{"grpc-go", grpcGo()},
		{"grpc-go-windows", grpcGo(grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<21))},
		{"grpc-go-header-list", grpcGo(grpc.WithMaxHeaderListSize(1 << 16))},
		{"grpc-go-user-agent", grpcGo(grpc.WithUserAgent("shop/2.1"))},
		{"grpcurl", command("grpcurl", "-plaintext", "ADDRESS", "grpc.health.v1.Health/Check")},
		{"grpc-js", command("node", "../clients/node/grpc.mjs", oneCall)},
		{"grpc-core", command("/usr/bin/python3", "../clients/python/ccore.py", oneCall)},

		{"connect-go", connectGo},
		{"haproxy-grpc-go", through(proxies.HAProxy)},
		{"nginx-grpc-go", through(proxies.Nginx)},
		{"nghttpx-grpc-go", through(proxies.Nghttpx)},
		{"reverseproxy-grpc-go", reverseProxy},

		{"http-transport", httpTransport},
		{"node-http2", command("node", "../clients/node/http2.mjs", oneCall)},
		{"node-http2-grpc-go", command("node", "-e", nodeCall)},
		{"undici", command("node", "../clients/node/undici.mjs", oneCall)},
		{"curl", command("curl", "-sSf", "--noproxy", "*", "--http2-prior-knowledge", "http://ADDRESS/echo")},
		{"nghttp", command("nghttp", "-n", "http://ADDRESS/echo")},
		{"h2load", command("h2load", "-n1", "-c1", "http://ADDRESS/echo")},
		{"httpx", command("/usr/bin/python3", "-c", httpx)},
	}
}

// grpcGo is one call by grpc-go.
func grpcGo(options ...grpc.DialOption) func(context.Context, string) error {
	return func(ctx context.Context, addr string) error {
		options := append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
		conn, err := grpc.NewClient(addr, options...)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = demov1.NewEchoClient(conn).Unary(ctx, &demov1.EchoRequest{Message: "hello"})
		return err
	}
}

// h2c is net/http's transport for HTTP/2 in plaintext.
func h2c() *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// connectGo is one call by connect-go in gRPC's protocol.
func connectGo(ctx context.Context, addr string) error {
	transport := h2c()
	defer transport.CloseIdleConnections()
	echo := connect.NewClient[demov1.EchoRequest, demov1.EchoResponse](
		&http.Client{Transport: transport}, "http://"+addr+demov1.Echo_Unary_FullMethodName, connect.WithGRPC())
	_, err := echo.CallUnary(ctx, connect.NewRequest(&demov1.EchoRequest{Message: "hello"}))
	return err
}

// httpTransport is a GET by net/http.
func httpTransport(ctx context.Context, addr string) error {
	transport := h2c()
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/echo", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d, %v", resp.StatusCode, err)
	}
	return nil
}

// through is one call by grpc-go that a proxy passes on.
func through(k proxies.Kind) func(context.Context, string) error {
	return func(ctx context.Context, addr string) error {
		p, err := proxies.Start(ctx, k, proxies.Backend{Addr: addr})
		if err != nil {
			return err
		}
		defer p.Stop()
		return grpcGo()(ctx, p.Addr)
	}
}

// reverseProxy is one call by grpc-go that net/http/httputil passes on.
func reverseProxy(ctx context.Context, addr string) error {
	transport := h2c()
	defer transport.CloseIdleConnections()
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: addr}) },
	})
	front.Config.Protocols = new(http.Protocols)
	front.Config.Protocols.SetUnencryptedHTTP2(true)
	front.Start()
	defer front.Close()
	return grpcGo()(ctx, front.Listener.Addr().String())
}
