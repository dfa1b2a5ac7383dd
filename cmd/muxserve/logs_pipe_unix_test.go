//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestLogsWithoutReader: a process whose log nobody reads any more serves, though it has
// something to log before that.
func TestLogsWithoutReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_ = r.Close()
	dir := socketDir(t)
	config, service := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "s")
	settings := "listeners: [{address: \"unix:" + service + "\"}]\nadmin: {address: \"unix:" + filepath.Join(dir, "a") + "\"}\n"
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	// The variable is worth a warning.
	launchAs(t, func(cmd *exec.Cmd) { cmd.Stderr = w }, []string{"MUXSERVE_NO_SUCH_KEY=1"}, "--config", config, textLog)
	client := freshClient(t, service)
	eventually(t, "it serves", func() bool {
		status, _, err := fetch(t.Context(), client, "GET", mustURL(t, "http://localhost/livez"), nil)
		return err == nil && status == 200
	})
}
