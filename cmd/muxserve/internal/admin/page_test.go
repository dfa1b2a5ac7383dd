package admin

import (
	"io/fs"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// readPage returns the files of the page by their names.
func readPage(t *testing.T) map[string]string {
	t.Helper()
	entries, err := pageFiles.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string, len(entries))
	for _, e := range entries {
		content, err := fs.ReadFile(pageFiles, "page/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(content)
	}
	return files
}

// TestPageIsWhole: every element that the scripts look up is in the document, and every
// module that they import is served. The page uses no other origin, no style that its
// policy forbids, and nothing that makes markup of a text.
func TestPageIsWhole(t *testing.T) {
	t.Parallel()
	files := readPage(t)
	lookup, imported := regexp.MustCompile(`byId\("([^"]+)"\)`), regexp.MustCompile(`from "\./([^"]+)"`)
	lookups, used := 0, []string{"main.js"}
	const namespace = "http://www.w3.org/2000/svg" // A name that no browser requests.
	for name, content := range files {
		for _, m := range lookup.FindAllStringSubmatch(content, -1) {
			lookups++
			if !strings.Contains(files["page.html"], `id="`+m[1]+`"`) {
				t.Errorf("%s: no element has the id %q", name, m[1])
			}
		}
		for _, m := range imported.FindAllStringSubmatch(content, -1) {
			used = append(used, m[1])
			if files[m[1]] == "" {
				t.Errorf("%s imports %q, which is no file", name, m[1])
			}
		}
		for _, foreign := range []string{"http:", "https:", `"//`, "@import", `url("`, "url(/", " style=", "innerHTML", "outerHTML", "insertAdjacent", "document.write"} {
			if strings.Contains(strings.ReplaceAll(content, namespace, ""), foreign) {
				t.Errorf("%s contains %q", name, foreign)
			}
		}
	}
	if lookups == 0 {
		t.Error("the scripts look up nothing")
	}
	for name := range files {
		if strings.HasSuffix(name, ".js") && !slices.Contains(used, name) {
			t.Errorf("no module imports %s", name)
		}
	}
}

// TestPageFiles: the document and each file that it needs are answered, with their types
// and a policy that allows no other origin and no inline script.
func TestPageFiles(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{"html": "text/html", "css": "text/css", "js": "text/javascript"}
	for name, content := range readPage(t) {
		path := "/page/" + name
		if name == "page.html" {
			path = "/"
		}
		w := get(t, example(), "localhost", path)
		_, ext, _ := strings.Cut(name, ".")
		if w.Code != http.StatusOK || w.Body.String() != content || w.Header().Get("Content-Type") != kinds[ext]+"; charset=utf-8" {
			t.Errorf("%s: status %d, %d bytes, type %q", path, w.Code, w.Body.Len(), w.Header().Get("Content-Type"))
		}
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: policy %q lacks %q", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	if w := get(t, example(), "localhost", "/page/nothing.js"); w.Code != http.StatusNotFound {
		t.Errorf("a file that is not there: status %d", w.Code)
	}
}
