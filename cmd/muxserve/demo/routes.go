package demo

import (
	_ "embed"
	"net/http"
	"os"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageStyle string

//go:embed page.js
var pageScript string

// Routes returns the HTTP side of the demo: the page at /, /echo, the WebSocket
// echo at /ws, and the files of static under /static/ unless it is nil. All else
// is 404.
func Routes(static *os.Root) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("GET /{$}", page.New(pageHTML, pageStyle, pageScript))
	routes.HandleFunc("/echo", serveEcho)
	routes.Handle("/ws", mux.WebSocket(echoWebSocket))
	if static != nil {
		routes.Handle("GET /static/", http.StripPrefix("/static", http.FileServer(rootFiles{static})))
	}
	return routes
}
