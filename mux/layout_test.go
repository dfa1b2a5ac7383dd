package mux_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	modulePath = "github.com/muxserve/muxserve"
	moduleRoot = ".." // Tests run in the directory of their package.
)

// leaves are the packages that import no sibling. Each has the modules that it, or a
// package below it, may import directly. All may import the standard library.
var leaves = map[string][]string{
	"lifecycle": {},
	"listeners": {
		"github.com/pires/go-proxyproto",
		"github.com/youmark/pkcs8", // Encrypted PKCS#8 keys, which crypto/x509 does not read.
		"golang.org/x/sys",         // Socket options that package syscall, which is frozen, lacks.
	},
	"pool": {},
	"protocols": {
		"github.com/coder/websocket",
		"golang.org/x/net",
		"google.golang.org/grpc",
	},
}

// goPackage is what these tests read of `go list -json`.
type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path string }
}

func TestLeavesImportNoSibling(t *testing.T) {
	t.Parallel()
	_, packages := ours(t)
	checked := map[string]bool{}
	for _, pkg := range packages {
		leaf, ok := topDirectory(pkg.ImportPath)
		if _, isLeaf := leaves[leaf]; !ok || !isLeaf {
			continue
		}
		checked[leaf] = true
		for _, dep := range pkg.Deps {
			if sibling, ok := topDirectory(dep); ok && sibling != leaf {
				t.Errorf("%s depends on %s; only mux and cmd compose the leaf packages", pkg.ImportPath, dep)
			}
		}
	}
	for leaf := range leaves {
		if !checked[leaf] {
			t.Errorf("package %s was not found, so nothing was checked", leaf)
		}
	}
}

func TestLeavesImportOnlyTheirModules(t *testing.T) {
	t.Parallel()
	_, packages := ours(t)
	for _, pkg := range packages {
		leaf, ok := topDirectory(pkg.ImportPath)
		allowed, isLeaf := leaves[leaf]
		if !ok || !isLeaf {
			continue
		}
		for _, path := range pkg.Imports {
			dep := packages[path]
			if dep.Standard || dep.Module == nil || dep.Module.Path == modulePath {
				continue
			}
			if !slices.Contains(allowed, dep.Module.Path) {
				t.Errorf("%s imports %s; %s may import of other modules only %q", pkg.ImportPath, path, leaf, allowed)
			}
		}
	}
}

// TestOneFileKnowsCmux: all that knows cmux stands in mux/cmux.go. cmux's own matchers
// fit a [mux.Matcher], so tests may import it.
func TestOneFileKnowsCmux(t *testing.T) {
	t.Parallel()
	var importers []string
	_, packages := ours(t)
	for _, pkg := range packages {
		if _, isOurs := topDirectory(pkg.ImportPath); !isOurs || !slices.Contains(pkg.Imports, "github.com/soheilhy/cmux") {
			continue
		}
		for _, name := range pkg.GoFiles {
			source, err := os.ReadFile(filepath.Join(pkg.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(source), `"github.com/soheilhy/cmux"`) {
				importers = append(importers, name)
			}
		}
	}
	if diff := cmp.Diff([]string{"cmux.go"}, importers); diff != "" {
		t.Errorf("files that import cmux (-want +got):\n%s", diff)
	}
}

// TestLibraryLinksNoModuleOfTheServer keeps what only the server muxserve, or an embedder
// that asks for it, needs out of the binaries of all others.
func TestLibraryLinksNoModuleOfTheServer(t *testing.T) {
	t.Parallel()
	_, packages := ours(t)
	for path, pkg := range packages {
		if leaf, _ := topDirectory(path); leaves[leaf] == nil && path != modulePath+"/mux" {
			continue
		}
		for _, dep := range pkg.Deps {
			if strings.HasPrefix(dep, "github.com/prometheus/") || strings.HasPrefix(dep, "connectrpc.com/") {
				t.Errorf("%s links %s", path, dep)
			}
		}
	}
}

func TestTopLevelEntries(t *testing.T) {
	t.Parallel()
	allowed := []string{
		".ci", ".gitignore", ".golangci.yml", ".goreleaser.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md",
		"cmd", "go.mod", "go.sum", "lifecycle", "listeners", "mux", "pool", "protocols", "testdata",
	}
	ignored := ignoredTopLevel(t)
	entries, err := os.ReadDir(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	var unexpected []string
	for _, entry := range entries {
		name := entry.Name()
		if name != ".git" && !slices.Contains(allowed, name) && !slices.Contains(ignored, name) {
			unexpected = append(unexpected, name)
		}
	}
	if diff := cmp.Diff([]string(nil), unexpected); diff != "" {
		t.Errorf("unexpected entries at the top of the repository (-want +got):\n%s", diff)
	}
}

// listDeps returns the packages of this module and all their dependencies, tests aside,
// by import path. Tests ask ours, which lists them once.
func listDeps(t *testing.T) map[string]goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,Imports,Deps,Standard,Module", "./...")
	cmd.Dir = moduleRoot
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	packages := map[string]goPackage{}
	for dec := json.NewDecoder(strings.NewReader(string(stdout))); ; {
		var pkg goPackage
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages[pkg.ImportPath] = pkg
	}
}

// topDirectory returns the first directory of a package of this module. ok is false for a
// package of another module.
func topDirectory(importPath string) (directory string, ok bool) {
	rest, ok := strings.CutPrefix(importPath, modulePath+"/")
	directory, _, _ = strings.Cut(rest, "/")
	return directory, ok
}

// ignoredTopLevel returns the names that .gitignore anchors at the top, such as the
// binary that go build leaves there.
func ignoredTopLevel(t *testing.T) []string {
	t.Helper()
	file, err := os.Open(filepath.Join(moduleRoot, ".gitignore"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // A module zip may come without it.
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var names []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "/"); ok {
			names = append(names, strings.TrimSuffix(name, "/"))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}
