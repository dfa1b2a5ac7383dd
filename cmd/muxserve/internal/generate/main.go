// Command generate writes the files of packages schema and logref. go generate runs it in
// the directory of either.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/logref"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/schema"
)

// root is the directory of the module, relative to the directory of those packages.
const root = "../../../.."

func main() {
	files, err := schema.Files(root)
	if err != nil {
		log.Fatal(err)
	}
	if files[logref.Name], err = logref.Reference(root); err != nil {
		log.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil { //nolint:gosec // Sources are readable.
			log.Fatal(err)
		}
	}
}
