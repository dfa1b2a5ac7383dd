package mux_test

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

// sources are parsed packages.
type sources struct {
	set      *token.FileSet
	packages map[string]map[string]*ast.File // by import path and file name
}

// parsed has what ours has returned.
var parsed struct {
	mu      sync.Mutex
	sources sources
	deps    map[string]goPackage
}

// ours returns the packages of this module, without tests, which must not be changed, and
// where they and their dependencies are.
func ours(t *testing.T) (sources, map[string]goPackage) {
	t.Helper()
	parsed.mu.Lock()
	defer parsed.mu.Unlock()
	if parsed.deps != nil {
		return parsed.sources, parsed.deps
	}
	s, deps := sources{token.NewFileSet(), make(map[string]map[string]*ast.File)}, listDeps(t)
	for path, pkg := range deps {
		if _, ok := topDirectory(path); ok && len(pkg.GoFiles) > 0 {
			s.packages[path] = s.parse(t, pkg.Dir, pkg.GoFiles)
		}
	}
	if len(s.packages) < 10 {
		t.Fatalf("%d packages", len(s.packages))
	}
	parsed.sources, parsed.deps = s, deps
	return s, deps
}

func (s sources) parse(t *testing.T, dir string, names []string) map[string]*ast.File {
	t.Helper()
	files := make(map[string]*ast.File)
	for _, name := range names {
		file, err := parser.ParseFile(s.set, filepath.Join(dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return files
}

// symbols returns what the documentation of a package can link to: its exported
// declarations, and their methods as Type.Method.
func symbols(files map[string]*ast.File) map[string]bool {
	names, embedded := make(map[string]bool), make(map[string]string)
	for _, file := range files {
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names[funcName(d)] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					addSpec(names, embedded, spec)
				}
			}
		}
	}
	for outer, inner := range embedded {
		for _, name := range slices.Collect(maps.Keys(names)) {
			if method, ok := strings.CutPrefix(name, inner+"."); ok {
				names[outer+"."+method] = true
			}
		}
	}
	return names
}

// funcName returns the name of a function, or Type.Method.
func funcName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if index, ok := receiver.(*ast.IndexExpr); ok {
		receiver = index.X
	}
	return fmt.Sprintf("%s.%s", receiver, d.Name.Name)
}

// addSpec adds the names of a declaration, and the structs that embed an unexported type,
// whose methods go doc shows as those of the struct.
func addSpec(names map[string]bool, embedded map[string]string, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		names[spec.Name.Name] = true
		switch typ := spec.Type.(type) {
		case *ast.InterfaceType:
			for _, m := range typ.Methods.List {
				for _, name := range m.Names {
					names[spec.Name.Name+"."+name.Name] = true
				}
			}
		case *ast.StructType:
			for _, f := range typ.Fields.List {
				if id, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 && !id.IsExported() {
					embedded[spec.Name.Name] = id.Name
				}
			}
		}
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			names[name.Name] = true
		}
	}
}

// TestDocLinks: every [Name] in the comments of this module is a link to something that
// exists, as pkg.go.dev resolves it.
func TestDocLinks(t *testing.T) {
	t.Parallel()
	s, deps := ours(t)
	known := make(map[string]map[string]bool)
	lookup := func(path string) map[string]bool {
		if known[path] == nil {
			files := s.packages[path]
			if files == nil {
				files = parseOther(t, s, deps, path)
			}
			known[path] = symbols(files)
		}
		return known[path]
	}
	links := 0
	for path, files := range s.packages {
		for _, file := range files {
			p := &comment.Parser{
				LookupSym:     func(string, string) bool { return true },
				LookupPackage: imported(path, files),
			}
			for _, group := range file.Comments {
				for _, text := range texts(p.Parse(group.Text())) {
					switch text := text.(type) {
					case comment.Plain:
						if m := notLinked.FindString(string(text)); m != "" {
							t.Errorf("%s: %s is no link", s.set.Position(group.Pos()), m)
						}
					case *comment.DocLink:
						links++
						name := text.Name
						if text.Recv != "" {
							name = text.Recv + "." + name
						}
						of := text.ImportPath
						if of == "" {
							of = path
						}
						if name != "" && !lookup(of)[name] {
							t.Errorf("%s: %s has no %s", s.set.Position(group.Pos()), of, name)
						}
					}
				}
			}
		}
	}
	if links < 200 {
		t.Errorf("%d links were found", links)
	}
}

// notLinked is text that looks like a link. Indices and terms of a grammar do not.
var notLinked = regexp.MustCompile(`\[\*?(?:[a-z]\w*[./])*[A-Z]\w*[a-z]\w*(?:\.[A-Z]\w*)*\]`)

