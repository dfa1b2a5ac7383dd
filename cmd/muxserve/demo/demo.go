// Package demo is the content of muxserve's service port: a page, an echo over HTTP,
// WebSocket, gRPC and gRPC-Web, an event stream, and files. The echoes describe the
// connection of each request. Most answers can be delayed, to try a drain.
package demo

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
	"github.com/muxserve/muxserve/pool"
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
		routes.Handle("GET /static/", atMost(maxFiles(), http.StripPrefix("/static", http.FileServer(static))))
	}
	return routes
}

// maxFiles is how many files may be asked for at a time: a quarter of the descriptors that
// connections leave, because an index takes two. A client that takes nothing of its answer
// keeps them open.
func maxFiles() int { return max(1, pool.DefaultConfig().MaxConnections/36) }

// atMost returns h for n requests at a time. Others are answered by 503.
func atMost(n int, h http.Handler) http.Handler {
	places := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			h.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many files are being sent", http.StatusServiceUnavailable)
		}
	})
}

// Files is a directory as a file system. No link leads out of it. Unlike the files of
// os.Root.FS, its files are *os.File, for which net/http can use sendfile.
type Files struct {
	Root *os.Root
	// Listings lets clients see the names in a directory without an index.html.
	Listings bool
	// DotFiles lets clients see what a dot at the beginning of a name hides. Links that lead
	// there are followed all the same.
	DotFiles bool
}

var _ http.FileSystem = Files{}

// Open implements [http.FileSystem]; name is a clean path that begins with a slash.
func (f Files) Open(name string) (http.File, error) {
	if !f.DotFiles && strings.Contains(name, "/.") {
		return nil, fs.ErrNotExist
	}
	if strings.ContainsRune(name, 0) {
		return nil, fs.ErrNotExist // The system's error would be answered by 500.
	}
	file, err := f.Root.Open(cmp.Or(strings.TrimPrefix(name, "/"), "."))
	if err != nil {
		return nil, noFile(err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		return f.directory(file, name)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// directory returns a directory for net/http, which lists one whose index.html it cannot
// open, for whatever reason.
func (f Files) directory(file *os.File, name string) (http.File, error) {
	if f.Listings {
		return directory{file, f}, nil
	}
	index, err := f.Open(path.Join(name, "index.html"))
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	_ = index.Close()
	return directory{file, f}, nil
}

// noFile returns [fs.ErrNotExist] where an error says that the root has no file of the name.
// net/http answers others by 500. os.Root's error for a link that leads out has no type.
func noFile(err error) error {
	var number syscall.Errno
	if errors.Is(err, fs.ErrNotExist) || !errors.As(err, &number) || number == syscall.ENOTDIR || number == syscall.ELOOP || number == syscall.ENAMETOOLONG {
		return fs.ErrNotExist
	}
	return err
}

// directory is one whose listing has what files shows.
type directory struct {
	*os.File
	files Files
}

// ReadDir implements [fs.ReadDirFile].
func (d directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.files.Listings {
		return nil, fs.ErrPermission
	}
	entries, err := d.File.ReadDir(n)
	if !d.files.DotFiles {
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	}
	return entries, err
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
