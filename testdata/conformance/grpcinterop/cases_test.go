package grpcinterop

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// client is what a case calls the server with.
type client struct {
	dial func(*testing.T) *grpc.ClientConn
	conn *grpc.ClientConn
	testgrpc.TestServiceClient
}

// cases are those of the interop client, by the names that it knows them by,
// but for the ones that want credentials of a cloud, and
//
//   - pick_first_unary, for which grpc-go's interop service lacks the server's id;
//   - orca_oob, whose reports the public API does not let come more often than every 30 s.
var cases = []struct {
	name string
	run  func(context.Context, *testing.T, client)
}{
	{"empty_unary", calling(interop.DoEmptyUnaryCall)},
	{"large_unary", calling(interop.DoLargeUnaryCall)},
	{"client_streaming", calling(interop.DoClientStreaming)},
	{"server_streaming", calling(interop.DoServerStreaming)},
	{"ping_pong", calling(interop.DoPingPong)},
	{"empty_stream", calling(interop.DoEmptyStream)},
	{"timeout_on_sleeping_server", calling(interop.DoTimeoutOnSleepingServer)},
	{"cancel_after_begin", calling(interop.DoCancelAfterBegin)},
	{"cancel_after_first_response", calling(interop.DoCancelAfterFirstResponse)},
	{"status_code_and_message", calling(interop.DoStatusCodeAndMessage)},
	{"special_status_message", calling(interop.DoSpecialStatusMessage)},
	{"custom_metadata", calling(interop.DoCustomMetadata)},
	{"unimplemented_method", func(ctx context.Context, _ *testing.T, c client) {
		interop.DoUnimplementedMethod(ctx, c.conn)
	}},
	{"unimplemented_service", func(ctx context.Context, _ *testing.T, c client) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(c.conn))
	}},
	{"orca_per_rpc", func(ctx context.Context, _ *testing.T, c client) {
		interop.DoORCAPerRPCTest(ctx, c)
	}},
	{"rpc_soak", func(ctx context.Context, t *testing.T, c client) {
		soak(ctx, t, func() (*grpc.ClientConn, func()) { return c.conn, func() {} })
	}},
	{"channel_soak", func(ctx context.Context, t *testing.T, c client) {
		soak(ctx, t, func() (*grpc.ClientConn, func()) {
			cc := c.dial(t)
			return cc, func() { _ = cc.Close() }
		})
	}},
}

// calling is for the cases that need the service alone.
func calling(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, *testing.T, client) {
	return func(ctx context.Context, _ *testing.T, c client) { do(ctx, c) }
}

// soak makes large calls in a row. The figures are the interop client's own, but for
// the number of calls and for the acceptable latency, which is meant to be missed by a hang and not by a busy machine.
func soak(ctx context.Context, t *testing.T, channel func() (*grpc.ClientConn, func())) {
	t.Helper()
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize:                      271828,
		ResponseSize:                     314159,
		PerIterationMaxAcceptableLatency: 10 * time.Second,
		OverallTimeout:                   caseTimeout,
		NumWorkers:                       2,
		Iterations:                       20,
		ChannelForTest:                   channel,
	})
}
