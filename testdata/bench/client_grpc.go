package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// dialGRPC makes a client of grpc-go, which connects when it is first used.
func dialGRPC(p *process) (*grpc.ClientConn, error) {
	// Passed through, the address needs no resolver, whose goroutines would be part of every connection.
	return grpc.NewClient("passthrough:///"+p.form, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, p, portGRPC) }))
}

func call(ctx context.Context, client demov1.EchoClient) error {
	answer, err := client.Unary(ctx, &demov1.EchoRequest{Message: text})
	if err == nil && answer.GetMessage() != text {
		err = fmt.Errorf("%w: %q", errAnswer, answer.GetMessage())
	}
	return err
}

// grpcUnary calls by many workers on one connection.
func grpcUnary(ctx context.Context, p *process, s sizes) (*session, error) {
	conn, err := dialGRPC(p)
	if err != nil {
		return nil, err
	}
	made := &session{closers: []func(){func() { _ = conn.Close() }}}
	client := demov1.NewEchoClient(conn)
	for range s.workers {
		made.workers = append(made.workers, func() (int, error) { return 1, call(ctx, client) })
	}
	return made, nil
}

// grpcNew makes one call on each connection.
func grpcNew(ctx context.Context, p *process, _ sizes) (worker, func(), error) {
	return func() (int, error) {
		conn, err := dialGRPC(p)
		if err != nil {
			return 0, err
		}
		err = call(ctx, demov1.NewEchoClient(conn))
		return 1, errors.Join(err, conn.Close())
	}, func() {}, nil
}

// grpcStream sends messages by many streams of one connection, each of which waits for its echo.
func grpcStream(ctx context.Context, p *process, s sizes) (*session, error) {
	conn, err := dialGRPC(p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	made := &session{closers: []func(){cancel, func() { _ = conn.Close() }}}
	client := demov1.NewEchoClient(conn)
	for range s.workers {
		stream, err := client.BidiStream(ctx)
		if err != nil {
			made.close()
			return nil, err
		}
		made.workers = append(made.workers, func() (int, error) {
			if err := stream.Send(&demov1.EchoRequest{Message: text}); err != nil {
				return 0, err
			}
			_, err := stream.Recv()
			return 1, err
		})
	}
	return made, nil
}
