package main

import (
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

func TestKratos(t *testing.T) {
	p := guide.Start(t)
	cc, err := grpc.NewClient(p.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	answer, err := pb.NewTestServiceClient(cc).UnaryCall(t.Context(), &pb.SimpleRequest{Payload: &pb.Payload{Body: []byte("hello")}})
	if err != nil || string(answer.GetPayload().GetBody()) != "hello" {
		t.Errorf("gRPC: %v, %v", answer, err)
	}
	if status := p.StopDuring(http.DefaultClient, "http://"+p.Addr+"/count"); status != http.StatusOK {
		t.Errorf("the request under way: %d", status)
	}
}
