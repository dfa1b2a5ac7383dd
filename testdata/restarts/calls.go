package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/known/durationpb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// calls are gRPC clients that make unary calls. Each has a channel of its own.
type calls struct {
	t        *tally
	channels []*grpc.ClientConn
	next     atomic.Uint64 // The number of calls that have been given to a channel.
}

var _ client = (*calls)(nil)

// newCalls returns n clients.
func newCalls(t *tally, n int, address func() string) (*calls, error) {
	c := &calls{t: t}
	for range n {
		d := &dialer{t: t, address: address, http2: true}
		d.onTold = func(*watchedConn) { t.goAway.Add(1) }
		d.onEnd = func(_ *watchedConn, told bool) {
			if !told {
				t.untold.Add(1)
				t.faultf("a connection ended without GOAWAY")
			}
		}
		channel, err := newChannel(d)
		if err != nil {
			return nil, err
		}
		c.channels = append(c.channels, channel)
	}
	return c, nil
}

// newChannel returns a channel whose connections come from d.
func newChannel(d *dialer) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///muxserve.test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.dial(ctx, "", "") }),
		grpc.WithStatsHandler(retries{d.t}))
}

// begin implements [client].
func (c *calls) begin(ctx context.Context, n uint64, done func()) {
	go func() {
		defer done()
		c.t.sent.Add(1)
		if err := c.call(ctx, n); err != nil {
			c.t.failed.Add(1)
			c.t.faultf("call %d: %v", n, err)
			return
		}
		c.t.answered.Add(1)
	}()
}

func (c *calls) call(ctx context.Context, n uint64) error {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	message := strconv.FormatUint(n, 10)
	channel := c.channels[c.next.Add(1)%uint64(len(c.channels))]
	resp, err := demov1.NewEchoClient(channel).Unary(ctx,
		&demov1.EchoRequest{Message: message, Delay: durationpb.New(workTime(n))})
	if err != nil {
		return err
	}
	if resp.GetMessage() != message {
		return fmt.Errorf("answered %q", resp.GetMessage())
	}
	return nil
}

// close implements [client].
func (c *calls) close() {
	for _, channel := range c.channels {
		_ = channel.Close()
	}
}

// retries counts grpc-go's transparent retries: calls that no server has seen.
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
