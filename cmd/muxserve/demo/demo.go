// Package demo is the content of muxserve's service port: a page, an echo over HTTP,
// WebSocket, gRPC and gRPC-Web, an event stream, and files. The echoes describe the
// connection of each request. Most answers can be delayed, to try a drain.
package demo

import (
	"context"
	_ "embed"
	"net/http"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageStyle string

//go:embed grpcweb.js
var grpcWebScript string

//go:embed page.js
var pageScript string

// Routes returns the HTTP handler of the demo: the page at /, /echo, /duplex, the events at
// /sse, the WebSocket echo at /ws, two calls of the gRPC service in gRPC-Web and Connect,
// and the files of static under /static/ unless its root is nil. Other paths are 404.
func Routes(static Files) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("GET /{$}", page.New(pageHTML, pageStyle, grpcWebScript+pageScript))
	routes.HandleFunc("/echo", serveEcho)
	routes.HandleFunc("POST /duplex", serveDuplex)
	routes.HandleFunc("GET /sse", serveEvents)
	routes.Handle("/ws", mux.WebSocket(echoWebSocket))
	handleWebCalls(routes)
	if static.Root != nil {
		routes.Handle("GET /static/", http.StripPrefix("/static", serveFiles(static, maxOpen())))
	}
	return routes
}

// maxWait bounds every delay that a client can ask for.
const maxWait = 5 * time.Minute

// sleep waits for d. It returns ctx's error if ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// untilLeave returns a context that ends, with the cause [mux.ErrDraining], when the
// connection of ctx is to leave.
func untilLeave(ctx context.Context) (context.Context, context.CancelFunc) {
	c, _ := mux.ConnOf(ctx) // Without a connection nothing ends it early.
	told := c.Draining()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(told, func() { cancel(context.Cause(told)) })
	return ctx, func() { stop(); cancel(nil) }
}
