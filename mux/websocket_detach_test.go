package mux_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

// TestWebSocketBehindHandlers: a WebSocket is served behind the return of its request's
// handler where nobody can tell, and within it where somebody waits for that; it is
// booked and logged alike, when it is over.
func TestWebSocketBehindHandlers(t *testing.T) {
	t.Parallel()
	routed := func(pattern string, h http.Handler) http.Handler {
		m := http.NewServeMux()
		m.Handle(pattern, h)
		return m
	}
	for name, form := range map[string]struct {
		options  func(mux.WebSocketHandler) mux.Option
		detached bool
	}{
		"bare": {func(h mux.WebSocketHandler) mux.Option { return mux.WithHandler(mux.WebSocket(h)) }, true},
		"routed": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(routed("GET /{name}", mux.WebSocket(h)))
		}, true},
		"routed twice": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(routed("/", routed("/{name}", mux.WebSocket(h))))
		}, true},
		"all of them": {mux.WithWebSocket, true},
		"middleware": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(http.StripPrefix("/", mux.WebSocket(h)))
		}, false},
		"middleware behind a route": {func(h mux.WebSocketHandler) mux.Option {
			return mux.WithHandler(routed("/ws", http.StripPrefix("/w", mux.WebSocket(h))))
		}, false},
	} {
		for how, want := range map[string]struct {
			err    error
			panics bool
			code   websocket.StatusCode
		}{
			"returns": {code: websocket.StatusNormalClosure},
			"fails":   {err: errors.New("fault"), code: websocket.StatusInternalError},
			"panics":  {panics: true, code: -1},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				var log lines
				var serverLog syncBuffer
				contexts := make(chan context.Context, 1)
				h := func(ctx context.Context, c *websocket.Conn, r *http.Request) error {
					if within := strings.Contains(string(debug.Stack()), "(*front).ServeHTTP("); within == form.detached {
						t.Errorf("detached %v, want %v", !within, form.detached)
					}
					if info, ok := mux.ConnOf(ctx); !ok || info.Protocol != "websocket" {
						t.Errorf("connection %v of the context", info)
					}
					contexts <- r.Context()
					kind, message, err := c.Read(ctx)
					if err != nil {
						return err
					}
					if err := c.Write(ctx, kind, message); err != nil {
						return err
					}
					if want.panics {
						panic("fault")
					}
					return want.err
				}
				s := start(t, false, form.options(h), mux.WithAccessLog(slog.New(slog.NewJSONHandler(&log, nil))),
					mux.WithLogger(recordingLog(&serverLog)))
				ws := s.webSocket(t)
				ctx := <-contexts
				if got := s.Stats().Requests["websocket"].InFlight; got != 1 || ctx.Err() != nil || len(log.all(t)) > 0 {
					t.Errorf("%d in flight, context %v, log %v while it is open", got, ctx.Err(), log.all(t))
				}
				if err := echoed(t, ws, "hello"); err != nil {
					t.Fatal(err)
				}
				if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != want.code {
					t.Errorf("closed with %v, want %d", err, want.code)
				}
				<-ctx.Done()
				eventually(t, "the books to be closed", func() bool {
					return s.Stats().Requests["websocket"].InFlight == 0 && len(log.all(t)) > 0
				})
				line := []map[string]any{{
					"msg": "request", "conn_id": 1.0, "request_id": "1-1", "protocol": "websocket",
					"method": "GET", "path": "/ws", "code": 101.0, "messages_read": 1.0, "messages_written": 1.0,
				}}
				if diff := cmp.Diff(line, log.all(t)); diff != "" {
					t.Errorf("access log (-want +got):\n%s", diff)
				}
				eventually(t, "a panic to be logged", func() bool {
					return strings.Contains(serverLog.String(), "http: panic serving ") == want.panics
				})
				failed := s.Stats().Requests["websocket"].ErrorRate > 0
				if failed != want.panics {
					t.Errorf("booked as failed: %v, want %v", failed, want.panics)
				}
			})
		}
	}
}
