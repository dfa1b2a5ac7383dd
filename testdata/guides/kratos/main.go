// Command kratos serves the two servers of a kratos application on one port: its gRPC server
// gets the HTTP/2 connections, and its HTTP server is the handler of the others.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/go-kratos/kratos/v2"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	khttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/soheilhy/cmux"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

type service struct {
	pb.UnimplementedTestServiceServer
}

func (service) UnaryCall(_ context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: r.GetPayload()}, nil
}

// server is a mux.Server as kratos starts and stops it.
type server struct{ *mux.Server }

// Start serves until Stop.
func (s server) Start(context.Context) error {
	if err := s.ListenAndServe(); !errors.Is(err, mux.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop drains.
func (s server) Stop(ctx context.Context) error { return s.Shutdown(ctx) }

func main() {
	requests := khttp.NewServer()
	requests.Route("/").POST("/count", func(c khttp.Context) error {
		n, _ := io.Copy(io.Discard, c.Request().Body)
		return c.String(200, fmt.Sprint(n))
	})
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithHandler(requests),
	)
	calls := kgrpc.NewServer(kgrpc.Listener(s.Match("kratos", cmux.HTTP2())))
	pb.RegisterTestServiceServer(calls, service{})
	// kratos stops its servers together. Its gRPC server says GOAWAY, and the drain waits for
	// its connections.
	app := kratos.New(kratos.Server(calls, server{s}), kratos.StopTimeout(s.Config().Drain.Longest()))
	if err := app.Run(); err != nil {
		log.Fatal(err)
	}
}
