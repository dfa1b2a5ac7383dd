// Command gateway serves one service three ways on one port: as REST by grpc-gateway, as gRPC,
// and beside both an HTTP handler.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/testdata/transparency/gateway"
)

type service struct {
	pb.UnimplementedTestServiceServer
}

func (service) UnaryCall(_ context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: r.GetPayload()}, nil
}

func main() {
	rest := runtime.NewServeMux()
	routes := http.NewServeMux()
	routes.Handle("/v1/", rest)
	routes.HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n)
	})
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithHandler(routes),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { pb.RegisterTestServiceServer(r, service{}) }),
	)

	// The gateway calls the service within the process. It needs no port and no TLS, no limit
	// refuses it, and a drain tells it last.
	cc, err := grpc.NewClient("passthrough:mux",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.Dial(ctx) }))
	if err != nil {
		log.Fatal(err)
	}
	if err := gateway.RegisterTestServiceHandler(context.Background(), rest, cc); err != nil {
		log.Fatal(err)
	}
	cc.Connect() // A drain makes no new connection, so the first one is made now.

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	err = s.ListenAndServe()
	stop()
	if !errors.Is(err, mux.ErrServerClosed) {
		log.Fatal(err)
	}
}
