package protocols

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// advertise tells the stream of a call which compressors its client takes, for
// [grpc.SetSendCompressor] and [grpc.ClientSupportedCompressors]. grpc-go's own transport
// does that; its ServeHTTP does not. The stream must not be in use.
func advertise(ctx context.Context) {
	names := metadata.ValueFromIncomingContext(ctx, "grpc-accept-encoding")
	names = slices.DeleteFunc(names, func(s string) bool { return s == "" }) // As grpc-go does.
	if len(names) == 0 {
		return
	}
	if field := advertisedField(grpc.ServerTransportStreamFromContext(ctx)); field != nil && *field == "" {
		*field = strings.Join(names, ",")
	}
}

// advertisedField returns the field of grpc-go's stream that has the client's compressors,
// or nil where grpc-go has no such field. It is unexported, so there is no way to set it but
// by its address, as package unsafe would.
func advertisedField(stream any) *string {
	v := reflect.ValueOf(stream)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	field := v.Elem().FieldByName("clientAdvertisedCompressors")
	if !field.IsValid() || field.Type() != reflect.TypeFor[string]() {
		return nil
	}
	return (*string)(field.Addr().UnsafePointer())
}

// advertising returns the service with advertise and of.show in front of its unary calls and
// all that their interceptors do.
func advertising(desc *grpc.ServiceDesc, of addrOf) *grpc.ServiceDesc {
	wrapped := *desc
	wrapped.Methods = slices.Clone(desc.Methods)
	for i, m := range wrapped.Methods {
		wrapped.Methods[i].Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			advertise(ctx)
			of.show(ctx)
			return m.Handler(srv, ctx, decode, interceptor)
		}
	}
	return &wrapped
}

// advertisingStreams returns the option that has advertise and of.show in front of all
// streams, and of all interceptors but that of [grpc.StreamInterceptor]. They get a
// givenUpStream.
func advertisingStreams(of addrOf) grpc.ServerOption {
	return grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		advertise(ss.Context())
		of.show(ss.Context())
		return h(srv, &givenUpStream{ss})
	})
}
