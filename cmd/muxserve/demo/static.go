package demo

import (
	"net/http"
	"os"
	"strings"
)

// rootFiles shows a directory as a file system that no link leads out of. Unlike
// the one of os.Root.FS, its files are *os.File, which the kernel can send by itself.
type rootFiles struct{ root *os.Root }

// Open implements [http.FileSystem]; name is a clean path that begins with a slash.
func (f rootFiles) Open(name string) (http.File, error) {
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		name = "."
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	return file, nil
}
