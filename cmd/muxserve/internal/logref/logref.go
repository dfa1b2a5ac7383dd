// Package logref generates the reference of the log: every message with its levels and keys.
// It reads the sources, so go generate runs it in the repository. The result is committed,
// and muxserve itself does not link this package.
package logref

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

//go:generate go run ../generate

// Name is where the reference stands, relative to the directory of the module.
const Name = "cmd/muxserve/LOGS.md"

// entry is one message.
type entry struct {
	message string
	levels  []string // the most serious first
	keys    []string
	owner   string // the package that logs it
}

// pkg is what is read of a package.
type pkg struct {
	directory string
	files     []*ast.File
	consts    map[string]string // of strings
	comments  map[string]string // of those, by their name
	maps      map[string][]string
}

// Reference returns the reference. root is the directory of the module.
func Reference(root string) ([]byte, error) {
	packages, err := read(root)
	if err != nil {
		return nil, err
	}
	var entries []entry
	keys := make(map[string]string)
	for _, p := range packages {
		found, err := p.entries()
		if err != nil {
			return nil, err
		}
		entries = append(entries, found...)
		for name, value := range p.consts {
			if isKey(name) && p.comments[name] != "" && (keys[value] == "" || p.directory == "mux") {
				keys[value] = p.comments[name]
			}
		}
	}
	return write(entries, keys), nil
}

// read parses the packages of the module, without tests.
func read(root string) ([]*pkg, error) {
	packages := make(map[string]*pkg)
	set := token.NewFileSet()
	for _, top := range []string{"lifecycle", "listeners", "mux", "pool", "protocols", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			directory, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			p := packages[directory]
			if p == nil {
				p = &pkg{
					directory: filepath.ToSlash(directory), consts: make(map[string]string),
					comments: make(map[string]string), maps: make(map[string][]string),
				}
				packages[directory] = p
			}
			p.files = append(p.files, file)
			p.declare(file)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("logref: %w", err)
		}
	}
	return slices.SortedFunc(maps.Values(packages), func(a, b *pkg) int { return strings.Compare(a.directory, b.directory) }), nil
}

// declare notes the package's string constants and its maps of strings.
func (p *pkg) declare(file *ast.File) {
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok || len(v.Values) != len(v.Names) {
				continue
			}
			for i, name := range v.Names {
				if text, ok := literal(v.Values[i]); ok && group.Tok == token.CONST {
					p.consts[name.Name] = text
					p.comments[name.Name] = strings.TrimSpace(v.Comment.Text())
				}
				if values, ok := v.Values[i].(*ast.CompositeLit); ok {
					for _, element := range values.Elts {
						if pair, ok := element.(*ast.KeyValueExpr); ok {
							if text, ok := literal(pair.Value); ok {
								p.maps[name.Name] = append(p.maps[name.Name], text)
							}
						}
					}
				}
			}
		}
	}
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}

func isKey(name string) bool {
	rest, ok := strings.CutPrefix(name, "key")
	return ok && rest != "" && rest[0] >= 'A' && rest[0] <= 'Z'
}

// levels are those of package slog, the most serious first.
var levels = []string{"Error", "Warn", "Info", "Debug"}

// entries returns what the functions of the package log.
func (p *pkg) entries() ([]entry, error) {
	var all []entry
	for _, file := range p.files {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			var fault error
			ast.Inspect(f.Body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || fault != nil {
					return fault == nil
				}
				var found []entry
				found, fault = p.logged(f, call)
				all = append(all, found...)
				return true
			})
			if fault != nil {
				return nil, fault
			}
		}
	}
	return all, nil
}

