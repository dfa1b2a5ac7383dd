// Package schema generates the descriptions of the configuration file: a JSON Schema, a
// reference and an example file. It needs the types of package settings and the comments
// in their sources, so go generate runs it in the repository. The results are committed,
// and muxserve itself does not link this package.
package schema

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

//go:generate go run ../generate

// modulePath begins the import path of every package of the module.
const modulePath = "github.com/muxserve/muxserve/"

// comments are the comments of all sections and their fields.
type comments map[string]*source // by import path

// source has the relevant declarations of a package.
type source struct {
	types  map[string]*typeDoc
	values map[string]string // of string constants
}

// typeDoc has the comments of a struct type and of its fields.
type typeDoc struct {
	text   string
	fields map[string]string
	names  map[string]string // of the fields in the file, by their names in Go
}

// readComments reads the sources of all packages that own a section. root is the directory
// of the module.
func readComments(root string) (comments, error) {
	d := make(comments)
	for _, k := range append(settings.Keys(), settings.Sections()...) {
		path := k.Struct.PkgPath()
		if d[path] != nil {
			continue
		}
		directory, ok := strings.CutPrefix(path, modulePath)
		if !ok {
			return nil, fmt.Errorf("schema: %s is of package %s, which is not of this module", k.Path, path)
		}
		s, err := readSource(filepath.Join(root, filepath.FromSlash(directory)))
		if err != nil {
			return nil, err
		}
		d[path] = s
	}
	return d, nil
}

func readSource(directory string) (*source, error) {
	names, err := filepath.Glob(filepath.Join(directory, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	s := &source{types: make(map[string]*typeDoc), values: make(map[string]string)}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
		for _, declaration := range file.Decls {
			if g, ok := declaration.(*ast.GenDecl); ok {
				s.add(files, g)
			}
		}
	}
	return s, nil
}

// add adds the types and constants of a declaration.
func (s *source) add(files *token.FileSet, g *ast.GenDecl) {
	for _, spec := range g.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			for i, value := range spec.Values {
				if literal, ok := value.(*ast.BasicLit); ok && g.Tok == token.CONST && literal.Kind == token.STRING {
					s.values[spec.Names[i].Name], _ = strconv.Unquote(literal.Value)
				}
			}
		case *ast.TypeSpec:
			if t, ok := spec.Type.(*ast.StructType); ok {
				s.types[spec.Name.Name] = readStruct(files, t, cmp.Or(spec.Doc, g.Doc).Text())
			}
		}
	}
}

// readStruct reads the comments of a struct. A field without a comment, right below
// another field, shares that field's comment.
func readStruct(files *token.FileSet, t *ast.StructType, text string) *typeDoc {
	d := &typeDoc{text: text, fields: make(map[string]string), names: make(map[string]string)}
	shared, line := "", 0
	for _, f := range t.Fields.List {
		switch {
		case f.Doc != nil:
			shared = f.Doc.Text()
		case files.Position(f.Pos()).Line != line+1:
			shared = ""
		}
		line = files.Position(f.End()).Line
		for _, name := range f.Names {
			d.fields[name.Name] = shared
			if f.Tag != nil {
				if m := yamlTag.FindStringSubmatch(f.Tag.Value); m != nil {
					d.names[name.Name] = m[1]
				}
			}
		}
	}
	return d
}

var yamlTag = regexp.MustCompile(`yaml:"([a-z0-9_]+)`)

// of returns the comment of a key or section as one paragraph. It replaces the names of
// fields by those of keys, and passes each through name.
func (d comments) of(k settings.Key, name func(string) string) string {
	s := d[k.Struct.PkgPath()]
	t := s.types[k.Struct.Name()]
	text := t.fields[k.Field]
	if isSection(k) && !strings.Contains(text, k.Field+" ") {
		// The comment is missing or belongs to the section above, so the type's is used, with
		// the field's name instead of the type's.
		text = ""
		if own := d[k.Type.PkgPath()]; own != nil && own.types[k.Type.Name()] != nil {
			text = strings.ReplaceAll(own.types[k.Type.Name()].text, k.Type.Name(), k.Field)
		}
	}
	text = seeForm.ReplaceAllString(text, "")
	text = defaultForm.ReplaceAllString(text, "")
	text = strings.Join(strings.Fields(text), " ")
	text = constantsForm.ReplaceAllStringFunc(text, func(string) string {
		return "one of " + strings.Join(named(constraintsOf(k).values), ", ")
	})
	text = linkForm.ReplaceAllStringFunc(text, func(link string) string {
		link = strings.Trim(link, "[]")
		if value, ok := s.values[link]; ok {
			return value
		}
		return link
	})
	return wordForm.ReplaceAllStringFunc(text, func(word string) string {
		if key, ok := t.names[word]; ok {
			return name(key)
		}
		return word
	})
}

var (
	// seeForm is a reference into the sources.
	seeForm = regexp.MustCompile(`; see\s+\[[A-Za-z.]+\]`)
	// defaultForm is the sentence with the default of a field, which the reference shows in a
	// column, and the schema and the example by its value.
	defaultForm = regexp.MustCompile(`\s*\bDefaults?:? (?:[^.]|\.\d)+\.`)
	// constantsForm refers to constants. The values that replace it are those of the file.
	constantsForm = regexp.MustCompile(`one of the \w+ constants`)
	// linkForm is a link to a declaration, as in [path.Match].
	linkForm = regexp.MustCompile(`\[[A-Za-z][A-Za-z0-9.]*\]`)
	// wordForm is a word that may be a field's name.
	wordForm = regexp.MustCompile(`\b[A-Z][A-Za-z0-9]*\b`)
)

// Files returns the generated files by their paths below the root of the module.
func Files(root string) (map[string][]byte, error) {
	docs, err := readComments(root)
	if err != nil {
		return nil, err
	}
	text, err := jsonSchema(docs)
	if err != nil {
		return nil, err
	}
	directory := filepath.Join("cmd", "muxserve")
	return map[string][]byte{
		filepath.Join(directory, "muxserve.schema.json"):  text,
		filepath.Join(directory, "muxserve.example.yaml"): example(docs),
		filepath.Join(directory, "CONFIGURATION.md"):      reference(docs),
	}, nil
}
