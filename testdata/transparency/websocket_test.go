package transparency_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"

	"github.com/muxserve/muxserve/mux"
)

// routers mount a handler at /ws below their middleware.
var routers = map[string]func(http.Handler) http.Handler{
	"gin": func(h http.Handler) http.Handler {
		e := gin.New()
		e.Use(gin.Logger(), gin.Recovery())
		e.GET("/ws", gin.WrapH(h))
		return e
	},
	"chi": func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Use(middleware.RequestID, middleware.RealIP, middleware.Recoverer, middleware.Compress(5))
		r.Handle("/ws", h)
		return r
	},
	"chi with log": func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(middleware.NewWrapResponseWriter(w, r.ProtoMajor), r)
			})
		})
		r.Handle("/ws", h)
		return r
	},
	"echo": func(h http.Handler) http.Handler {
		e := echo.New()
		e.Use(echomiddleware.Recover()) // Below Gzip, echo sends no 101 on net/http either.
		e.GET("/ws", echo.WrapHandler(h))
		return e
	},
}

// limited are the routers below a time limit, where a connection cannot be hijacked.
var limited = map[string]func(http.Handler) http.Handler{
	"chi":  func(h http.Handler) http.Handler { return http.TimeoutHandler(routers["chi"](h), time.Hour, "") },
	"gin":  func(h http.Handler) http.Handler { return http.TimeoutHandler(routers["gin"](h), time.Hour, "") },
	"echo": func(h http.Handler) http.Handler { return http.TimeoutHandler(routers["echo"](h), time.Hour, "") },
	"none": func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Hour, "") },
}

// echoMessages serves a WebSocket.
func echoMessages(ctx context.Context, c *websocket.Conn, _ *http.Request) error {
	for {
		kind, message, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, kind, message); err != nil {
			return err
		}
	}
}

// accept is a handler that accepts WebSockets by coder/websocket alone.
func accept(subprotocols ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: subprotocols})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		_ = echoMessages(r.Context(), c, r)
	})
}

// openWebSocket returns what a client sees of a WebSocket at /ws.
func openWebSocket(t *testing.T, s *site) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws://"+s.http+"/ws", &websocket.DialOptions{Subprotocols: []string{"wamp", "mqtt"}})
	if err != nil {
		if resp == nil {
			return err.Error()
		}
		return resp.Status
	}
	defer func() { _ = c.CloseNow() }()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		return err.Error()
	}
	_, got, err := c.Read(ctx)
	return fmt.Sprint(resp.Status, " ", c.Subprotocol(), " ", string(got), errText(err))
}

// TestWebSocketBelowRouters: coder/websocket's own Accept behind the mux, and
// [mux.WebSocket] on either server, work below each router.
func TestWebSocketBelowRouters(t *testing.T) {
	t.Parallel()
	const want = "101 Switching Protocols mqtt hello"
	for name, router := range routers {
		for way, h := range map[string]http.Handler{
			"coder": accept("mqtt"),
			"mux":   mux.WebSocket(echoMessages, mux.Subprotocols("graphql-transport-ws", "mqtt")),
		} {
			t.Run(name+" "+way, func(t *testing.T) {
				if got := alike(t, handled(router(h)), 1, openWebSocket); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
	}
}

// TestWebSocketBelowTimeLimits: where a WebSocket cannot work, [mux.WebSocket] says so.
func TestWebSocketBelowTimeLimits(t *testing.T) {
	t.Parallel()
	for name, wrap := range limited {
		t.Run(name, func(t *testing.T) {
			if got := alike(t, handled(wrap(mux.WebSocket(echoMessages))), 1, openWebSocket); got != "501 Not Implemented" {
				t.Errorf("%q", got)
			}
		})
	}
}
