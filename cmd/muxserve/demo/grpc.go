package demo

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/protocols"
)

// maxRepeat bounds the responses to one request.
const maxRepeat = 10_000

// RegisterGRPC registers the gRPC services of the demo: the echo service, and reflection
// (v1 and v1alpha), which grpcurl needs.
func RegisterGRPC(r mux.GRPCRegistrar) {
	demov1.RegisterEchoServer(r, echoService{})
	reflection.Register(r)
}

// echoService implements muxserve.demo.v1.Echo.
type echoService struct {
	demov1.UnimplementedEchoServer
}

func (echoService) Unary(ctx context.Context, req *demov1.EchoRequest) (*demov1.EchoResponse, error) {
	p, err := planOf(req)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, p.delay); err != nil {
		return nil, err
	}
	return response(ctx, req, 1), nil
}

func (echoService) ServerStream(req *demov1.EchoRequest, stream grpc.ServerStreamingServer[demov1.EchoResponse]) error {
	_, err := answer(stream.Context(), req, 0, stream.Send)
	return err
}

func (echoService) ClientStream(stream grpc.ClientStreamingServer[demov1.EchoRequest, demov1.EchoResponse]) error {
	last := new(demov1.EchoRequest)
	for count := uint64(0); ; count++ {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(response(stream.Context(), last, count))
		}
		if err != nil {
			return err
		}
		p, err := planOf(req)
		if err != nil {
			return err
		}
		if err := pause(stream.Context(), p.delay); err != nil {
			return err
		}
		last = req
	}
}

func (echoService) BidiStream(stream grpc.BidiStreamingServer[demov1.EchoRequest, demov1.EchoResponse]) error {
	var sent uint64
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if sent, err = answer(stream.Context(), req, sent, stream.Send); err != nil {
			return err
		}
	}
}

// answer sends the responses to req, numbered from sent+1 on, and returns the last
// number.
func answer(ctx context.Context, req *demov1.EchoRequest, sent uint64, send func(*demov1.EchoResponse) error) (uint64, error) {
	p, err := planOf(req)
	if err != nil {
		return sent, err
	}
	if req.GetEndOnDrain() {
		var cancel context.CancelFunc
		ctx, cancel = untilLeave(ctx)
		defer cancel()
	}
	wait := p.delay
	for range p.repeat {
		if err := pause(ctx, wait); err != nil {
			return sent, err
		}
		sent++
		if err := send(response(ctx, req, sent)); err != nil {
			return sent, err
		}
		wait = p.interval
	}
	return sent, nil
}

// plan is the times and the number of the responses to a request.
type plan struct {
	delay, interval time.Duration
	repeat          uint32
}

func planOf(req *demov1.EchoRequest) (plan, error) {
	delay, delayErr := waitOf("delay", req.GetDelay())
	interval, intervalErr := waitOf("interval", req.GetInterval())
	p := plan{delay: delay, interval: interval, repeat: max(req.GetRepeat(), 1)}
	if p.repeat > maxRepeat {
		return p, status.Errorf(codes.InvalidArgument, "repeat: %d is more than %d", p.repeat, maxRepeat)
	}
	return p, cmp.Or(delayErr, intervalErr)
}

func waitOf(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if wait := d.AsDuration(); d.IsValid() && wait >= 0 && wait <= maxWait {
		return wait, nil
	}
	return 0, status.Errorf(codes.InvalidArgument, "%s: not a time from 0s to %v", field, maxWait)
}

// pause waits for d. It returns the status of a call whose context ends first.
func pause(ctx context.Context, d time.Duration) error {
	err := sleep(ctx, d)
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), mux.ErrDraining):
		return status.Error(codes.Unavailable, "the connection is to leave: call again on another one")
	default:
		return status.FromContextError(err).Err()
	}
}

func response(ctx context.Context, req *demov1.EchoRequest, sequence uint64) *demov1.EchoResponse {
	resp := &demov1.EchoResponse{Message: req.GetMessage(), Sequence: sequence}
	if c, ok := mux.ConnOf(ctx); ok {
		resp.ConnId, resp.Protocol = c.ID, c.Protocol
		resp.Transport = "shared"
		if c.Protocol == string(protocols.GRPC) {
			resp.Transport = "native"
		}
	}
	return resp
}
