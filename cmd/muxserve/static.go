package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/muxserve/muxserve/cmd/muxserve/demo"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
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
	files    demo.Files // without a root for none
	info     os.FileInfo
	name     string // with all links resolved, for people
	requests sync.WaitGroup
}

// openDirectory opens the directory of static files; none if the settings name none.
func openDirectory(s *settings.Settings) (*directory, error) {
	d := new(directory)
	if s.Static != "" {
		root, err := os.OpenRoot(s.Static)
		if err != nil {
			return nil, fmt.Errorf("static: %w", err)
		}
		d.files = demo.Files{Root: root, Listings: s.StaticListings, DotFiles: s.StaticDotFiles}
		if d.info, err = root.Stat("."); err != nil {
			_ = root.Close()
			return nil, fmt.Errorf("static: %w", err)
		}
		if d.name, err = filepath.EvalSymlinks(s.Static); err != nil {
			d.name = s.Static // It has been moved away meanwhile; the root stays open.
		}
	}
	d.handler = demo.Routes(d.files)
	return d, nil
}

// same reports whether both serve the same directory in the same way.
func (d *directory) same(other *directory) bool {
	a, b := d.files, other.files
	return a.Listings == b.Listings && a.DotFiles == b.DotFiles && (a.Root == nil) == (b.Root == nil) &&
		(a.Root == nil || os.SameFile(d.info, other.info))
}

// close closes the directory. A nil directory is closed already.
func (d *directory) close() {
	if d != nil && d.files.Root != nil {
		_ = d.files.Root.Close()
	}
}

func (r *routes) open(s *settings.Settings) (err error) {
	r.current, err = openDirectory(s)
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
