package main

import (
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
)

// routes serves the demo's routes. A reload can replace the directory of static files
// while requests use it. The zero value must not serve before open was called.
type routes struct {
	mu      sync.RWMutex // guards current, so that no request begins in a replaced directory
	current *directory
}

var _ http.Handler = (*routes)(nil)

// directory is the demo's routes with one directory of static files.
type directory struct {
	handler  http.Handler
	root     *os.Root // nil for none
	requests sync.WaitGroup
}

// openDirectory opens the directory name; none if name is empty.
func openDirectory(name string) (*directory, error) {
	if name == "" {
		return &directory{handler: demo.Routes(nil)}, nil
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("static: %w", err)
	}
	return &directory{handler: demo.Routes(root), root: root}, nil
}

// close closes the directory. A nil directory is closed already.
func (d *directory) close() {
	if d != nil && d.root != nil {
		_ = d.root.Close()
	}
}

func (r *routes) open(name string) (err error) {
	r.current, err = openDirectory(name)
	return err
}

func (r *routes) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.RLock()
	d := r.current
	d.requests.Add(1)
	r.mu.RUnlock()
	defer d.requests.Done()
	d.handler.ServeHTTP(w, request)
}

// replace serves d from now on, and closes the old directory when its last request has
// ended.
func (r *routes) replace(d *directory) {
	r.mu.Lock()
	old := r.current
	r.current = d
	r.mu.Unlock()
	go func() {
		old.requests.Wait()
		old.close()
	}()
}

// close closes the directory without waiting for requests, because the process ends.
func (r *routes) close() { r.current.close() }
