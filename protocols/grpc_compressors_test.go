package protocols

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// foreignStream is a stream of another transport than grpc-go's.
type foreignStream struct{ grpc.ServerTransportStream }

// TestAdvertise: a stream takes the client's compressors where it has grpc-go's field for
// them, of grpc-go's type, and nothing happens elsewhere.
func TestAdvertise(t *testing.T) {
	type known struct {
		foreignStream
		clientAdvertisedCompressors string
	}
	type named string
	for name, tt := range map[string]struct {
		stream grpc.ServerTransportStream
		fields []string
		want   string
	}{
		"grpc-go's field":  {&known{}, []string{"gzip, br", "", "zz"}, "gzip, br,zz"},
		"it is set":        {&known{clientAdvertisedCompressors: "br"}, []string{"gzip"}, "br"},
		"nothing is taken": {&known{}, []string{""}, ""},
		"no metadata":      {&known{}, nil, ""},
		"no stream":        {nil, []string{"gzip"}, ""},
		"no field":         {&foreignStream{}, []string{"gzip"}, ""},
		"no pointer":       {known{}, []string{"gzip"}, ""},
		"a list": {&struct {
			foreignStream
			clientAdvertisedCompressors []string
		}{}, []string{"gzip"}, ""},
		"another string": {&struct {
			foreignStream
			clientAdvertisedCompressors named
		}{}, []string{"gzip"}, ""},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"grpc-accept-encoding": tt.fields})
		if tt.stream != nil {
			ctx = grpc.NewContextWithServerTransportStream(ctx, tt.stream)
		}
		advertise(ctx)
		if s, ok := tt.stream.(*known); ok && s.clientAdvertisedCompressors != tt.want {
			t.Errorf("%s: %q, want %q", name, s.clientAdvertisedCompressors, tt.want)
		}
		if _, ok := tt.stream.(*known); !ok && advertisedField(tt.stream) != nil {
			t.Errorf("%s: a field was found", name)
		}
	}
}
