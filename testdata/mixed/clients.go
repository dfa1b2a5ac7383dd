package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// A client makes calls and requests on connections of its own.
type client struct {
	// unary and stream make a call; stream asks for streamed answers.
	unary  func(ctx context.Context, method string, req *demov1.EchoRequest) (*demov1.EchoResponse, error)
	stream func(ctx context.Context, req *demov1.EchoRequest) ([]*demov1.EchoResponse, error)
	// http makes requests; nil for a client of gRPC alone.
	http *http.Client
	base string // The URL of the requests, without a path.

	close func()
}

// newTransport is net/http's transport for HTTP/2 alone, over TLS unless c is nil.
func newTransport(c *tls.Config) *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: c}
	t.Protocols.SetHTTP2(c != nil)
	t.Protocols.SetUnencryptedHTTP2(c == nil)
	return t
}

func baseURL(addr string, c *tls.Config) string {
	if c != nil {
		return "https://" + addr
	}
	return "http://" + addr
}

// streamed is how many answers a streaming call has.
const streamed = 3

// newConnect is connect-go in gRPC's protocol, on the connection of an http.Client
// that makes the requests, too.
func newConnect(addr string, c *tls.Config) (*client, error) {
	transport := newTransport(c)
	h := &http.Client{Transport: transport}
	base := baseURL(addr, c)
	newCaller := func(method string) *connect.Client[demov1.EchoRequest, demov1.EchoResponse] {
		return connect.NewClient[demov1.EchoRequest, demov1.EchoResponse](h, base+method, connect.WithGRPC())
	}
	callers := map[string]*connect.Client[demov1.EchoRequest, demov1.EchoResponse]{
		demov1.Echo_Unary_FullMethodName: newCaller(demov1.Echo_Unary_FullMethodName),
		handledUnary:                     newCaller(handledUnary),
		unknownUnary:                     newCaller(unknownUnary),
	}
	streams := newCaller(demov1.Echo_ServerStream_FullMethodName)
	return &client{
		unary: func(ctx context.Context, method string, req *demov1.EchoRequest) (*demov1.EchoResponse, error) {
			resp, err := callers[method].CallUnary(ctx, connect.NewRequest(req))
			if err != nil {
				return nil, err
			}
			return resp.Msg, nil
		},
		stream: func(ctx context.Context, req *demov1.EchoRequest) ([]*demov1.EchoResponse, error) {
			s, err := streams.CallServerStream(ctx, connect.NewRequest(req))
			if err != nil {
				return nil, err
			}
			defer s.Close()
			var all []*demov1.EchoResponse
			for s.Receive() {
				all = append(all, s.Msg())
			}
			return all, s.Err()
		},
		http: h, base: base, close: transport.CloseIdleConnections,
	}, nil
}

// newGRPC is grpc-go.
func newGRPC(addr string, c *tls.Config) (*client, error) {
	creds := insecure.NewCredentials()
	if c != nil {
		creds = credentials.NewTLS(c)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, err
	}
	return &client{
		unary: func(ctx context.Context, method string, req *demov1.EchoRequest) (*demov1.EchoResponse, error) {
			resp := new(demov1.EchoResponse)
			return resp, conn.Invoke(ctx, method, req, resp)
		},
		stream: func(ctx context.Context, req *demov1.EchoRequest) ([]*demov1.EchoResponse, error) {
			s, err := demov1.NewEchoClient(conn).ServerStream(ctx, req)
			if err != nil {
				return nil, err
			}
			var all []*demov1.EchoResponse
			for {
				resp, err := s.Recv()
				if errors.Is(err, io.EOF) {
					return all, nil
				}
				if err != nil {
					return all, err
				}
				all = append(all, resp)
			}
		},
		close: func() { _ = conn.Close() },
	}, nil
}

// newPair is grpc-go for the calls and net/http for the requests, each on its own
// connection: a proxy behind them puts both on one.
func newPair(addr string, c *tls.Config) (*client, error) {
	calls, err := newGRPC(addr, c)
	if err != nil {
		return nil, err
	}
	transport := newTransport(c)
	calls.http, calls.base = &http.Client{Transport: transport}, baseURL(addr, c)
	closeCalls := calls.close
	calls.close = func() {
		closeCalls()
		transport.CloseIdleConnections()
	}
	return calls, nil
}

// op is one call or request.
type op int

const (
	opUnary op = iota // Served by grpc-go.
	opStream
	opHandled // A call that the handler serves.
	opUnknown // A call that has no server. The handler answers 404 early.
	opGet
	opPost
	ops
)

// rpcs are the ops of a client of gRPC alone.
const rpcs = opUnknown + 1

// postBytes is more than a frame holds.
const postBytes = 20_000

// do makes the call or request, which is number n, and returns which server
// answered. The error says what is wrong with the answer.
func (c *client) do(ctx context.Context, o op, n int) (by string, err error) {
	message := fmt.Sprintf("n=%d", n)
	switch o {
	case opUnary, opHandled:
		method := demov1.Echo_Unary_FullMethodName
		if o == opHandled {
			method = handledUnary
		}
		resp, err := c.unary(ctx, method, &demov1.EchoRequest{Message: message})
		if err != nil {
			return "", fmt.Errorf("%s: %w", method, err)
		}
		if resp.GetMessage() != message {
			return "", fmt.Errorf("%s: answered %v, want %s", method, resp, message)
		}
		return resp.GetTransport(), nil
	case opUnknown:
		resp, err := c.unary(ctx, unknownUnary, &demov1.EchoRequest{Message: message})
		if err == io.EOF { //nolint:errorlint // grpc-go 1.85 has no status where the answer comes before what it sends once more.
			return byHandler, nil
		}
		if status.Code(err) != codes.Unimplemented && connect.CodeOf(err) != connect.CodeUnimplemented {
			return "", fmt.Errorf("%s: answered %v, %w; want UNIMPLEMENTED", unknownUnary, resp, err)
		}
		return byHandler, nil
	case opStream:
		all, err := c.stream(ctx, &demov1.EchoRequest{Message: message, Repeat: streamed})
		if err != nil {
			return "", fmt.Errorf("ServerStream: %w", err)
		}
		if len(all) != streamed || all[streamed-1].GetMessage() != message {
			return "", fmt.Errorf("ServerStream: answered %v, want %d of %s", all, streamed, message)
		}
		return all[0].GetTransport(), nil
	case opGet:
		return c.request(ctx, http.MethodGet, message, "", message)
	default:
		body := message + strings.Repeat(".", postBytes)
		return c.request(ctx, http.MethodPost, "", body, body)
	}
}

func (c *client) request(ctx context.Context, method, query, body, want string) (by string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/echo?"+query, bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	if resp.StatusCode != http.StatusOK || string(answer) != want {
		return "", fmt.Errorf("%s: status %d with %.80q, want 200 with %.80q", method, resp.StatusCode, answer, want)
	}
	return resp.Header.Get(servedBy), nil
}

// unprocessed reports whether grpc-go's error says that no server has taken up the
// call: it was above the stream that GOAWAY named, or was refused.
func unprocessed(err error) bool {
	return status.Code(err) == codes.Unavailable &&
		(strings.HasSuffix(err.Error(), "the connection is draining") || strings.HasSuffix(err.Error(), "REFUSED_STREAM"))
}

// fits reports whether an op may be answered by that server.
func (o op) fits(by string) bool {
	if o == opUnary || o == opStream {
		return by == byNative || by == byShared
	}
	return by == byHandler
}

func certPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("mixed: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool, nil
}
