package schema

import (
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// exampleHead begins the example.
const exampleHead = `# yaml-language-server: $schema=muxserve.schema.json

## Every key of muxserve's configuration file, with its default. Take away the first "# " of a
## line, and of the section above it, to set a key: what is left of a comment stays one.
## "muxserve check --config FILE" says what a file comes to. CONFIGURATION.md has the whole story.
`

// exampleWidth is where the comments of the example are wrapped.
const exampleWidth = 100

// Example returns a configuration file with every key in comments. Without the
// first "# " of each line it is one that says what the defaults are.
func Example(docs Docs) []byte {
	var out strings.Builder
	out.WriteString(exampleHead)
	sections := settings.Sections()
	written := make(map[string]bool)
	before := ""
	for _, k := range settings.Keys() {
		first := false
		for _, s := range sections {
			if within(k.Path, s.Path) && !written[s.Path] {
				written[s.Path] = true
				if !strings.Contains(s.Path, ".") {
					out.WriteByte('\n')
				}
				writeExample(&out, indentOf(s.Path), docs.Of(s, plain), lastOf(s.Path)+":")
				first = strings.Contains(k.Path, s.Path+"[]")
			}
		}
		indent, label := indentOf(k.Path), lastOf(k.Path)+": "
		if first {
			indent, label = strings.TrimSuffix(indent, "  "), "- "+label
		}
		value := k.Default
		if _, dynamic := dynamicDefaults[k.Path]; dynamic {
			value = "null"
		}
		if !strings.Contains(k.Path, ".") {
			out.WriteByte('\n')
		}
		text := docs.Of(k, plain)
		if text == before {
			text = "" // It speaks of both.
		} else {
			before = text
		}
		writeExample(&out, indent, text, label+value)
	}
	return []byte(out.String())
}

// within reports whether the key at path is in a section.
func within(path, section string) bool {
	return strings.HasPrefix(path, section+".") || strings.HasPrefix(path, section+"[].")
}

// indentOf returns the indentation of a key: two blanks for each section it is in, and two for
// each list.
func indentOf(path string) string {
	return strings.Repeat("  ", strings.Count(path, ".")+strings.Count(path, "[]"))
}

func lastOf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// writeExample writes a key below what is said of it.
func writeExample(out *strings.Builder, indent, text, key string) {
	if text != "" {
		for _, line := range cli.Wrap(text, exampleWidth-len(indent)-len("# # ")) {
			out.WriteString("# " + indent + "# " + line + "\n")
		}
	}
	out.WriteString("# " + indent + key + "\n")
}
