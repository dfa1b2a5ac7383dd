//go:build unix

package main

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	demov1 "github.com/muxserve/muxserve/cmd/muxserve/demo/v1"
)

// endless asks for a stream that only its connection's departure ends within the time of a
// test.
func endless() *demov1.EchoRequest {
	return &demov1.EchoRequest{Message: "m", Repeat: 10_000, Interval: durationpb.New(time.Second), EndOnDrain: true}
}

// TestDrainEndsLiveStreams: calls that ask for it and event streams end in a drain by
// words of their own, and nothing is cut.
func TestDrainEndsLiveStreams(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"native": nil, "shared": {"--grpc-transport=shared"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, append([]string{"--drain-delay=0", "--drain-spread=100ms", "--drain-timeout=10s"}, args...)...)
			native, err := demov1.NewEchoClient(p.dialGRPC(t)).ServerStream(t.Context(), endless())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := native.Recv(); err != nil {
				t.Fatal(err)
			}
			var web []*connect.ServerStreamForClient[demov1.EchoResponse]
			var events []*bufio.Scanner
			for _, http2 := range []bool{false, true} {
				stream, err := p.webClient(t, http2, demov1.Echo_ServerStream_FullMethodName).CallServerStream(t.Context(), connect.NewRequest(endless()))
				if err != nil {
					t.Fatal(err)
				}
				if !stream.Receive() {
					t.Fatal(stream.Err())
				}
				web = append(web, stream)
				events = append(events, openEvents(t, p, httpClient(t, http2)))
			}

			p.signal(t, syscall.SIGTERM)
			for {
				if _, err = native.Recv(); err != nil {
					break
				}
			}
			const leave = "the connection is to leave"
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), leave) {
				t.Errorf("the call of grpc-go ended with %v", err)
			}
			for _, stream := range web {
				for stream.Receive() { // Up to its end.
				}
				if err := stream.Err(); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), leave) {
					t.Errorf("the call of gRPC-Web ended with %v", stream.Err())
				}
			}
			for _, lines := range events {
				var all []string
				for lines.Scan() {
					all = append(all, lines.Text())
				}
				if end := strings.Join(all, "\n"); lines.Err() != nil || !strings.HasSuffix(end, "event: leave\ndata: "+leave+"\n") {
					t.Errorf("the events ended with %v behind\n%s", lines.Err(), end)
				}
			}
			if code := p.wait(t); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// openEvents opens the event stream and returns its lines behind those of the first event.
func openEvents(t *testing.T, p *running, client *http.Client) *bufio.Scanner {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.service.JoinPath("sse").String(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			return lines
		}
	}
	t.Fatalf("no event: %v", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
	return nil
}
