package mux_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/lifecycle"
	"github.com/muxserve/muxserve/mux"
)

// readPage returns a page by its path from the root of the module.
func readPage(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(moduleRoot, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// pageSection returns what stands below a heading of a page, up to the next heading.
func pageSection(t *testing.T, page, heading string) string {
	t.Helper()
	_, below, found := strings.Cut(page, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("no heading %q", heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	return below
}

// tableRows returns the cells of the tables in a text, without their first two rows.
func tableRows(text string) (rows [][]string) {
	inTable := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inTable = 0
			continue
		}
		if inTable++; inTable > 2 {
			rows = append(rows, regexp.MustCompile(`\s+\|\s*`).Split(strings.Trim(line, "| "), -1))
		}
	}
	return rows
}

// howItWorks is the page about the code.
const howItWorks = "mux/HOW_IT_WORKS.md"

// namedCode is the name of a file and of what it declares: `conn.go` `classify`, `Close`.
var (
	namedCode = regexp.MustCompile("`([\\w./*-]+\\.go)`((?:,? `[A-Za-z_][\\w.]*`)*)")
	namedDir  = regexp.MustCompile("`([\\w./-]+/)`")
	namedTest = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Z]\\w*)`")
	codeName  = regexp.MustCompile("`([^`]+)`")
)

// TestHowItWorksNames: files, directories, functions and tests that HOW_IT_WORKS.md names
// exist. In the row of a package, names are of its directory.
func TestHowItWorksNames(t *testing.T) {
	t.Parallel()
	page := readPage(t, howItWorks)
	files, tests := 0, testNames(t)
	for line := range strings.Lines(page) {
		dirs := []string{"mux", "."}
		if first := regexp.MustCompile("^\\| `([\\w/]+)` \\|").FindStringSubmatch(line); first != nil {
			if info, err := os.Stat(filepath.Join(moduleRoot, first[1])); err == nil && info.IsDir() {
				dirs = []string{first[1]}
			}
		}
		for _, m := range namedCode.FindAllStringSubmatch(line, -1) {
			files++
			found := findFiles(dirs, m[1])
			if len(found) == 0 {
				t.Errorf("there is no file %s in %q", m[1], dirs)
				continue
			}
			for _, name := range codeName.FindAllStringSubmatch(m[2], -1) {
				if strings.HasSuffix(name[1], ".go") {
					if len(findFiles(dirs, name[1])) == 0 {
						t.Errorf("there is no file %s in %q", name[1], dirs)
					}
				} else if !slices.Contains(declared(t, found[0]), name[1]) {
					t.Errorf("%s does not declare %s", m[1], name[1])
				}
			}
		}
		for _, m := range namedDir.FindAllStringSubmatch(line, -1) {
			if len(findFiles(dirs, m[1])) == 0 {
				t.Errorf("there is no directory %s in %q", m[1], dirs)
			}
		}
	}
	named := namedTest.FindAllStringSubmatch(page, -1)
	for _, m := range named {
		if !tests[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
	if files < 60 || len(named) < 40 {
		t.Errorf("only %d files and %d tests were found on the page", files, len(named))
	}
}

// findFiles returns the files that a name stands for in the first directory that has any.
func findFiles(dirs []string, name string) []string {
	for _, dir := range dirs {
		if found, _ := filepath.Glob(filepath.Join(moduleRoot, dir, name)); len(found) > 0 {
			return found
		}
	}
	return nil
}

// declared returns the names that a file declares at its top, methods also with their type.
func declared(t *testing.T, name string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
			if d.Recv != nil {
				of := d.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				if id, ok := of.(*ast.Ident); ok {
					names = append(names, id.Name+"."+d.Name.Name)
				}
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, spec.Name.Name)
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	return names
}

// testNames returns the tests, benchmarks, fuzz targets and examples of all modules.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	pattern := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz|Example)\w*)\(`)
	walkRepository(t, "_test.go", func(name string, data []byte) {
		for _, m := range pattern.FindAllSubmatch(data, -1) {
			names[string(m[1])] = true
		}
	})
	return names
}

// walkRepository visits the files of the repository whose names end so.
func walkRepository(t *testing.T, suffix string, visit func(name string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(moduleRoot, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, suffix):
			return nil
		}
		data, err := os.ReadFile(name)
		if err == nil {
			visit(name, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHowItWorksReasons: each clever thing of HOW_IT_WORKS.md says why it is there, where
// it stands, and which test or which operation of testdata/bench shows it.
func TestHowItWorksReasons(t *testing.T) {
	t.Parallel()
	var bench []byte
	sources, err := filepath.Glob(filepath.Join(moduleRoot, "testdata", "bench", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bench = append(bench, data...)
	}
	rows := tableRows(pageSection(t, readPage(t, howItWorks), "Why each clever thing is there"))
	if len(rows) < 20 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, row := range rows {
		if len(row) != 4 || row[1] == "" || !namedCode.MatchString(row[2]) {
			t.Errorf("without a reason or a file: %q", row)
			continue
		}
		proofs := codeName.FindAllStringSubmatch(row[3], -1)
		if len(proofs) == 0 {
			t.Errorf("nothing shows it: %q", row)
		}
		for _, m := range proofs {
			if !namedTest.MatchString(m[0]) && !strings.Contains(string(bench), `{name: "`+m[1]+`"`) {
				t.Errorf("%s is neither a test nor an operation of testdata/bench", m[1])
			}
		}
	}
}

// TestHowItWorksMachines: HOW_IT_WORKS.md has the stages and the steps of the drain in
// their order, and the way of a connection goes through every stage.
func TestHowItWorksMachines(t *testing.T) {
	t.Parallel()
	page := readPage(t, howItWorks)
	inCode := func(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }
	for _, want := range []string{inCode(mux.StageNames()), inCode(lifecycle.Steps())} {
		if !strings.Contains(page, ": "+want+".") {
			t.Errorf("not on the page: %s", want)
		}
	}
	var stages []string
	for _, row := range tableRows(pageSection(t, page, "The way of one connection")) {
		stages = append(stages, strings.Trim(row[1], "`"))
	}
	if diff := cmp.Diff(mux.StageNames(), slices.Compact(stages)); diff != "" {
		t.Errorf("stages of the way (-code +page):\n%s", diff)
	}
	for name := range strings.FieldsSeq("listeners protocols pool lifecycle mux cmd/muxserve mux/muxprom mux/muxtest") {
		if !strings.Contains(pageSection(t, page, "Which package owns what"), "\n| `"+name+"` | ") {
			t.Errorf("%s is missing", name)
		}
	}
}

// plainPages are the pages whose sentences have at most maxWords words.
var plainPages = []string{
	"README.md",
	howItWorks,
	"mux/COMING_FROM.md",
	"mux/EMBEDDING.md",
	"cmd/muxserve/README.md",
	"cmd/muxserve/LIMITS.md",
	"cmd/muxserve/OPERATING.md",
	"cmd/muxserve/TROUBLESHOOTING.md",
}

const maxWords = 25

// TestPagesReadPlainly: no sentence of the guides is longer than maxWords.
func TestPagesReadPlainly(t *testing.T) {
	t.Parallel()
	for _, name := range plainPages {
		sentences := sentencesOf(readPage(t, name))
		if len(sentences) < 20 {
			t.Errorf("%s: only %d sentences", name, len(sentences))
		}
		for _, s := range sentences {
			if n := len(strings.Fields(s)); n > maxWords {
				t.Errorf("%s: %d words: %s", name, n, s)
			}
		}
	}
}

// sentencesOf returns the sentences of a page in Markdown, those in the cells of its tables
// included. Code, headings and comments have none.
func sentencesOf(page string) (sentences []string) {
	page = regexp.MustCompile("(?s)```.*?```|<!--.*?-->").ReplaceAllString(page, "")
	page = regexp.MustCompile(`\]\([^)]*\)`).ReplaceAllString(page, "]")
	var text strings.Builder
	for line := range strings.Lines(page) {
		switch {
		case strings.HasPrefix(line, "#"), strings.HasPrefix(line, "    "), strings.TrimSpace(line) == "":
			text.WriteString(". ")
		case strings.HasPrefix(line, "|"):
			text.WriteString(strings.ReplaceAll(line, " | ", ". "))
			text.WriteString(". ")
		case strings.HasPrefix(line, "- "):
			text.WriteString(". " + line)
		default:
			text.WriteString(line)
		}
	}
	for _, s := range regexp.MustCompile(`[.?!]\s|\s·\s`).Split(text.String(), -1) {
		if s = strings.TrimSpace(strings.Trim(s, "|.- \n")); s != "" {
			sentences = append(sentences, s)
		}
	}
	return sentences
}

// link is a link in Markdown to a file of the repository or to a heading.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinksOfPages: the links in all pages of the repository lead to a file, and to a
// heading where they name one.
func TestLinksOfPages(t *testing.T) {
	t.Parallel()
	found := 0
	walkRepository(t, ".md", func(name string, data []byte) {
		text := regexp.MustCompile("(?s)```.*?```|`[^`\n]*`").ReplaceAllString(string(data), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			found++
			path, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: there is no %s", name, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			data, err := os.ReadFile(target)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !slices.Contains(anchors(string(data)), anchor) {
				t.Errorf("%s: there is no heading for %s", name, m[1])
			}
		}
	})
	if found < 30 {
		t.Errorf("only %d links were found", found)
	}
}

// anchors returns the names under which the headings of a page can be reached.
func anchors(page string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}