// parseOther parses a package of another module.
func parseOther(t *testing.T, s sources, deps map[string]goPackage, path string) map[string]*ast.File {
	t.Helper()
	pkg, ok := deps[path]
	if !ok { // A package of the standard library that only a comment names.
		found, err := build.Import(path, ".", 0)
		if err != nil {
			t.Errorf("a link to %s: %v", path, err)
			return nil
		}
		pkg = goPackage{Dir: found.Dir, GoFiles: found.GoFiles}
	}
	return s.parse(t, pkg.Dir, pkg.GoFiles)
}

// imported returns a function that finds the import path of a package by the name that it
// has in one of the files.
func imported(path string, files map[string]*ast.File) func(string) (string, bool) {
	byName := make(map[string]string)
	for _, file := range files {
		byName[file.Name.Name] = path
		for _, spec := range file.Imports {
			of, _ := strconv.Unquote(spec.Path.Value)
			base := filepath.Base(of)
			if version.MatchString(base) {
				base = filepath.Base(filepath.Dir(of))
			}
			if spec.Name != nil {
				base = spec.Name.Name
			}
			byName[base] = of
		}
	}
	return func(name string) (string, bool) {
		if of, ok := byName[name]; ok {
			return of, true
		}
		return comment.DefaultLookupPackage(name)
	}
}

var version = regexp.MustCompile(`^v\d+$`)

// texts returns the pieces of text of a comment, code aside.
func texts(d *comment.Doc) []comment.Text {
	var all []comment.Text
	var add func(blocks []comment.Block)
	add = func(blocks []comment.Block) {
		for _, b := range blocks {
			switch b := b.(type) {
			case *comment.Paragraph:
				all = append(all, b.Text...)
			case *comment.Heading:
				all = append(all, b.Text...)
			case *comment.List:
				for _, item := range b.Items {
					add(item.Content)
				}
			}
		}
	}
	add(d.Content)
	return all
}

// TestGoDoc: go doc has something to say about every package and every exported name.
func TestGoDoc(t *testing.T) {
	t.Parallel()
	s, deps := ours(t)
	for path := range s.packages {
		files := s.parse(t, deps[path].Dir, deps[path].GoFiles) // Package doc writes into them.
		maps.DeleteFunc(files, func(_ string, file *ast.File) bool { return ast.IsGenerated(file) })
		p, err := doc.NewFromFiles(s.set, slices.Collect(maps.Values(files)), path, doc.PreserveAST)
		if err != nil {
			t.Fatal(err)
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
			if _, command, _ := strings.Cut(path, "/cmd/"); strings.Contains(command, "/") {
				want = "" // It is for go generate.
			}
		}
		if p.Doc == "" || !strings.HasPrefix(p.Doc, want) {
			t.Errorf("the comment of package %s begins with %.40q", path, p.Doc)
		}
		undocumented := func(name, text string, names ...string) {
			if text == "" && slices.ContainsFunc(append(names, name), token.IsExported) {
				t.Errorf("%s.%s has no comment", path, name)
			}
		}
		for _, f := range p.Funcs {
			undocumented(f.Name, f.Doc)
		}
		for _, v := range slices.Concat(p.Consts, p.Vars) {
			undocumented(v.Names[0], v.Doc+lineComments(v.Decl), v.Names...)
		}
		for _, typ := range p.Types {
			undocumented(typ.Name, typ.Doc)
			for _, f := range typ.Funcs {
				undocumented(f.Name, f.Doc)
			}
			for _, v := range slices.Concat(typ.Consts, typ.Vars) {
				undocumented(v.Names[0], v.Doc+lineComments(v.Decl), v.Names...)
			}
		}
	}
}

// lineComments returns the comments of the lines of a declaration.
func lineComments(d *ast.GenDecl) string {
	var all strings.Builder
	for _, spec := range d.Specs {
		if v, ok := spec.(*ast.ValueSpec); ok {
			all.WriteString(v.Doc.Text() + v.Comment.Text())
		}
	}
	return all.String()
}

// TestDefaultsInDocs: the comment of each number of the configuration says its default.
func TestDefaultsInDocs(t *testing.T) {
	t.Parallel()
	s, _ := ours(t)
	checked := 0
	eachField(reflect.ValueOf(mux.DefaultConfig()), "", func(path string, owner reflect.Type, f reflect.StructField, v reflect.Value) {
		text := fieldComment(s.packages[owner.PkgPath()], owner.Name(), f.Name)
		if text == "" {
			t.Errorf("%s has no comment", path)
		}
		if path == "Limits.MaxConnections" { // It depends on the machine.
			if !strings.Contains(text, "Default: nine tenths of the descriptors that the process may open, less 64, and at most 50,000.") {
				t.Errorf("%s: %s", path, text)
			}
			return
		}
		isNumber := v.CanInt() || v.CanUint() || v.CanFloat()
		if v.IsZero() && !isNumber {
			return // off, empty
		}
		checked++
		want := shownValue(f.Name, v)
		said := defaultForm.FindString(text)
		says := regexp.MustCompile(`[ ,]` + regexp.QuoteMeta(want) + `(,| and|\.$)`).MatchString(said)
		if !says && !(v.IsZero() && zeroForm.MatchString(text)) {
			t.Errorf("%s is %s by default, and its comment says %q", path, want, said)
		}
	})
	if checked < 50 {
		t.Errorf("%d fields", checked)
	}
}

