package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAdminReference: ADMIN.md has every path of the admin listener and every verb of ctl.
func TestAdminReference(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("ADMIN.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	sources, err := filepath.Glob(filepath.Join("internal", "admin", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	pattern := regexp.MustCompile(`routes\.Handle(?:Func)?\("(?:(GET|POST|DELETE) )?([^"]+)"`)
	found := 0
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pattern.FindAllStringSubmatch(string(source), -1) {
			found++
			path := strings.TrimSuffix(m[2], "{$}")
			if !strings.Contains(text, "`"+path) && !strings.Contains(text, m[1]+" "+path) && !regexp.MustCompile(`(POST|DELETE) `+regexp.QuoteMeta(path)).MatchString(text) {
				t.Errorf("%s %s is missing", m[1], path)
			}
		}
	}
	if found < 15 {
		t.Errorf("%d paths were found in the sources", found)
	}
	for _, v := range verbs {
		row := "| `" + strings.ReplaceAll(strings.TrimPrefix(v.form(), "muxserve ctl "), "|", `\|`) + "` | " + v.help + " |"
		if !strings.Contains(text, row) {
			t.Errorf("the row is missing: %s", row)
		}
	}
}
