// Command connect serves a Connect handler: Connect's own protocol, gRPC and gRPC-Web, over
// HTTP/1.1 and HTTP/2, with or without TLS.
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

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// greet is what you would have from protoc-gen-connect-go.
func greet(_ context.Context, name *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
	return connect.NewResponse(wrapperspb.String("hello " + name.Msg.GetValue())), nil
}

func main() {
	checker := grpchealth.NewStaticChecker("greet.v1.GreetService")
	routes := http.NewServeMux()
	routes.Handle("/greet.v1.GreetService/Greet", connect.NewUnaryHandler("/greet.v1.GreetService/Greet", greet))
	routes.Handle(grpchealth.NewHandler(checker))
	routes.HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n)
	})
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithHandler(routes), // Calls whose service grpc-go does not have come here.
	)
	// The health of Connect turns with that of the server.
	_ = s.OnDrain(mux.StepAnnounce, "health", func(context.Context) error {
		checker.SetStatus("greet.v1.GreetService", grpchealth.StatusNotServing)
		return nil
	})

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	err := s.ListenAndServe()
	stop()
	if !errors.Is(err, mux.ErrServerClosed) {
		log.Fatal(err)
	}
}
