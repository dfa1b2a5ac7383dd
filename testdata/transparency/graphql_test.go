package transparency_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

// graphQL is a program on gqlgen. Its subscription has three events.
func graphQL() program {
	schema := gqlparser.MustLoadSchema(&ast.Source{Input: `
		type Query { name: String! fails: String! panics: String! }
		type Mutation { name: String! }
		type Subscription { three: String! }
	`})
	srv := handler.New(&graphql.ExecutableSchemaMock{
		SchemaFunc:     func() *ast.Schema { return schema },
		ComplexityFunc: func(context.Context, string, string, int, map[string]any) (int, bool) { return 1, true },
		ExecFunc: func(ctx context.Context) graphql.ResponseHandler {
			op := graphql.GetOperationContext(ctx)
			n := 0
			return func(ctx context.Context) *graphql.Response {
				n++
				switch field := op.Operation.SelectionSet[0].(*ast.Field).Name; {
				case field == "fails" && n == 1:
					return graphql.ErrorResponse(ctx, "of the program")
				case field == "panics":
					panic("of the program")
				case n > 1 && op.Operation.Operation != ast.Subscription, n > 3:
					return nil
				}
				return &graphql.Response{Data: []byte(`{"name":"` + strings.Repeat("x", n) + `"}`)}
			}
		},
	})
	srv.SetRecoverFunc(func(context.Context, any) error { return errors.New("recovered") })
	srv.AddTransport(transport.Websocket{KeepAlivePingInterval: time.Hour, InitTimeout: timeout, InitFunc: func(ctx context.Context, p transport.InitPayload) (context.Context, *transport.InitPayload, error) {
		if p.Authorization() == "wrong" {
			return ctx, nil, errors.New("not allowed")
		}
		return ctx, &transport.InitPayload{"hello": "client"}, nil
	}})
	srv.AddTransport(transport.Options{})
	srv.AddTransport(transport.SSE{})
	srv.AddTransport(transport.MultipartMixed{})
	srv.AddTransport(transport.GET{})
	srv.AddTransport(transport.POST{})
	srv.AddTransport(transport.MultipartForm{})
	return program{handler: srv}
}

// TestGraphQL: queries, and subscriptions by server-sent events and over WebSocket.
func TestGraphQL(t *testing.T) {
	t.Parallel()
	json := field("Content-Type", "application/json")
	post := func(query string, edits ...edit) scenario {
		return request("POST", "/", `{"query":"`+query+`"}`, append(edits, json)...)
	}
	everyWay(t, graphQL, map[string]scenario{
		"query":       post("{ name }"),
		"GET":         get("/?query={name}"),
		"mutation":    post("mutation { name }"),
		"error":       post("{ fails }"),
		"panic":       post("{ panics }"),
		"invalid":     post("{ nothing }"),
		"bad JSON":    request("POST", "/", "{", json),
		"OPTIONS":     request("OPTIONS", "/", ""),
		"events":      post("subscription { three }", field("Accept", "text/event-stream")),
		"mixed":       post("{ name }", field("Accept", "multipart/mixed")),
		"no protocol": request("POST", "/", "x", field("Content-Type", "text/plain")),
	})
	open := `{"type":"connection_init"}`
	subscribe := func(kind, query string) string {
		return `{"id":"1","type":"` + kind + `","payload":{"query":"` + query + `"}}`
	}
	for name, do := range map[string]scenario{
		"subscription": subscription("graphql-transport-ws", open, subscribe("subscribe", "subscription { three }")),
		"query":        subscription("graphql-transport-ws", open, subscribe("subscribe", "{ name }")),
		"error":        subscription("graphql-transport-ws", open, subscribe("subscribe", "{ fails }")),
		"invalid":      subscription("graphql-transport-ws", open, subscribe("subscribe", "{ nothing }")),
		"older":        subscription("graphql-ws", open, subscribe("start", "subscription { three }")),
		"none":         subscription("", open, subscribe("start", "subscription { three }")),
		"no init":      subscription("graphql-transport-ws", subscribe("subscribe", "{ name }")),
		"not allowed":  subscription("graphql-transport-ws", `{"type":"connection_init","payload":{"Authorization":"wrong"}}`),
		"no JSON":      subscription("graphql-transport-ws", "{"),
		"ping":         subscription("graphql-transport-ws", open, `{"type":"ping"}`),
	} {
		t.Run("WebSocket "+name, func(t *testing.T) { alike(t, graphQL, 1, do) })
	}
}

// subscription sends messages on a WebSocket and reads up to the end, or a message that says
// that there is no more to come.
func subscription(protocol string, messages ...string) scenario {
	return func(t *testing.T, s *site) string {
		d := websocket.Dialer{HandshakeTimeout: timeout}
		if protocol != "" {
			d.Subprotocols = []string{protocol}
		}
		c, resp, err := d.Dial("ws://"+s.http+"/", http.Header{})
		text := errText(err)
		if resp != nil {
			resp.Header.Del("Sec-Websocket-Accept")
			text += responseHead(resp)
		}
		if err != nil {
			return text
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(timeout))
		for _, m := range messages {
			if err := c.WriteMessage(websocket.TextMessage, []byte(m)); err != nil {
				return text + errText(err)
			}
		}
		for {
			_, got, err := c.ReadMessage()
			if err != nil {
				return text + errText(err)
			}
			text += string(got) + "\n"
			for _, last := range []string{`"complete"`, `"error"`, `"pong"`} {
				if strings.Contains(string(got), last) {
					return text
				}
			}
		}
	}
}
