package protocols

import (
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// givenUpStream is a stream of grpc-go's ServeHTTP that tells why it is over as grpc-go's
// own transport does: where its context has ended, an error of the transport is the status
// of that, CANCELLED or DEADLINE_EXCEEDED. ServeHTTP says UNAVAILABLE, which the handler,
// its interceptors and metrics would take for a fault of the server.
type givenUpStream struct{ grpc.ServerStream }

// SendHeader implements [grpc.ServerStream].
func (s *givenUpStream) SendHeader(md metadata.MD) error {
	return s.reason(s.ServerStream.SendHeader(md))
}

// SendMsg implements [grpc.ServerStream].
func (s *givenUpStream) SendMsg(m any) error { return s.reason(s.ServerStream.SendMsg(m)) }

// RecvMsg implements [grpc.ServerStream].
func (s *givenUpStream) RecvMsg(m any) error { return s.reason(s.ServerStream.RecvMsg(m)) }

func (s *givenUpStream) reason(err error) error {
	if err == nil || !isOfTransport(err) {
		return err
	}
	if ended := s.Context().Err(); ended != nil {
		return status.FromContextError(ended).Err()
	}
	return err
}

// isOfTransport reports whether an error of a stream is of ServeHTTP's transport, and not
// of a message.
func isOfTransport(err error) bool {
	var connection interface{ Origin() error } // grpc-go's ConnectionError: SendHeader returns it bare.
	if errors.As(err, &connection) {
		return true
	}
	st, ok := status.FromError(err)
	if !ok {
		return false // io.EOF, for one.
	}
	switch st.Code() {
	case codes.Unavailable, codes.Canceled:
		return true
	default:
		return strings.HasPrefix(st.Message(), "stream error: ") // The client has reset it by some code.
	}
}
