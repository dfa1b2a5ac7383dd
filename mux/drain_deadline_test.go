package mux_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
)

// TestShutdownWithDeadline: a Shutdown plans for the deadline of its context. Clients are
// told in time before it, whatever delay and spread are set, and no short request is lost.
func TestShutdownWithDeadline(t *testing.T) {
	t.Parallel()
	s := start(t, false, mux.Configure(func(c *mux.Config) {
		c.Drain.Delay, c.Drain.Spread, c.Drain.Timeout = time.Hour, time.Hour, 24*time.Hour
	}))
	const each = 5
	answered := make(chan struct{}, 3*each) // The first answer of each client.
	var clients sync.WaitGroup
	run := func(what string, ask func() error) {
		clients.Go(func() {
			err := ask()
			answered <- struct{}{}
			for err == nil {
				err = ask()
			}
			// A client that was told connects anew, and finds the listener closed.
			if op, ok := errors.AsType[*net.OpError](err); (!ok || op.Op != "dial") && !strings.Contains(err.Error(), "while dialing") {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	for range each {
		for version, what := range map[int]string{1: "HTTP/1.1", 2: "HTTP/2"} {
			client := s.client(t, version)
			run(what, func() error {
				resp, err := client.Post("http://"+s.addr+"/slow", "text/plain", strings.NewReader("x"))
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				return err
			})
		}
		cc := s.grpcClient(t)
		run("gRPC", func() error {
			_, err := testpb.NewTestServiceClient(cc).UnaryCall(t.Context(), new(testpb.SimpleRequest))
			time.Sleep(10 * time.Millisecond)
			return err
		})
	}
	for range 3 * each {
		within(t, "the first answers", answered)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	clients.Wait()
}
