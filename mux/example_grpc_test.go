package mux_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// A program keeps the *grpc.Server that it has. The server gets all HTTP/2 connections, and
// takes part in the drain.
func ExampleServer_Match_grpcServer() {
	own := grpc.NewServer()
	testpb.RegisterTestServiceServer(own, testService{})

	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Listeners[0].Address = "127.0.0.1:0"
			c.Drain.Delay, c.Drain.Spread = 0, 0
		}),
		mux.WithLogger(slog.New(slog.DiscardHandler)),
	)
	calls := s.Match("own", cmux.HTTP2())
	go func() { _ = own.Serve(calls) }()
	_ = s.OnDrain(mux.StepWaitConnections, "own", func(context.Context) error {
		go own.GracefulStop() // All connections have come by now.
		return nil
	})
	_ = s.OnDrain(mux.StepForceClose, "own", func(context.Context) error {
		own.Stop()
		return nil
	})

	cc, err := grpc.NewClient(background(s), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	resp, err := testpb.NewTestServiceClient(cc).UnaryCall(context.Background(), &testpb.SimpleRequest{})
	fmt.Println(resp.GetUsername(), err, s.Stats().Pools["own"].Accepted)
	fmt.Println(s.Shutdown(context.Background()))
	_ = cc.Close()
	// Output:
	//  <nil> 1
	// <nil>
}
