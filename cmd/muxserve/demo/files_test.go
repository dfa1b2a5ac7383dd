package demo

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// countedFiles counts the files that are open.
type countedFiles struct {
	http.FileSystem
	open atomic.Int32
}

func (c *countedFiles) Open(name string) (http.File, error) {
	f, err := c.FileSystem.Open(name)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedFile{f, c}, nil
}

type countedFile struct {
	http.File
	files *countedFiles
}

func (f *countedFile) Close() error {
	f.files.open.Add(-1)
	return f.File.Close()
}

// stuckWriter is a response whose client takes nothing until it is released.
type stuckWriter struct {
	*httptest.ResponseRecorder
	began   chan<- struct{}
	release <-chan struct{}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	if w.release != nil {
		w.began <- struct{}{}
		<-w.release
		w.release = nil
	}
	return w.ResponseRecorder.Write(p)
}

func writeFiles(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStuckFiles: clients that take nothing keep no more files open than that, and keep nobody
// out. What a file has become meanwhile does not get into an answer that has begun.
func TestStuckFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	content := bytes.Repeat([]byte("0123456789abcdef"), 32<<10)
	writeFiles(t, dir, map[string][]byte{"big": content})
	const most, requests = 2, 10
	files := &countedFiles{FileSystem: http.Dir(dir)}
	h := serveFiles(files, most)
	began, release, ended := make(chan struct{}), make(chan struct{}), make(chan *stuckWriter)
	ask := func(release chan struct{}) {
		w := &stuckWriter{httptest.NewRecorder(), began, release}
		go func() {
			defer func() {
				_ = recover() // net/http ends the answer like that.
				ended <- w
			}()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/big", nil))
		}()
	}
	for range requests {
		ask(release)
		<-began
	}
	if got := files.open.Load(); got != most {
		t.Errorf("%d files are open, want %d", got, most)
	}
	ask(nil)
	if w := <-ended; !bytes.Equal(w.Body.Bytes(), content) {
		t.Errorf("another client got %d bytes, want %d", w.Body.Len(), len(content))
	}
	if err := os.Chtimes(filepath.Join(dir, "big"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	close(release)
	whole := 0
	for range requests {
		if w := <-ended; w.Body.Len() == len(content) {
			whole++
		} else if !bytes.HasPrefix(content, w.Body.Bytes()) {
			t.Error("an answer has other content")
		}
	}
	if whole != most {
		t.Errorf("%d answers are whole, want the %d whose files were open", whole, most)
	}
	if got := files.open.Load(); got != 0 {
		t.Errorf("%d files are open in the end", got)
	}
}

// TestShutFiles: files that are opened anew for each read are served like others.
func TestShutFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{
		"big":            bytes.Repeat([]byte("0123456789abcdef"), 32<<10),
		"empty.txt":      nil,
		"page.html":      []byte("<p>x</p>"),
		".hidden":        []byte("x"),
		"sub/index.html": []byte("index"),
		"bare/a":         []byte("a"),
		"bare/.b":        []byte("b"),
	})
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	for _, files := range []Files{{Root: root}, {Root: root, Listings: true, DotFiles: true}} {
		open, shut := serveFiles(files, 1), serveFiles(files, 0)
		for _, path := range []string{"/", "/big", "/empty.txt", "/page.html", "/.hidden", "/sub/", "/sub", "/bare/", "/bare/a", "/none", "/sub/index.html"} {
			for _, fields := range []string{"", "bytes=10-19", "bytes=-5", "bytes=0-3,100-103", "bytes=9999999-"} {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					answer := func(h http.Handler) []any {
						w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), method, path, nil)
						if fields != "" {
							r.Header.Set("Range", fields)
						}
						h.ServeHTTP(w, r)
						body, _ := io.ReadAll(w.Body)
						return []any{w.Code, len(body), w.Header().Get("Content-Range"), w.Header().Get("Content-Length"), w.Header().Get("Last-Modified")}
					}
					if diff := cmp.Diff(answer(open), answer(shut)); diff != "" {
						t.Errorf("%s %s %q (-open +shut):\n%s", method, path, fields, diff)
					}
				}
			}
		}
	}
}
