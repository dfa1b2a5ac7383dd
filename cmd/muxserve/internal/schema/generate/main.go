// Command generate writes the files of package schema. go generate runs it in the
// directory of that package.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/schema"
)

// root is the directory of the module, relative to the directory of package schema.
const root = "../../../.."

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	files, err := schema.Files(root)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil { //nolint:gosec // Sources are readable.
			return err
		}
	}
	return nil
}
