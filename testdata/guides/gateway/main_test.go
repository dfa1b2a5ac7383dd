package main

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

func TestGateway(t *testing.T) {
	p := guide.Start(t)
	const json = `{"payload":{"body":"aGVsbG8="}}`
	resp, err := http.Post("http://"+p.Addr+"/v1/unary", "application/json", strings.NewReader(json))
	if err != nil {
		t.Fatal(err)
	}
	if got := guide.Body(t, resp); !strings.Contains(got, `"aGVsbG8="`) {
		t.Errorf("REST: %s", got)
	}
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

// TestGatewayDuringDrain: REST calls that are under way when the drain begins reach the
// service.
func TestGatewayDuringDrain(t *testing.T) {
	p := guide.Start(t)
	url := "http://" + p.Addr + "/v1/unary"
	resp, err := http.Post(url, "application/json", strings.NewReader("{}")) // The gateway is connected then.
	if err != nil {
		t.Fatal(err)
	}
	guide.Body(t, resp)
	// grpc-gateway reads the whole body, and calls the service then.
	if status := p.StopDuringBody(http.DefaultClient, url, `{"payload":`, `{"body":`, `"aGVsbG8="}}`); status != http.StatusOK {
		t.Errorf("a call behind the drain's beginning: %d", status)
	}
}
