package protocols

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// optionOf returns the field in which grpc-go keeps an option of a server, since grpc-go has
// no other way to tell. It returns the zero Value where there is none of that name.
func optionOf(srv *grpc.Server, field string) reflect.Value { return fieldAt(srv, "opts", field) }

// nativeOptions are the options of grpc-go's own transport, by the field of its options, and
// what to set instead where grpc-go serves no connection by itself.
var nativeOptions = []struct{ field, name, instead string }{
	{"maxConcurrentStreams", "MaxConcurrentStreams", "http2.max_streams"},
	{"keepaliveParams", "KeepaliveParams", "http2.idle_timeout, http2.max_age and http2.ping_interval"},
	{"keepalivePolicy", "KeepaliveEnforcementPolicy", "grpc.transport: auto"},
	{"initialWindowSize", "InitialWindowSize", "http2.stream_window"},
	{"initialConnWindowSize", "InitialConnWindowSize", "http2.connection_window"},
	{"connectionTimeout", "ConnectionTimeout", "sniff.timeout"},
	{"maxHeaderListSize", "MaxHeaderListSize", "http2.max_header_list_bytes"},
	{"headerTableSize", "HeaderTableSize", "grpc.transport: auto"},
}

// PingTimeoutOfOption returns how long the native server waits for the answer to its own PING
// where [grpc.KeepaliveParams] is among the options, which wins over GRPCConfig. It returns 0
// where it is not.
func (s *GRPCServers) PingTimeoutOfOption() time.Duration { return s.ping }

func pingTimeoutOf(srv *grpc.Server) time.Duration {
	params := optionOf(srv, "keepaliveParams")
	if params.Kind() != reflect.Struct || params.IsZero() {
		return 0
	}
	if timeout := params.FieldByName("Timeout"); timeout.Kind() == reflect.Int64 && timeout.Int() > 0 {
		return time.Duration(timeout.Int())
	}
	return DefaultGRPCConfig().PingTimeout // grpc-go's own default is the same.
}

// handlesUnknown reports whether the server was made with [grpc.UnknownServiceHandler].
// Where grpc-go's fields have changed, the answer is no.
func handlesUnknown(srv *grpc.Server) bool {
	desc := optionOf(srv, "unknownStreamDesc")
	return desc.Kind() == reflect.Pointer && !desc.IsNil()
}

// lengthOf returns how long a message may be by the field of the server's options. Where
// grpc-go's fields have changed, there is no bound.
func lengthOf(srv *grpc.Server, field string) int {
	if most := optionOf(srv, field); most.Kind() == reflect.Int {
		return int(most.Int())
	}
	return math.MaxInt32
}

// hasStatsHandler reports whether the server was made with [grpc.StatsHandler]. Where
// grpc-go's fields have changed, it might be.
func hasStatsHandler(srv *grpc.Server) bool {
	handlers := optionOf(srv, "statsHandlers")
	return handlers.Kind() != reflect.Slice || handlers.Len() > 0
}

// isStreamInterceptor reports whether an option is [grpc.StreamInterceptor]. Where grpc-go's
// fields have changed, it might be.
func isStreamInterceptor(option grpc.ServerOption) bool {
	srv := grpc.NewServer(option)
	defer srv.Stop()
	first, chain := optionOf(srv, "streamInt"), optionOf(srv, "chainStreamInts")
	if first.Kind() != reflect.Func || chain.Kind() != reflect.Slice {
		return true
	}
	return !first.IsNil() && chain.Len() == 0 // grpc-go has put those of a chain there.
}

// checkOptions returns an error for options of a server that cannot take effect. Where
// grpc-go's fields have changed, an option passes.
func checkOptions(t GRPCTransport, srv *grpc.Server) error {
	without := grpc.NewServer()
	defer without.Stop()
	var errs []error
	creds := optionOf(srv, "creds")
	if creds.Kind() == reflect.Interface && !creds.IsNil() && creds.Elem().Type() != reflect.TypeOf(insecure.NewCredentials()) {
		errs = append(errs, errors.New("protocols: grpc.Creds: TLS ends before gRPC here; set it by mux.WithTLS or the listener's tls section"))
	}
	if tap := optionOf(srv, "inTapHandle"); tap.Kind() == reflect.Func && !tap.IsNil() {
		errs = append(errs, errors.New("protocols: grpc.InTapHandle: grpc-go does not call it on connections that calls and requests share; use an interceptor"))
	}
	for _, o := range nativeOptions {
		field := optionOf(srv, o.field)
		if t == TransportShared && field.IsValid() && !field.Equal(optionOf(without, o.field)) {
			errs = append(errs, fmt.Errorf("protocols: grpc.%s has no effect with grpc.transport: shared; set %s", o.name, o.instead))
		}
	}
	return errors.Join(errs...)
}
