package mux_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeShowsTheExample: the embedding example of the README is the Example, which
// compiles and runs.
func TestReadmeShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```go\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("README.md has no Go code")
	}
	_, body, _ := strings.Cut(string(example), "func Example() {\n")
	body, _, _ = strings.Cut(body, "\n}\n")
	for line := range strings.Lines(block) {
		// The rest of the Example plays the client.
		if !strings.Contains(body+"\n", "\t"+line) && strings.TrimSpace(line) != "" {
			t.Errorf("not in the Example: %q", line)
		}
	}
}
