package protocols

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"
)

// newServers returns servers without a service of their own.
func newServers(t *testing.T, c GRPCConfig, h2 HTTP2Config, options ...grpc.ServerOption) *GRPCServers {
	t.Helper()
	s, err := NewGRPCServers(c, h2, NewGRPCServices(), GRPCCalls{}, options...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOptionsWithoutEffect are errors.
func TestOptionsWithoutEffect(t *testing.T) {
	noTap := func(ctx context.Context, _ *tap.Info) (context.Context, error) { return ctx, nil }
	for _, tt := range []struct {
		option grpc.ServerOption
		always string // part of the error on every transport; empty for none
		shared string // part of the error where there is no native transport; empty for none
	}{
		{grpc.Creds(credentials.NewTLS(&tls.Config{})), "grpc.Creds", "grpc.Creds"},
		{grpc.Creds(insecure.NewCredentials()), "", ""},
		{grpc.InTapHandle(noTap), "grpc.InTapHandle", "grpc.InTapHandle"},
		{grpc.MaxConcurrentStreams(7), "", "set http2.max_streams"},
		{grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute}), "", "grpc.KeepaliveParams"},
		{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute}), "", "grpc.KeepaliveEnforcementPolicy"},
		{grpc.InitialWindowSize(1 << 20), "", "grpc.InitialWindowSize"},
		{grpc.InitialConnWindowSize(1 << 20), "", "grpc.InitialConnWindowSize"},
		{grpc.ConnectionTimeout(time.Minute), "", "grpc.ConnectionTimeout"},
		{grpc.MaxHeaderListSize(4096), "", "grpc.MaxHeaderListSize"},
		{grpc.HeaderTableSize(0), "", "grpc.HeaderTableSize"},
		{grpc.MaxRecvMsgSize(7), "", ""},
		{grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return nil }), "", ""},
	} {
		for transport, want := range map[GRPCTransport]string{TransportAuto: tt.always, TransportNative: tt.always, TransportShared: tt.shared} {
			c := DefaultGRPCConfig()
			c.Transport = transport
			s, err := NewGRPCServers(c, DefaultHTTP2Config(), NewGRPCServices(), GRPCCalls{}, tt.option)
			switch {
			case err == nil && want != "":
				t.Errorf("%s: no error, want %q", transport, want)
			case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
				t.Errorf("%s: %v, want %q", transport, err, want)
			}
			if err == nil {
				s.Stop()
			}
		}
	}
}
