package schema

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// moduleRoot is the path of the module in tests.
const moduleRoot = "../../../.."

func commentsOfModule(t *testing.T) comments {
	t.Helper()
	docs, err := readComments(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	files, err := Files(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(moduleRoot, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is out of date; run go generate ./cmd/muxserve/internal/schema (-want +got):\n%s", name, diff)
		}
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	t.Parallel()
	docs := commentsOfModule(t)
	for _, k := range append(settings.Keys(), settings.Sections()...) {
		text := docs.of(k, plain)
		if text == "" {
			t.Errorf("%s.%s, which is %s in the file, has no comment", k.Struct, k.Field, k.Path)
		}
		if strings.Contains(text, "[") && linkForm.MatchString(text) {
			t.Errorf("the comment of %s has a link: %s", k.Path, text)
		}
	}
}

func TestReferenceHasEveryKey(t *testing.T) {
	t.Parallel()
	text := string(reference(commentsOfModule(t)))
	for _, k := range settings.Keys() {
		section, name := "", k.Path
		if at := strings.LastIndexByte(k.Path, '.'); at >= 0 {
			section, name = "## `"+k.Path[:at]+"`\n", k.Path[at+1:]
		}
		_, below, found := strings.Cut(text, section)
		below, _, _ = strings.Cut(below, "\n## `")
		if !found || !strings.Contains(below, "\n| `"+name+"` | ") {
			t.Errorf("%s is missing", k.Path)
		}
	}
	for _, f := range settings.Flags() {
		if !regexp.MustCompile("\n\\| `--" + f.Name + "[` ]").MatchString(text) {
			t.Errorf("--%s is missing", f.Name)
		}
	}
}

// uncommented returns the example with every key set.
func uncommented(t *testing.T) string {
	t.Helper()
	lines := strings.Split(string(example(commentsOfModule(t))), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "# ")
	}
	// The first line is for editors.
	return "# " + strings.Join(lines, "\n")
}

// loadFile loads settings from a file with this text.
func loadFile(t *testing.T, text string) (*settings.Settings, error) {
	t.Helper()
	return loadFrom(t, filepath.Join(t.TempDir(), "muxserve.yaml"), text)
}

// loadFrom is loadFile with a name for the file.
func loadFrom(t *testing.T, name, text string) (*settings.Settings, error) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	parsed, err := cli.Parse(settings.Flags(), []string{"--config", name})
	if err != nil {
		t.Fatal(err)
	}
	return settings.Load(parsed, func(string) string { return "" })
}

// shown returns the printed settings without the sources.
func shown(t *testing.T, s *settings.Settings) string {
	t.Helper()
	var out strings.Builder
	if err := s.Write(&out); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)  # .*$`).ReplaceAllString(out.String(), "")
}

func TestExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	// The element of a list that has none is set, too.
	text := strings.ReplaceAll(strings.ReplaceAll(uncommented(t), "certificates: []", "certificates:"), "\n      #   ", "\n        ")
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
			key, value := strings.TrimPrefix(path+"."+n.Content[i].Value, "."), n.Content[i+1]
			switch {
			case value.Kind == yaml.MappingNode:
				walk(value, key)
			case value.Kind == yaml.SequenceNode && len(value.Content) == 1 && value.Content[0].Kind == yaml.MappingNode:
				walk(value.Content[0], key+"[]")
			default:
				got = append(got, key)
			}
		}
	}
	walk(root.Content[0], "")
	for _, k := range settings.Keys() {
		want = append(want, k.Path)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestExampleSaysWhatTheDefaultsAre(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"as it is": string(example(commentsOfModule(t))), "uncommented": uncommented(t)} {
		s, err := loadFile(t, text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(shown(t, settings.Default()), shown(t, s)); diff != "" {
			t.Errorf("%s (-default +example):\n%s", name, diff)
		}
	}
}