// logged returns the messages of a call, none of one that does not log.
func (p *pkg) logged(f *ast.FuncDecl, call *ast.CallExpr) ([]entry, error) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isLog(method.X) {
		return nil, nil
	}
	e := entry{owner: p.directory}
	var at int // of the message
	switch name := method.Sel.Name; {
	case slices.Contains(levels, name) && len(call.Args) > 0:
		e.levels = []string{name}
	case name == "Log" && len(call.Args) > 2, name == "LogAttrs" && len(call.Args) > 2:
		at = 2
		e.levels = levelsIn(call.Args[1])
		if len(e.levels) == 0 { // A variable, to which the function assigns levels.
			e.levels = levelsIn(f.Body)
		}
	default:
		return nil, nil
	}
	if call.Ellipsis.IsValid() { // Keys in a slice, which the function fills.
		e.keys = p.keysIn(f.Body)
	}
	for i, arg := range call.Args[at+1:] {
		if text, ok := literal(arg); ok && i%2 == 0 {
			e.keys = append(e.keys, text)
		}
		e.keys = append(e.keys, p.keysIn(arg)...)
	}
	slices.Sort(e.keys)
	e.keys = slices.Compact(e.keys)
	if slices.Contains(e.keys, "duration") {
		return nil, fmt.Errorf("logref: %s: %s logs a duration without its unit", p.directory, f.Name.Name)
	}
	messages := p.messages(f, call.Args[at])
	if len(messages) == 0 || len(e.levels) == 0 {
		return nil, fmt.Errorf("logref: %s: %s logs what is neither a text nor a constant", p.directory, f.Name.Name)
	}
	var all []entry
	for _, m := range messages {
		e.message = m
		all = append(all, e)
	}
	return all, nil
}

// isLog reports whether an expression is a logger, by its name.
func isLog(e ast.Expr) bool {
	var name string
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		name = e.Sel.Name
	case *ast.CallExpr: // slog.Default()
		s, ok := e.Fun.(*ast.SelectorExpr)
		return ok && s.Sel.Name == "Default"
	}
	name = strings.ToLower(name)
	return strings.HasSuffix(name, "log") || strings.HasSuffix(name, "logger") || name == "notices"
}

func levelsIn(n ast.Node) []string {
	var found []string
	ast.Inspect(n, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if name, ok := strings.CutPrefix(s.Sel.Name, "Level"); ok && slices.Contains(levels, name) && !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
		return true
	})
	return found
}

func (p *pkg) keysIn(n ast.Node) []string {
	var found []string
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && isKey(id.Name) && p.consts[id.Name] != "" {
			found = append(found, p.consts[id.Name])
		}
		return true
	})
	return found
}

// httpMessages stands for what net/http logs through the server's log.
const httpMessages = "(messages of net/http)"

// messages returns the texts that an expression may be.
func (p *pkg) messages(f *ast.FuncDecl, e ast.Expr) []string {
	if text, ok := literal(e); ok {
		return []string{text}
	}
	switch e := e.(type) {
	case *ast.Ident:
		if text, ok := p.consts[e.Name]; ok {
			return []string{text}
		}
		if p.directory == "protocols" && f.Name.Name == "Write" {
			return []string{httpMessages}
		}
	case *ast.IndexExpr:
		if table, ok := e.X.(*ast.Ident); ok {
			return p.maps[table.Name]
		}
	}
	return nil
}

// plain makes Markdown of a comment.
var plain = strings.NewReplacer("|", `\|`, "[", "", "]", "")

// write writes the reference.
func write(entries []entry, keys map[string]string) []byte {
	rank := func(e entry) int {
		return slices.IndexFunc(levels, func(l string) bool { return slices.Contains(e.levels, l) })
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.message, b.message), strings.Compare(a.owner, b.owner))
	})
	entries = slices.CompactFunc(entries, func(a, b entry) bool { return a.message == b.message && a.owner == b.owner })
	var out bytes.Buffer
	out.WriteString("# Log\n\n<!-- Generated by go generate ./cmd/muxserve/internal/logref. -->\n\n" +
		"Every line has `time`, `level` and `msg`, and in muxserve the `pid`. " +
		"What a client causes is logged at DEBUG. A line has those of its keys that it has a value for.\n\n" +
		"| level | message | keys | package |\n|---|---|---|---|\n")
	for _, e := range entries {
		var named []string
		for _, l := range levels {
			if slices.Contains(e.levels, l) {
				named = append(named, strings.ToUpper(l))
			}
		}
		used := make([]string, len(e.keys))
		for i, k := range e.keys {
			used[i] = "`" + k + "`"
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", strings.Join(named, " or "), e.message, strings.Join(used, ", "), e.owner)
	}
	out.WriteString("\n| key | meaning |\n|---|---|\n")
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		fmt.Fprintf(&out, "| `%s` | %s |\n", k, plain.Replace(keys[k]))
	}
	return out.Bytes()
}
