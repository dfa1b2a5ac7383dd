package main

import (
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
)

// routes are the demo's routes. The directory of static files behind them can be replaced while they are in use. The zero
// value serves nothing before open or replace is called.
type routes struct {
	mu      sync.RWMutex // guards current, and that nobody takes to one that was replaced
	current *directory
}

var _ http.Handler = (*routes)(nil)

// directory is the routes with one directory of static files.
type directory struct {
	handler http.Handler
	root    *os.Root // nil for none
	users   sync.WaitGroup
}

// openDirectory opens the directory name, none if it is empty.
func openDirectory(name string) (*directory, error) {
	var root *os.Root
	if name != "" {
		var err error
		if root, err = os.OpenRoot(name); err != nil {
			return nil, fmt.Errorf("static: %w", err)
		}
	}
	return &directory{handler: demo.Routes(root), root: root}, nil
}

func (d *directory) close() {
	if d.root != nil {
		_ = d.root.Close()
	}
}

func (r *routes) open(name string) error {
	d, err := openDirectory(name)
	if err != nil {
		return err
	}
	r.current = d
	return nil
}

// ServeHTTP implements [http.Handler].
func (r *routes) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.RLock()
	d := r.current
	d.users.Add(1)
	r.mu.RUnlock()
	defer d.users.Done()
	d.handler.ServeHTTP(w, request)
}

// replace takes d over. The directory before is closed when the last request that may use it has ended.
func (r *routes) replace(d *directory) {
	r.mu.Lock()
	old := r.current
	r.current = d
	r.mu.Unlock()
	go func() {
		old.users.Wait()
		old.close()
	}()
}

// close closes the directory, at once: the process ends.
func (r *routes) close() {
	if r.current != nil {
		r.current.close()
	}
}
