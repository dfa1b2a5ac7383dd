package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// The answers say which server gave them: an EchoResponse in its field
// "transport", an HTTP response in its header servedBy.
const (
	byNative  = "native" // grpc-go on a connection of its own
	byShared  = "shared" // grpc-go below net/http's HTTP/2
	byHandler = "handler"

	servedBy = "X-Served-By"
)

// The service Handled is one that grpc-go does not have behind the mux. It has
// one method, with the messages of the demo's echo service.
const (
	handledService = "muxserve.mixed.v1.Handled"
	handledUnary   = "/" + handledService + "/Unary"
	unknownUnary   = "/muxserve.mixed.v1.Unknown/Unary" // Of no service.
)

// handled is the method's implementation.
func handled(_ context.Context, req *demov1.EchoRequest) (*demov1.EchoResponse, error) {
	return &demov1.EchoResponse{Message: req.GetMessage(), Transport: byHandler}, nil
}

// An implementation serves Handled as an HTTP handler. The function returns the
// handler and what ends it.
type implementation struct {
	name string
	open func() (http.Handler, func(), error)
}

var (
	byConnect  = implementation{"connect-go", openConnect}
	byVanguard = implementation{"vanguard", openVanguard}
	byProxy    = implementation{"ReverseProxy", openProxy}
)

// openConnect is connect-go's handler.
func openConnect() (http.Handler, func(), error) {
	unary := func(ctx context.Context, req *connect.Request[demov1.EchoRequest]) (*connect.Response[demov1.EchoResponse], error) {
		resp, err := handled(ctx, req.Msg)
		return connect.NewResponse(resp), err
	}
	return connect.NewUnaryHandler(handledUnary, unary), func() {}, nil
}

// openVanguard is a transcoder before a handler that speaks Connect's protocol alone.
func openVanguard() (http.Handler, func(), error) {
	schema, err := handledSchema()
	if err != nil {
		return nil, nil, err
	}
	inner, closeInner, err := openConnect()
	if err != nil {
		return nil, nil, err
	}
	transcoder, err := vanguard.NewTranscoder([]*vanguard.Service{
		vanguard.NewServiceWithSchema(schema, inner, vanguard.WithTargetProtocols(vanguard.ProtocolConnect)),
	})
	return transcoder, closeInner, err
}

// handledSchema describes the service.
func handledSchema() (protoreflect.ServiceDescriptor, error) {
	demo := demov1.File_cmd_muxserve_demo_v1_echo_proto
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:       proto.String("mixed.proto"),
		Package:    proto.String("muxserve.mixed.v1"),
		Syntax:     proto.String("proto3"),
		Dependency: []string{demo.Path()},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("Handled"),
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name:       proto.String("Unary"),
				InputType:  proto.String(".muxserve.demo.v1.EchoRequest"),
				OutputType: proto.String(".muxserve.demo.v1.EchoResponse"),
			}},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		return nil, fmt.Errorf("mixed: %w", err)
	}
	return file.Services().ByName("Handled"), nil
}

// openProxy is net/http/httputil's proxy before a grpc-go server.
func openProxy() (http.Handler, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("mixed: %w", err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: handledService,
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				req := new(demov1.EchoRequest)
				if err := decode(req); err != nil {
					return nil, err
				}
				return handled(ctx, req)
			},
		}},
	}, nil)
	go func() { _ = server.Serve(l) }() // It ends with Stop.
	transport := newTransport(nil)
	handler := reverseProxy(transport, &url.URL{Scheme: "http", Host: l.Addr().String()})
	return handler, func() {
		transport.CloseIdleConnections()
		server.Stop()
	}, nil
}

// reverseProxy passes requests on as they are: without X-Forwarded fields, and
// each piece of an answer at once, as streaming calls need it.
func reverseProxy(transport http.RoundTripper, target *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
	}
}

// serveEcho answers with the body of a POST, and the query of anything else.
func serveEcho(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(servedBy, byHandler)
	if r.Method != http.MethodPost {
		_, _ = io.WriteString(w, r.URL.RawQuery)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = w.Write(body)
}
