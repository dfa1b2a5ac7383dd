// Command generate writes the reference of the log. go generate runs it in the directory of
// package logref.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/logref"
)

// root is the directory of the module, relative to the directory of package logref.
const root = "../../../.."

func main() {
	text, err := logref.Reference(root)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, logref.Name), text, 0o644); err != nil { //nolint:gosec // Sources are readable.
		log.Fatal(err)
	}
}
