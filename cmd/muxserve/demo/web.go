package demo

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/grpc/status"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/protocols"
)

// maxCallBytes bounds the message of a call, as grpc-go does unless it is told otherwise.
const maxCallBytes = 4 << 20

// handleWebCalls serves the calls of the echo service that a browser can make, in gRPC-Web
// and in Connect. gRPC itself is grpc-go's on every port that serves it, and where the
// operator has turned it off it is off here, too.
func handleWebCalls(routes *http.ServeMux) {
	limit := connect.WithReadMaxBytes(maxCallBytes)
	for path, handler := range map[string]http.Handler{
		demov1.Echo_Unary_FullMethodName:        connect.NewUnaryHandlerSimple(demov1.Echo_Unary_FullMethodName, webUnary, limit),
		demov1.Echo_ServerStream_FullMethodName: connect.NewServerStreamHandlerSimple(demov1.Echo_ServerStream_FullMethodName, webServerStream, limit),
	} {
		routes.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if protocols.IsGRPCContentType(r.Header.Get("Content-Type")) {
				http.NotFound(w, r)
				return
			}
			handler.ServeHTTP(w, r)
		})
	}
}

func webUnary(ctx context.Context, req *demov1.EchoRequest) (*demov1.EchoResponse, error) {
	resp, err := echoService{}.Unary(ctx, req)
	if err != nil {
		return nil, webError(err)
	}
	return byWeb(resp), nil
}

func webServerStream(ctx context.Context, req *demov1.EchoRequest, stream *connect.ServerStream[demov1.EchoResponse]) error {
	_, err := answer(ctx, req, 0, func(resp *demov1.EchoResponse) error { return stream.Send(byWeb(resp)) })
	return webError(err)
}

// byWeb names the server of a response.
func byWeb(resp *demov1.EchoResponse) *demov1.EchoResponse {
	resp.Transport = "web"
	return resp
}

// webError returns a status of grpc-go as connect's; other errors as they are. The codes
// are the same numbers.
func webError(err error) error {
	if s, ok := status.FromError(err); ok && err != nil {
		return connect.NewError(connect.Code(s.Code()), errors.New(s.Message()))
	}
	return err
}
