package mux_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExportedNamesAreShown: an Example, or the code in a comment, shows each function,
// method and option of package mux. For types, constants and variables a link is enough,
// and for a field its own comment.
func TestExportedNamesAreShown(t *testing.T) {
	t.Parallel()
	s, _ := ours(t)
	files := s.packages[modulePath+"/mux"]
	imp := importer.ForCompiler(token.NewFileSet(), "gc", exportData(t))
	pkg, err := imp.Import(modulePath + "/mux")
	if err != nil {
		t.Fatal(err)
	}
	declared := declarations(pkg)
	if len(declared) < 200 {
		t.Fatalf("%d names", len(declared))
	}
	used := usedInExamples(t, imp, declared)
	code, links := commented(files)
	for object, name := range declared {
		if used[name] {
			continue
		}
		_, last, isMember := strings.Cut(name, ".")
		var shown bool
		switch o := object.(type) {
		case *types.Func:
			shown = !isMember && strings.Contains(code, "mux."+name+"(") || isMember && strings.Contains(code, "."+last+"(") ||
				strings.Contains(methodComment(files, name), last+" implements [")
		case *types.Var:
			shown = links[name] || o.IsField() && fieldDocumented(files, name)
		default:
			shown = links[name]
		}
		if !shown {
			t.Errorf("no Example and no comment shows %s", name)
		}
	}
}

// exportData returns a function that opens the compiler's description of a package.
func exportData(t *testing.T) importer.Lookup {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Export", "./mux")
	cmd.Dir = moduleRoot
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := make(map[string]string)
	for dec := json.NewDecoder(strings.NewReader(string(stdout))); ; {
		var p struct{ ImportPath, Export string }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		found[p.ImportPath] = p.Export
	}
	return func(path string) (io.ReadCloser, error) {
		if found[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(found[path])
	}
}

// declarations returns the exported names of a package: those of its declarations, and of
// the fields and methods of its own types, as Type.Name.
func declarations(pkg *types.Package) map[types.Object]string {
	all := make(map[types.Object]string)
	for _, name := range pkg.Scope().Names() {
		o := pkg.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		all[o] = name
		named, ok := o.Type().(*types.Named)
		if _, isType := o.(*types.TypeName); !ok || !isType || named.Obj().Pkg() != pkg {
			continue
		}
		for m := range named.Methods() {
			if m.Exported() {
				all[m] = name + "." + m.Name()
			}
		}
		if s, ok := named.Underlying().(*types.Struct); ok {
			for f := range s.Fields() {
				if f.Exported() && !f.Embedded() {
					all[f] = name + "." + f.Name()
				}
			}
		}
	}
	return all
}

// usedInExamples returns the names that the bodies of Examples use.
func usedInExamples(t *testing.T, imp types.Importer, declared map[types.Object]string) map[string]bool {
	t.Helper()
	names, err := filepath.Glob("example*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: imp, Error: func(error) {}} // What other files declare is missing.
	_, _ = config.Check("mux_test", set, files, info)
	used := make(map[string]bool)
	for _, file := range files {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Example") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					if name := declared[info.Uses[id]]; name != "" {
						used[name] = true
					}
				}
				return true
			})
		}
	}
	return used
}

// commented returns the code in a package's comments, and what they link to.
func commented(files map[string]*ast.File) (code string, links map[string]bool) {
	links = make(map[string]bool)
	p := &comment.Parser{LookupSym: func(string, string) bool { return true }}
	var all strings.Builder
	for _, file := range files {
		for _, group := range file.Comments {
			d := p.Parse(group.Text())
			for _, block := range d.Content {
				if c, ok := block.(*comment.Code); ok {
					all.WriteString(c.Text)
				}
			}
			for _, text := range texts(d) {
				if link, ok := text.(*comment.DocLink); ok && link.ImportPath == "" {
					links[strings.TrimPrefix(link.Recv+"."+link.Name, ".")] = true
				}
			}
		}
	}
	return all.String(), links
}

// methodComment returns the comment of a method.
func methodComment(files map[string]*ast.File, name string) string {
	for _, file := range files {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && funcName(f) == name {
				return f.Doc.Text()
			}
		}
	}
	return ""
}

// fieldDocumented reports whether a field has a comment, its own or that of the fields above
// it, or one in its line.
func fieldDocumented(files map[string]*ast.File, name string) bool {
	typ, field, _ := strings.Cut(name, ".")
	if fieldComment(files, typ, field) != "" {
		return true
	}
	return slices.ContainsFunc(structFields(files, typ), func(f *ast.Field) bool {
		return f.Comment != nil && slices.ContainsFunc(f.Names, func(id *ast.Ident) bool { return id.Name == field })
	})
}
