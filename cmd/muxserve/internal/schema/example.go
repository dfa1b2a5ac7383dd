package schema

import (
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// exampleHead is the beginning of the example.
const exampleHead = `# yaml-language-server: $schema=muxserve.schema.json

## Every key of muxserve's configuration file, with its default. To set a key, remove the first
## "# " of its line and of the section above it. Comments stay comments then.
## "muxserve check --config FILE" prints the effective configuration. CONFIGURATION.md explains
## all keys.
`

// exampleWidth is the width of the comments in the example.
const exampleWidth = 100

// Example returns a configuration file with every key commented out. Without the first "#
// " of each line, it sets every key to its default.
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
			text = "" // Both keys share it.
		} else {
			before = text
		}
		writeExample(&out, indent, text, label+value)
	}
	return []byte(out.String())
}

// within reports whether a section contains the key at path.
func within(path, section string) bool {
	return strings.HasPrefix(path, section+".") || strings.HasPrefix(path, section+"[].")
}

// indentOf returns the indentation of a key: two blanks for each section and each list
// around it.
func indentOf(path string) string {
	return strings.Repeat("  ", strings.Count(path, ".")+strings.Count(path, "[]"))
}

func lastOf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// writeExample writes a key below its description.
func writeExample(out *strings.Builder, indent, text, key string) {
	if text != "" {
		for _, line := range cli.Wrap(text, exampleWidth-len(indent)-len("# # ")) {
			out.WriteString("# " + indent + "# " + line + "\n")
		}
	}
	out.WriteString("# " + indent + key + "\n")
}
