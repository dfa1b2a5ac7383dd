package protocols

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// connectionError is like grpc-go's, which is internal.
type connectionError struct{ error }

func (e connectionError) Origin() error { return e }

// failingStream is a stream whose methods fail.
type failingStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // The stream's.
	err error
}

func (s failingStream) Context() context.Context     { return s.ctx }
func (s failingStream) SendHeader(metadata.MD) error { return s.err }
func (s failingStream) SendMsg(any) error            { return s.err }
func (s failingStream) RecvMsg(any) error            { return s.err }

// TestGivenUpStream: an error of the transport is the context's where that has ended; all
// others pass, and so do all of a stream that goes on.
func TestGivenUpStream(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for name, tt := range map[string]struct {
		err  error
		maps bool
	}{
		"none":                  {nil, false},
		"end":                   {io.EOF, false},
		"closed transport":      {status.Error(codes.Unavailable, "transport is closing"), true},
		"bare":                  {connectionError{io.ErrClosedPipe}, true},
		"closed body":           {status.Error(codes.Canceled, "http: body closed by handler"), true},
		"reset":                 {status.Error(codes.Internal, "stream error: stream ID 1; INTERNAL_ERROR"), true},
		"message too long":      {status.Error(codes.ResourceExhausted, "trying to send message larger than max (2 vs. 1)"), false},
		"message of no meaning": {status.Error(codes.Internal, "grpc: failed to unmarshal"), false},
		"header sent before":    {errors.New("transport: SendHeader called multiple times"), false},
	} {
		for ctx, want := range map[context.Context]error{
			t.Context(): tt.err,
			canceled:    status.Error(codes.Canceled, "context canceled"),
			expired:     status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
		} {
			if !tt.maps {
				want = tt.err
			}
			s := &givenUpStream{failingStream{ctx: ctx, err: tt.err}}
			for method, got := range map[string]error{"SendHeader": s.SendHeader(nil), "SendMsg": s.SendMsg(nil), "RecvMsg": s.RecvMsg(nil)} {
				if got != want && !errors.Is(got, want) {
					t.Errorf("%s, %s with context %v: %v, want %v", name, method, ctx.Err(), got, want)
				}
			}
		}
	}
}
