package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// newChannel returns a channel whose connections come from d.
func newChannel(d *dialer) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///muxserve.test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.dial(ctx, "", "") }),
		grpc.WithStatsHandler(retries{d.t}))
}

// calls is a client that makes unary calls.
type calls struct{ channel *grpc.ClientConn }

var _ client = calls{}

func newCalls(d *dialer) (client, error) {
	channel, err := newChannel(d)
	return calls{channel}, err
}

// operate implements [client].
func (c calls) operate(ctx context.Context, n int) error {
	message := strconv.Itoa(n)
	resp, err := demov1.NewEchoClient(c.channel).Unary(ctx, &demov1.EchoRequest{Message: message})
	if err == nil && resp.GetMessage() != message {
		err = fmt.Errorf("answered %q", resp.GetMessage())
	}
	return err
}

// close implements [client].
func (c calls) close() { _ = c.channel.Close() }

// streams is a client that holds a bidirectional stream for some messages, over many changes at most.
type streams struct {
	channel *grpc.ClientConn
	stream  grpc.BidiStreamingClient[demov1.EchoRequest, demov1.EchoResponse] // nil for none
	left    int                                                               // messages that it is to carry
}

var _ client = (*streams)(nil)

// messagesPerStream make a stream last for several changes.
const messagesPerStream = 20

func newStreams(d *dialer) (client, error) {
	channel, err := newChannel(d)
	return &streams{channel: channel}, err
}

// operate implements [client]: one message and its answer.
func (s *streams) operate(_ context.Context, n int) error {
	if s.stream == nil {
		// The stream outlives the operation.
		stream, err := demov1.NewEchoClient(s.channel).BidiStream(context.Background())
		if err != nil {
			return fmt.Errorf("opening a stream: %w", err)
		}
		s.stream, s.left = stream, messagesPerStream
	}
	message := strconv.Itoa(n)
	if err := s.stream.Send(&demov1.EchoRequest{Message: message}); err != nil {
		s.stream = nil
		return fmt.Errorf("sending: %w", err)
	}
	resp, err := s.stream.Recv()
	if err == nil && resp.GetMessage() != message {
		err = fmt.Errorf("answered %q", resp.GetMessage())
	}
	if err != nil {
		s.stream = nil
		return err
	}
	if s.left--; s.left == 0 {
		return s.end()
	}
	return nil
}

// end ends the stream in order.
func (s *streams) end() error {
	stream := s.stream
	s.stream = nil
	if stream == nil {
		return nil
	}
	if err := stream.CloseSend(); err != nil {
		return fmt.Errorf("ending a stream: %w", err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("a stream ended with %w", err)
	}
	return nil
}

// close implements [client].
func (s *streams) close() {
	_ = s.end()
	_ = s.channel.Close()
}

// retries counts grpc-go's transparent retries, which are calls that no server has seen.
type retries struct{ t *tally }

var _ stats.Handler = retries{}

// HandleRPC implements [stats.Handler].
func (r retries) HandleRPC(_ context.Context, s stats.RPCStats) {
	if begin, ok := s.(*stats.Begin); ok && begin.IsTransparentRetryAttempt {
		r.t.retried.Add(1)
	}
}

// TagRPC implements [stats.Handler].
func (retries) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements [stats.Handler].
func (retries) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (retries) HandleConn(context.Context, stats.ConnStats) {}
