package muxtest_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/mux/muxtest"
)

// TestHello is the test that mux/EMBEDDING.md shows.
func TestHello(t *testing.T) {
	s := muxtest.New(t,
		mux.WithHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello over ", r.Proto) })),
		mux.WithGRPC(func(r mux.GRPCRegistrar) { testpb.RegisterTestServiceServer(r, service{}) }))

	resp, err := s.HTTP2Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello over HTTP/2.0" {
		t.Errorf("%q, %v", body, err)
	}
	answer, err := testpb.NewTestServiceClient(s.GRPC()).UnaryCall(t.Context(), &testpb.SimpleRequest{})
	if err != nil || answer.GetUsername() != "gRPC" {
		t.Errorf("%v, %v", answer, err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("the drain: %v", err)
	}
}
