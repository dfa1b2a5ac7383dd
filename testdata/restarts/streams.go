package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// connectGRPC makes a link of grpc-go's client, which the server's grpc-go serves.
func connectGRPC(d *dialer) (protocol, error) {
	channel, err := newChannel(d)
	if err != nil {
		return protocol{}, err
	}
	return protocol{
		open: func(ctx context.Context) (stream, error) {
			ctx, cancel := context.WithCancel(ctx)
			s, err := demov1.NewEchoClient(channel).BidiStream(ctx)
			if err != nil {
				cancel()
				return nil, err
			}
			return &grpcStream{stream: s, stop: cancel}, nil
		},
		close: func() { _ = channel.Close() },
	}, nil
}

// grpcStream is a call of grpc-go.
type grpcStream struct {
	stream grpc.BidiStreamingClient[demov1.EchoRequest, demov1.EchoResponse]
	stop   context.CancelFunc
}

func (s *grpcStream) send(n uint64) error {
	return s.stream.Send(&demov1.EchoRequest{Message: strconv.FormatUint(n, 10)})
}

func (s *grpcStream) receive() (uint64, error) {
	resp, err := s.stream.Recv()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(resp.GetMessage(), 10, 64)
}

func (s *grpcStream) closeSend() { _ = s.stream.CloseSend() }
func (s *grpcStream) cancel()    { s.stop() }

// connectHTTP makes a link of net/http's client, which the server's net/http
// serves. It calls the same method, with gRPC's framing written here.
func connectHTTP(d *dialer) (protocol, error) {
	// Without a bound, streams that are opened at the same time dial a connection each.
	tr := &http.Transport{DialContext: d.dial, MaxConnsPerHost: 1, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	return protocol{
		open:  func(ctx context.Context) (stream, error) { return openHTTPStream(ctx, tr) },
		close: tr.CloseIdleConnections,
	}, nil
}

// httpStream is a request whose body and response go on at the same time.
type httpStream struct {
	stop   context.CancelFunc
	body   *io.PipeWriter
	header chan error     // gets the end of the round trip
	resp   *http.Response // Set before header gets nil; its end is the end of the stream.
}

func openHTTPStream(ctx context.Context, tr *http.Transport) (*httpStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://muxserve.test"+demov1.Echo_BidiStream_FullMethodName, r)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	s := &httpStream{stop: cancel, body: w, header: make(chan error, 1)}
	go func() {
		var err error
		if s.resp, err = tr.RoundTrip(req); err != nil {
			_ = r.CloseWithError(err)
		}
		s.header <- err
		close(s.header)
	}()
	return s, nil
}

// prefixLen is the length of what stands before each message: whether it is
// compressed, and its length (gRPC over HTTP/2, Length-Prefixed-Message).
const prefixLen = 5

func (s *httpStream) send(n uint64) error {
	payload, err := proto.Marshal(&demov1.EchoRequest{Message: strconv.FormatUint(n, 10)})
	if err != nil {
		return err
	}
	framed := make([]byte, prefixLen, prefixLen+len(payload))
	binary.BigEndian.PutUint32(framed[1:], uint32(len(payload)))
	_, err = s.body.Write(append(framed, payload...))
	return err
}

func (s *httpStream) receive() (uint64, error) {
	if err := <-s.header; err != nil {
		return 0, err
	}
	if s.resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d", s.resp.StatusCode)
	}
	var prefix [prefixLen]byte
	if _, err := io.ReadFull(s.resp.Body, prefix[:]); err != nil {
		if err == io.EOF && s.resp.Trailer.Get("Grpc-Status") != "0" && s.resp.Header.Get("Grpc-Status") != "0" {
			return 0, fmt.Errorf("grpc-status %q", s.resp.Trailer.Get("Grpc-Status"))
		}
		return 0, err
	}
	payload := make([]byte, binary.BigEndian.Uint32(prefix[1:]))
	if _, err := io.ReadFull(s.resp.Body, payload); err != nil {
		return 0, err
	}
	var echo demov1.EchoResponse
	if err := proto.Unmarshal(payload, &echo); err != nil {
		return 0, err
	}
	return strconv.ParseUint(echo.GetMessage(), 10, 64)
}

func (s *httpStream) closeSend() { _ = s.body.Close() }
func (s *httpStream) cancel()    { s.stop() }
