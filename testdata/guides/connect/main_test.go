package main

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/muxserve/muxserve/testdata/guides/internal/guide"
)

func TestMain(m *testing.M) { guide.Main(m, main) }

func TestConnect(t *testing.T) {
	p := guide.Start(t)
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	for name, c := range map[string]struct {
		client  *http.Client
		options []connect.ClientOption
	}{
		"Connect over HTTP/1.1":  {http.DefaultClient, nil},
		"gRPC-Web over HTTP/1.1": {http.DefaultClient, []connect.ClientOption{connect.WithGRPCWeb()}},
		"Connect over h2c":       {&http.Client{Transport: h2c}, nil},
		"gRPC over h2c":          {&http.Client{Transport: h2c}, []connect.ClientOption{connect.WithGRPC()}},
	} {
		client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](c.client, "http://"+p.Addr+"/greet.v1.GreetService/Greet", c.options...)
		answer, err := client.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String(name)))
		if err != nil || answer.Msg.GetValue() != "hello "+name {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
	if status := p.StopDuring(http.DefaultClient, "http://"+p.Addr+"/count"); status != http.StatusOK {
		t.Errorf("the request under way: %d", status)
	}
}
