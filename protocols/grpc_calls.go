package protocols

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"math"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // The codec.
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// GRPCCalls is told of the calls that interceptors do not see as their clients do. A
// stats.Handler would see all of them, at 17 allocations more for each call. Nil functions
// are not called.
type GRPCCalls struct {
	// Unary stands around each unary call, outside of all interceptors. It calls the call's
	// Serve, once.
	Unary func(ctx context.Context, method string, call *UnaryCall)
	// Interceptors are options for both servers, outside of all others. Shared are some for
	// what net/http serves, inside of those.
	Interceptors, Shared []grpc.ServerOption
	// Answered is called for a call on a connection of the native server that grpc-go answers
	// with code before it looks for a handler. It must not block.
	Answered func(ctx context.Context, method string, code codes.Code)
	// SizeOf returns how long an answer is in protobuf, without compression; 0 if it is none.
	SizeOf func(reply any) int
	// WindowsOf returns the connection of a call that net/http serves, by its context; nil
	// where it is not known.
	WindowsOf func(ctx context.Context) StreamWindows
	// AddrOf returns the address of the client of such a call, of the type that the
	// connection's RemoteAddr has; nil where it is not known.
	AddrOf func(ctx context.Context) net.Addr
}

// around returns the service with Unary around its unary calls.
func (s *GRPCServers) around(desc *grpc.ServiceDesc, calls GRPCCalls) *grpc.ServiceDesc {
	if calls.Unary == nil {
		return desc
	}
	wrapped := *desc
	wrapped.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		handler, method := m.Handler, "/"+desc.ServiceName+"/"+m.MethodName
		m.Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			c := &UnaryCall{servers: s, sizeOf: calls.SizeOf, handler: handler, srv: srv, ctx: ctx, decode: decode, interceptor: interceptor}
			calls.Unary(ctx, method, c)
			return c.reply, c.err
		}
		wrapped.Methods[i] = m
	}
	return &wrapped
}

// A UnaryCall is one call of a unary method. It is its goroutine's alone.
type UnaryCall struct {
	servers     *GRPCServers
	sizeOf      func(reply any) int
	handler     grpc.MethodHandler
	srv         any
	ctx         context.Context //nolint:containedctx // The arguments of one call of handler.
	decode      func(any) error
	interceptor grpc.UnaryServerInterceptor

	received bool
	reply    any
	err      error
}

// Serve has the call served, and returns the error that the client gets.
func (c *UnaryCall) Serve() error {
	c.reply, c.err = c.handler(c.srv, c.ctx, c.receive, c.interceptor)
	if c.err == nil {
		return c.servers.sendError(c.ctx, c.reply, c.sizeOf)
	}
	return c.err
}

// Received reports whether the message could be read.
func (c *UnaryCall) Received() bool { return c.received }

func (c *UnaryCall) receive(m any) error {
	err := c.decode(m)
	c.received = err == nil
	return err
}

// sendError returns the error with which grpc-go ends a call whose answer is longer than it
// may be, and nil where it can be sent. What a codec other than protobuf's makes of the
// answer is not known.
func (s *GRPCServers) sendError(ctx context.Context, reply any, sizeOf func(any) int) error {
	if s.maxSend == math.MaxInt32 || sizeOf == nil {
		return nil // Then nothing is worth the look at each answer.
	}
	size := sizeOf(reply)
	if size > s.maxSend {
		size = compressedSize(ctx, reply, size)
	}
	if size <= s.maxSend {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", size, s.maxSend)
}

// compressedSize returns the size of an answer as it is sent, which is plain where nothing
// compresses it. It returns 0 where grpc-go does not say how it compresses.
func compressedSize(ctx context.Context, reply any, plain int) int {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ SendCompress() string })
	if !ok {
		return plain
	}
	name := stream.SendCompress()
	if name == "" || name == encoding.Identity {
		return plain
	}
	var size countingWriter
	c := encoding.GetCompressor(name)
	if c == nil {
		return 0
	}
	w, err := c.Compress(&size)
	if err != nil {
		return 0
	}
	b, err := encoding.GetCodecV2("proto").Marshal(reply)
	if err != nil {
		return 0 // The error is grpc-go's to report.
	}
	defer b.Free()
	if _, err = w.Write(b.Materialize()); err != nil || w.Close() != nil {
		return 0
	}
	return int(size)
}

// countingWriter counts what is written.
type countingWriter int

// Write implements [io.Writer].
func (w *countingWriter) Write(p []byte) (int, error) {
	*w += countingWriter(len(p))
	return len(p), nil
}

// tapFor returns the option by which the native server tells of the calls that it answers
// before it looks for a handler. grpc-go calls it with a lock of the connection held.
func (s *GRPCServers) tapFor(calls GRPCCalls) grpc.ServerOption {
	if calls.Answered == nil {
		return grpc.EmptyServerOption{}
	}
	return grpc.InTapHandle(func(ctx context.Context, call *tap.Info) (context.Context, error) {
		switch {
		case ctx.Err() != nil:
			calls.Answered(ctx, call.FullMethodName, codes.DeadlineExceeded)
		case !s.HasMethod(call.FullMethodName):
			calls.Answered(ctx, call.FullMethodName, codes.Unimplemented)
		}
		return ctx, nil
	})
}

// CallPath returns the path of a gRPC call. It is an opaque string, as the client has sent it:
// neither does "%2F" in it stand for a slash, nor does "?" begin a query.
func CallPath(r *http.Request) string { return cmp.Or(r.RequestURI, r.URL.Path) }

// IsGRPCContentType reports application/grpc, alone or followed by a subtype or a
// parameter. application/grpc-web is another protocol.
func IsGRPCContentType(v string) bool {
	const base = "application/grpc"
	if !strings.HasPrefix(v, base) { // As grpc-go reads it, with case.
		return false
	}
	return len(v) == len(base) || v[len(base)] == '+' || v[len(base)] == ';'
}

// HasMethod reports whether grpc-go has a handler for the call to path.
func (s *GRPCServers) HasMethod(path string) bool {
	_, ok := s.methods[path]
	return ok || s.unknown
}

// Methods returns the paths of all registered methods.
func (s *GRPCServers) Methods() iter.Seq[string] { return maps.Keys(s.methods) }

// methodsOf returns the paths of all methods, and which are streams.
func methodsOf(services map[string]grpc.ServiceInfo) map[string]bool {
	methods := make(map[string]bool)
	for service, info := range services {
		for _, m := range info.Methods {
			methods["/"+service+"/"+m.Name] = m.IsClientStream || m.IsServerStream
		}
	}
	return methods
}
