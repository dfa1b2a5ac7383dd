package protocols

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

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

func pingTimeoutOf(options []grpc.ServerOption) time.Duration {
	params := fieldOfOptions("keepaliveParams", options...)
	if params.Kind() != reflect.Struct || params.IsZero() {
		return 0
	}
	if timeout := params.FieldByName("Timeout"); timeout.Kind() == reflect.Int64 && timeout.Int() > 0 {
		return time.Duration(timeout.Int())
	}
	return DefaultGRPCConfig().PingTimeout // grpc-go's own default is the same.
}

// checkOptions returns an error for options that cannot take effect. grpc-go has no other way
// to see them than its own fields; where those have changed, an option passes.
func checkOptions(t GRPCTransport, options []grpc.ServerOption) error {
	with, without := grpc.NewServer(options...), grpc.NewServer()
	defer with.Stop()
	defer without.Stop()
	set, unset := reflect.ValueOf(with).Elem().FieldByName("opts"), reflect.ValueOf(without).Elem().FieldByName("opts")
	if set.Kind() != reflect.Struct {
		return nil
	}
	var errs []error
	creds := set.FieldByName("creds")
	if creds.Kind() == reflect.Interface && !creds.IsNil() && creds.Elem().Type() != reflect.TypeOf(insecure.NewCredentials()) {
		errs = append(errs, errors.New("protocols: grpc.Creds: TLS ends before gRPC here; set it by mux.WithTLS or the listener's tls section"))
	}
	if tap := set.FieldByName("inTapHandle"); tap.Kind() == reflect.Func && !tap.IsNil() {
		errs = append(errs, errors.New("protocols: grpc.InTapHandle: grpc-go does not call it on connections that calls and requests share; use an interceptor"))
	}
	for _, o := range nativeOptions {
		field := set.FieldByName(o.field)
		if t == TransportShared && field.IsValid() && !field.Equal(unset.FieldByName(o.field)) {
			errs = append(errs, fmt.Errorf("protocols: grpc.%s has no effect with grpc.transport: shared; set %s", o.name, o.instead))
		}
	}
	return errors.Join(errs...)
}
