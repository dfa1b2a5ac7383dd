package transparency_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/muxserve/muxserve/testdata/transparency/gateway"
)

// gatewayWays are the ways in which grpc-gateway reaches its services.
var gatewayWays = map[string]func(t *testing.T, s *site, m *runtime.ServeMux) error{
	"in process": func(_ *testing.T, _ *site, m *runtime.ServeMux) error {
		return gateway.RegisterTestServiceHandlerServer(context.Background(), m, testService{notes: new(notes)})
	},
	"by its port": func(t *testing.T, s *site, m *runtime.ServeMux) error {
		creds := insecure.NewCredentials()
		if s.client != nil {
			creds = credentials.NewTLS(s.client)
		}
		return gateway.RegisterTestServiceHandlerFromEndpoint(t.Context(), m, s.grpc, []grpc.DialOption{grpc.WithTransportCredentials(creds)})
	},
	"by Dial": func(t *testing.T, s *site, m *runtime.ServeMux) error {
		cc := s.grpcClient(t)
		if s.mux != nil {
			var err error
			cc, err = grpc.NewClient("passthrough:mux", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.mux.Dial(ctx) }))
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = cc.Close() })
			cc.Connect() // The first connection has to be there before a drain.
		}
		return gateway.RegisterTestServiceHandler(t.Context(), m, cc)
	},
}

// statusOnly leaves out the text of an answer, which says which of client and server was first.
func statusOnly(do scenario) scenario {
	return func(t *testing.T, s *site) string {
		status, _, _ := strings.Cut(do(t, s), " length")
		return status
	}
}

// TestGateway: what grpc-gateway's clients see.
func TestGateway(t *testing.T) {
	t.Parallel()
	json := field("Content-Type", "application/json")
	scenarios := map[string]scenario{
		"GET":          get("/v1/empty"),
		"path":         get("/v1/unary/10"),
		"bad path":     get("/v1/unary/x"),
		"POST":         request("POST", "/v1/unary", `{"payload":{"body":"aGVsbG8="}}`, json),
		"metadata":     request("POST", "/v1/unary", `{"responseStatus":{"message":"metadata"}}`, json, field("Te", "trailers")),
		"error":        request("POST", "/v1/unary", `{"responseStatus":{"message":"details"}}`, json),
		"plain error":  request("POST", "/v1/unary", `{"responseStatus":{"message":"error with metadata"}}`, json),
		"timeout":      statusOnly(request("POST", "/v1/unary", `{"responseStatus":{"message":"deaf"}}`, json, field("Grpc-Timeout", "20m"))),
		"bad JSON":     request("POST", "/v1/unary", `{`, json),
		"large":        get("/v1/unary/1000000"),
		"output":       request("POST", "/v1/output", `{"responseParameters":[{"size":1},{"size":100000}]}`, json),
		"output error": request("POST", "/v1/output", `{"responseParameters":[{"size":1}],"responseStatus":{"code":8,"message":"enough"}}`, json),
		"input":        request("POST", "/v1/input", `{"payload":{"body":"aGVsbG8="}}{"payload":{"body":"aGVsbG8="}}`, json),
		"duplex":       request("POST", "/v1/duplex", `{"payload":{"body":"aGVsbG8="}}{"responseStatus":{"code":8,"message":"enough"}}`, json),
		"no route":     get("/v1/none"),
		"bad method":   request("DELETE", "/v1/empty", ""),
	}
	for name, register := range gatewayWays {
		start := func() program {
			p := netGRPC()
			m := runtime.NewServeMux()
			p.handler = m
			p.ready = func(t *testing.T, s *site) {
				if err := register(t, s, m); err != nil {
					t.Fatal(err)
				}
			}
			return p
		}
		t.Run(name, func(t *testing.T) {
			everyWay(t, start, scenarios)
			if name != "in process" {
				t.Run("shutdown", func(t *testing.T) {
					alike(t, start, 1, underWay(request("POST", "/v1/unary", `{"responseStatus":{"message":"slow"}}`, json)))
				})
			}
		})
	}
}
