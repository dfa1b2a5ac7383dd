package mux_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc"

	"github.com/muxserve/muxserve/mux"
)

// guides are the pages of this directory that show programs.
var guides = []string{"COMING_FROM.md", "EMBEDDING.md"}

// codeForm is a block of code in a page, with the file that it is from, and the function
// whose body it is; without one it is the whole file.
var codeForm = regexp.MustCompile("(?s)<!-- code: (\\S+)(?: (\\S+))? -->\n```go\n(.*?)```\n")

// TestGuidesShowPrograms: the code in the guides is code that compiles and runs. With UPDATE=1
// in the environment it is written there.
func TestGuidesShowPrograms(t *testing.T) {
	t.Parallel()
	for _, page := range guides {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := codeForm.FindAllStringSubmatch(string(text), -1)
		if n := strings.Count(string(text), "```go"); n != len(blocks) || n == 0 {
			t.Errorf("%s has %d blocks of code, and %d with a source", page, n, len(blocks))
		}
		updated := string(text)
		for _, b := range blocks {
			want := programText(t, b[1], b[2])
			if b[3] == want {
				continue
			}
			if os.Getenv("UPDATE") == "" {
				t.Errorf("%s: %s %s has other code; UPDATE=1 go test -run TestGuidesShowPrograms . in this directory writes it", page, b[1], b[2])
			}
			updated = strings.Replace(updated, b[0], strings.Replace(b[0], "```go\n"+b[3], "```go\n"+want, 1), 1)
		}
		if os.Getenv("UPDATE") != "" && updated != string(text) {
			if err := os.WriteFile(page, []byte(updated), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// programText returns a file, or the declaration of one of its functions if that has one
// line, or else the function's body.
func programText(t *testing.T, name, function string) string {
	t.Helper()
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if function == "" {
		return string(source)
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	offset := func(p token.Pos) int { return set.Position(p).Offset }
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != function {
			continue
		}
		body := string(source[offset(f.Body.Lbrace)+1 : offset(f.Body.Rbrace)])
		if !strings.Contains(body, "\n") {
			return string(source[offset(f.Pos()):offset(f.End())]) + "\n"
		}
		body, _, _ = strings.Cut(body, "\t// Output:")
		return strings.TrimPrefix(strings.ReplaceAll(body, "\n\t", "\n"), "\n")
	}
	t.Fatalf("%s has no function %s", name, function)
	return ""
}

// wordsOf returns the words in backquotes of a cell.
func wordsOf(cell string) []string {
	var words []string
	for _, m := range codeName.FindAllStringSubmatch(cell, -1) {
		words = append(words, m[1])
	}
	return words
}

// TestComingFromNames: the tables of COMING_FROM.md have every name of the other packages,
// and name what exists here.
func TestComingFromNames(t *testing.T) {
	t.Parallel()
	theirs := map[string][]string{
		"From net/http":                    exported(reflect.TypeFor[*http.Server]()),
		"From grpc.Server":                 append(exported(reflect.TypeFor[*grpc.Server]()), functions(t, "google.golang.org/grpc", "ServerOption")...),
		"From cmux":                        append(exported(reflect.TypeFor[cmux.CMux]()), functions(t, "github.com/soheilhy/cmux", "")...),
		"From ServeHTTP or h2c.NewHandler": nil,
		"From koatty_serve":                nil,
	}
	page := readPage(t, "mux/COMING_FROM.md")
	for heading, names := range theirs {
		var listed []string
		table := tableRows(pageSection(t, page, heading))
		if len(table) == 0 {
			t.Errorf("%s has no table", heading)
		}
		for _, row := range table {
			listed = append(listed, wordsOf(row[0])...)
			for _, name := range wordsOf(row[1]) {
				if ourName.MatchString(name) && !exists(t, name) {
					t.Errorf("%s: there is no %s", heading, name)
				}
			}
		}
		for _, name := range names {
			if !slices.Contains(listed, name) {
				t.Errorf("%s: the table has no %s", heading, name)
			}
		}
	}
}

// exported returns the methods of a type, and the fields of a struct.
func exported(typ reflect.Type) []string {
	var names []string
	for m := range typ.Methods() {
		names = append(names, m.Name)
	}
	if typ.Kind() == reflect.Pointer {
		for f := range typ.Elem().Fields() {
			if f.IsExported() {
				names = append(names, f.Name)
			}
		}
	}
	return names
}

// functions returns the exported functions of a package that return the type.
func functions(t *testing.T, path, result string) []string {
	t.Helper()
	s, deps := ours(t)
	var names []string
	for _, file := range parseOther(t, s, deps, path) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() || strings.Contains(f.Doc.Text(), "Deprecated:") {
				continue
			}
			if result == "" || f.Type.Results != nil && len(f.Type.Results.List) == 1 && fmt.Sprint(f.Type.Results.List[0].Type) == result {
				names = append(names, f.Name.Name)
			}
		}
	}
	if len(names) < 5 {
		t.Errorf("%s has %d functions", path, len(names))
	}
	return names
}

// ourName is a name of package mux: WithHandler, Server.Serve, Config.HTTP1.MaxAge.
var ourName = regexp.MustCompile(`^[A-Z]\w*(\.[A-Z]\w*|\[0\])*$`)

// exists reports whether package mux has the name.
func exists(t *testing.T, name string) bool {
	t.Helper()
	if path, ok := strings.CutPrefix(name, "Config."); ok {
		v := reflect.ValueOf(mux.DefaultConfig())
		for field := range strings.SplitSeq(path, ".") {
			field, isList := strings.CutSuffix(field, "[0]")
			if v.Kind() != reflect.Struct {
				return false
			}
			if v = v.FieldByName(field); !v.IsValid() {
				return false
			}
			if isList {
				v = v.Index(0)
			}
		}
		return true
	}
	s, _ := ours(t)
	files := s.packages[modulePath+"/mux"]
	typ, field, _ := strings.Cut(name, ".")
	return symbols(files)[name] || hasField(files, typ, field)
}
