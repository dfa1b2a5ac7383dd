package demo

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// webClient returns a client of one call of the echo service, on the demo's routes behind
// net/http's own server.
func webClient(t *testing.T, procedure string, options ...connect.ClientOption) *connect.Client[demov1.EchoRequest, demov1.EchoResponse] {
	t.Helper()
	srv := httptest.NewServer(Routes(Files{}))
	t.Cleanup(srv.Close)
	return connect.NewClient[demov1.EchoRequest, demov1.EchoResponse](srv.Client(), srv.URL+procedure, options...)
}

// webForms are the protocols of a browser's clients.
var webForms = map[string][]connect.ClientOption{
	"gRPC-Web": {connect.WithGRPCWeb()},
	"Connect":  nil,
	"JSON":     {connect.WithProtoJSON()},
}

func TestWebUnary(t *testing.T) {
	t.Parallel()
	for name, options := range webForms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := webClient(t, demov1.Echo_Unary_FullMethodName, options...)
			got, err := client.CallUnary(t.Context(), connect.NewRequest(&demov1.EchoRequest{Message: "grüße"}))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&demov1.EchoResponse{Message: "grüße", Sequence: 1, Transport: "web"}, got.Msg, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			_, err = client.CallUnary(t.Context(), connect.NewRequest(&demov1.EchoRequest{Delay: durationpb.New(maxWait + 1)}))
			if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "delay: not a time from 0s to 5m0s") {
				t.Errorf("a delay that is too long: %v", err)
			}
		})
	}
}

func TestWebServerStream(t *testing.T) {
	t.Parallel()
	for name, options := range webForms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := webClient(t, demov1.Echo_ServerStream_FullMethodName, options...)
			stream, err := client.CallServerStream(t.Context(), connect.NewRequest(&demov1.EchoRequest{
				Message: "m", Repeat: 3, Interval: durationpb.New(time.Millisecond), EndOnDrain: true,
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			received := uint64(0)
			for stream.Receive() {
				received++
				want := &demov1.EchoResponse{Message: "m", Sequence: received, Transport: "web"}
				if diff := cmp.Diff(want, stream.Msg(), protocmp.Transform()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			if stream.Err() != nil || received != 3 {
				t.Errorf("%d responses, then %v", received, stream.Err())
			}
		})
	}
}

// TestWebRefusedStream: what is wrong with a stream's request is its status.
func TestWebRefusedStream(t *testing.T) {
	t.Parallel()
	client := webClient(t, demov1.Echo_ServerStream_FullMethodName, connect.WithGRPCWeb())
	stream, err := client.CallServerStream(t.Context(), connect.NewRequest(&demov1.EchoRequest{Repeat: maxRepeat + 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeInvalidArgument {
		t.Errorf("response %v, %v", stream.Msg(), stream.Err())
	}
}

// TestWebMessageLimit: a message is as long as grpc-go takes it, and no longer.
func TestWebMessageLimit(t *testing.T) {
	t.Parallel()
	client := webClient(t, demov1.Echo_Unary_FullMethodName, connect.WithGRPCWeb())
	_, err := client.CallUnary(t.Context(), connect.NewRequest(&demov1.EchoRequest{Message: strings.Repeat("x", maxCallBytes)}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a message above the limit: %v", err)
	}
}

// TestWebLeavesGRPCAlone: calls of gRPC itself are not the page's, whatever the port serves.
func TestWebLeavesGRPCAlone(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"application/grpc", "application/grpc+proto"} {
		frame := binary.BigEndian.AppendUint32([]byte{0}, 0)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, demov1.Echo_Unary_FullMethodName, bytes.NewReader(frame))
		r.ProtoMajor, r.ProtoMinor, r.Proto = 2, 0, "HTTP/2.0"
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		Routes(Files{}).ServeHTTP(w, r)
		if w.Code != http.StatusNotFound || w.Header().Get("Grpc-Status") != "" {
			t.Errorf("%s: answered %d %v", contentType, w.Code, w.Header())
		}
	}
}
