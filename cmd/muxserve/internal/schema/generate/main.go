// Command generate writes the files of package schema. It is run by go generate
// in the directory of that package.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/schema"
)

// root is the directory of the module, as seen from that of package schema.
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
		// The files are as readable as the sources that they are made from.
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil { //nolint:gosec // See above.
			return err
		}
	}
	return nil
}
