// Command mtls serves clients that have a certificate, and tells each who it is.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// clientOf returns the name in the client's certificate, for requests, calls and WebSockets.
func clientOf(ctx context.Context) string {
	if c, ok := mux.ConnOf(ctx); ok && c.TLS != nil && len(c.TLS.PeerCertificates) > 0 {
		return c.TLS.PeerCertificates[0].Subject.CommonName
	}
	return ""
}

// onlyAlice lets no other client call.
func onlyAlice(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if clientOf(ctx) != "alice" {
		return nil, status.Error(codes.PermissionDenied, "you are not alice")
	}
	return next(ctx, r)
}

type service struct {
	pb.UnimplementedTestServiceServer
}

func (service) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Username: clientOf(ctx)}, nil
}

func main() {
	routes := http.NewServeMux()
	routes.HandleFunc("POST /whoami", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, clientOf(r.Context()), " ", r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	s := mux.New(
		mux.Configure(func(c *mux.Config) {
			c.Drain, _ = lifecycle.Profile("none")
			c.Listeners[0].Address = cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)
			c.Listeners[0].TLS = mux.TLSConfig{
				Mode:     "mutual", // A client without a certificate of the CA is refused in the handshake.
				Cert:     os.Getenv("CERT"),
				Key:      os.Getenv("KEY"),
				ClientCA: os.Getenv("CLIENT_CA"),
			}
		}),
		mux.WithHandler(routes),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { pb.RegisterTestServiceServer(r, service{}) }, grpc.UnaryInterceptor(onlyAlice)),
	)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	err := s.ListenAndServe()
	stop()
	if !errors.Is(err, mux.ErrServerClosed) {
		log.Fatal(err)
	}
}
