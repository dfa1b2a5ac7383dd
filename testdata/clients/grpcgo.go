package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// grpcGo is grpc-go, all connections at the same time. Where there is a pause it
// connects eagerly and waits before the first call, and then all calls must
// find that very connection.
func grpcGo(ctx context.Context, t target) (int, error) {
	creds := insecure.NewCredentials()
	if t.ca != "" {
		var err error
		if creds, err = credentials.NewClientTLSFromFile(t.ca, ""); err != nil {
			return 0, err
		}
	}
	var (
		wg       sync.WaitGroup
		answered atomic.Int64
	)
	errs := make([]error, t.load.connections)
	for i := range errs {
		wg.Go(func() { errs[i] = t.grpcGoConnection(ctx, creds, &answered) })
	}
	wg.Wait()
	return int(answered.Load()), errors.Join(errs...)
}

// grpcGoConnection makes the calls of one connection.
func (t target) grpcGoConnection(ctx context.Context, creds credentials.TransportCredentials, answered *atomic.Int64) error {
	conn, err := grpc.NewClient(t.addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	if t.pause > 0 {
		if err := connect(ctx, conn); err != nil {
			return err
		}
		if err := sleep(ctx, t.pause); err != nil {
			return err
		}
	}
	var first uint64
	for i := range t.load.each {
		resp, err := demov1.NewEchoClient(conn).Unary(ctx, &demov1.EchoRequest{Message: "hello"})
		if err != nil {
			return err
		}
		if i == 0 {
			first = resp.GetConnId()
		}
		if resp.GetMessage() != "hello" || resp.GetTransport() != t.transport || resp.GetConnId() != first {
			return fmt.Errorf("grpc-go: call %d was answered %v, want transport %s on connection %d", i, resp, t.transport, first)
		}
		answered.Add(1)
	}
	return nil
}

// connect connects before there is anything to call.
func connect(ctx context.Context, conn *grpc.ClientConn) error {
	conn.Connect()
	for {
		state := conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if !conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("grpc-go: connecting: %w in state %v", ctx.Err(), state)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