var (
	defaultForm = regexp.MustCompile(`\bDefaults? (?:[^.]|\.\d)+\.`)
	zeroForm    = regexp.MustCompile(`\b(0|Zero), the default`)
)

// eachField calls f for each field of a configuration that is no section.
func eachField(v reflect.Value, path string, f func(path string, owner reflect.Type, field reflect.StructField, v reflect.Value)) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		name := path + field.Name
		switch {
		case field.Name == "Listeners":
			eachField(value.Index(0), name+"[0].", f)
		case value.Kind() == reflect.Struct:
			eachField(value, name+".", f)
		case field.Name != "Extra" && field.Name != "Address": // The address is mux's own.
			f(name, v.Type(), field, value)
		}
	}
}

// fieldComment returns the comment of a field. A field right below another, without a
// comment of its own, shares that of the other.
func fieldComment(files map[string]*ast.File, typ, field string) string {
	shared := ""
	for _, f := range structFields(files, typ) {
		if f.Doc != nil {
			shared = strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
		if slices.ContainsFunc(f.Names, func(id *ast.Ident) bool { return id.Name == field }) {
			return shared
		}
	}
	return ""
}

// hasField reports whether the struct has the field.
func hasField(files map[string]*ast.File, typ, field string) bool {
	return slices.ContainsFunc(structFields(files, typ), func(f *ast.Field) bool {
		return slices.ContainsFunc(f.Names, func(id *ast.Ident) bool { return id.Name == field })
	})
}

// structFields returns the fields of a struct, and nil for another type.
func structFields(files map[string]*ast.File, typ string) []*ast.Field {
	for _, file := range files {
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				if s, ok := spec.(*ast.TypeSpec).Type.(*ast.StructType); ok && spec.(*ast.TypeSpec).Name.Name == typ {
					return s.Fields.List
				}
			}
		}
	}
	return nil
}

// shownValue returns a value as people write it: 2m, 64 KiB.
func shownValue(name string, v reflect.Value) string {
	if d, ok := reflect.TypeAssert[time.Duration](v); ok {
		if d == 0 {
			return "0"
		}
		return strings.Replace(d.String(), "m0s", "m", 1)
	}
	if bytesForm.MatchString(name) && (v.CanInt() || v.CanUint()) {
		n, _ := strconv.Atoi(fmt.Sprint(v))
		switch {
		case n > 0 && n%(1<<20) == 0:
			return fmt.Sprintf("%d MiB", n>>20)
		case n > 0 && n%(1<<10) == 0:
			return fmt.Sprintf("%d KiB", n>>10)
		}
	}
	return fmt.Sprint(v)
}

var bytesForm = regexp.MustCompile(`Bytes|Window|ReadLimit`)

// TestDefaultConfigShowsTheNumbers: the comment of DefaultConfig lists what is not zero.
func TestDefaultConfigShowsTheNumbers(t *testing.T) {
	t.Parallel()
	want := []string{"Listeners[0].Address " + mux.DefaultAddress}
	eachField(reflect.ValueOf(mux.DefaultConfig()), "", func(path string, _ reflect.Type, f reflect.StructField, v reflect.Value) {
		switch {
		case path == "Limits.MaxConnections":
			want = append(want, path+" 0.9 x (descriptors - 64), at most 50,000")
		case !v.IsZero():
			want = append(want, path+" "+shownValue(f.Name, v))
		}
	})
	source, err := os.ReadFile("config.go")
	if err != nil {
		t.Fatal(err)
	}
	text, _, found := strings.Cut(string(source), "func DefaultConfig() Config {")
	if !found {
		t.Fatal("config.go has no DefaultConfig")
	}
	text = text[strings.LastIndex(text, "// DefaultConfig returns"):]
	var got []string
	for line := range strings.Lines(text) {
		if fields, ok := strings.CutPrefix(line, "//\t"); ok {
			got = append(got, strings.Join(strings.Fields(fields), " "))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("DefaultConfig and its comment (-want +got):\n%s", diff)
	}
}
