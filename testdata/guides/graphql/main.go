// Command graphql serves GraphQL by gqlgen: queries by POST, and subscriptions over WebSocket
// with the subprotocol graphql-transport-ws, which end when the server drains.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// schema is what gqlgen would generate for you. Its subscription counts without end.
func schema() graphql.ExecutableSchema {
	parsed := gqlparser.MustLoadSchema(&ast.Source{Input: `type Query { hello: String! } type Subscription { count: Int! }`})
	return &graphql.ExecutableSchemaMock{
		SchemaFunc:     func() *ast.Schema { return parsed },
		ComplexityFunc: func(context.Context, string, string, int, map[string]any) (int, bool) { return 1, true },
		ExecFunc: func(ctx context.Context) graphql.ResponseHandler {
			isQuery := graphql.GetOperationContext(ctx).Operation.Operation == ast.Query
			n := 0
			return func(ctx context.Context) *graphql.Response {
				n++
				switch {
				case isQuery && n == 1:
					return &graphql.Response{Data: []byte(`{"hello":"world"}`)}
				case isQuery:
					return nil
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(10 * time.Millisecond):
					return &graphql.Response{Data: fmt.Appendf(nil, `{"count":%d}`, n)}
				}
			}
		},
	}
}

// untilDrain ends the context of a request when its connection is to leave. gqlgen closes the
// WebSocket then, and a client that reconnects finds another server.
func untilDrain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		if conn, ok := mux.ConnOf(ctx); ok && r.Header.Get("Upgrade") != "" {
			stop := context.AfterFunc(conn.Draining(), cancel)
			defer stop()
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func main() {
	graph := handler.New(schema())
	graph.AddTransport(transport.Websocket{KeepAlivePingInterval: 10 * time.Second})
	graph.AddTransport(transport.POST{})
	routes := http.NewServeMux()
	routes.Handle("/graphql", untilDrain(graph))
	s := mux.New(
		mux.WithAddress(cmp.Or(os.Getenv("ADDR"), mux.DefaultAddress)),
		mux.Configure(func(c *mux.Config) { c.Drain, _ = lifecycle.Profile("none") }),
		mux.WithHandler(routes),
	)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { _ = s.Shutdown(context.Background()) })
	err := s.ListenAndServe()
	stop()
	if !errors.Is(err, mux.ErrServerClosed) {
		log.Fatal(err)
	}
}
