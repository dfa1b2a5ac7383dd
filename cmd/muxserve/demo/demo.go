// Package demo is the content of muxserve's service port: a page, an echo over HTTP,
// WebSocket and gRPC, and files. The echoes describe the connection of each request. Most
// answers can be delayed, to try a drain.
package demo

import (
	"context"
	_ "embed"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageStyle string

//go:embed page.js
var pageScript string

// Routes returns the HTTP handler of the demo: the page at /, /echo, /duplex, the WebSocket
// echo at /ws, and the files of static under /static/ unless it is nil. Other paths are 404.
func Routes(static *os.Root) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("GET /{$}", page.New(pageHTML, pageStyle, pageScript))
	routes.HandleFunc("/echo", serveEcho)
	routes.HandleFunc("POST /duplex", serveDuplex)
	routes.Handle("/ws", mux.WebSocket(echoWebSocket))
	if static != nil {
		routes.Handle("GET /static/", http.StripPrefix("/static", http.FileServer(rootFiles{static})))
	}
	return routes
}

// rootFiles is a directory as a file system. No link leads out of it. Unlike the files of
// os.Root.FS, its files are *os.File, for which net/http can use sendfile.
type rootFiles struct{ root *os.Root }

// Open implements [http.FileSystem]; name is a clean path that begins with a slash.
func (f rootFiles) Open(name string) (http.File, error) {
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		name = "."
	}
	if strings.ContainsRune(name, 0) {
		return nil, fs.ErrNotExist // The system's error would be answered by 500.
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	return file, nil
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
