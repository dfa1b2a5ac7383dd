package settings

import (
	"bufio"
	"encoding"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/listeners"
)

// Write writes the effective settings as YAML without secrets. A comment behind each
// value names its source.
func (s *Settings) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, l := range s.lines() {
		fmt.Fprint(out, l.indent, l.label)
		if l.value != "" {
			fmt.Fprintf(out, " %s  # %s", l.value, s.source(l.key))
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// values returns the printed form of all values by key.
func (s *Settings) values() map[string]string {
	values := make(map[string]string)
	for _, l := range s.lines() {
		values[l.key] = l.value
	}
	return values
}

// line is one line of the printed settings.
type line struct {
	indent string
	label  string // "key:", or "- key:" for the first key of a list's element
	value  string // empty for a key that has keys below it
	key    string // the path of its key
}

func (s *Settings) lines() []line {
	shown := *s
	if shown.Admin.Token != "" {
		shown.Admin.Token = redacted
	}
	return structLines(reflect.ValueOf(shown), "", "")
}

// redacted replaces secrets.
const redacted = "[redacted]"

func structLines(v reflect.Value, indent, path string) []line {
	if c, ok := reflect.TypeAssert[listeners.Config](v); ok {
		v = reflect.ValueOf(c.Shown())
	}
	var lines []line
	for _, f := range fieldsOf(v.Type()) {
		lines = append(lines, fieldLines(v.FieldByIndex(f.path), f.name, indent, path)...)
	}
	return lines
}

func fieldLines(v reflect.Value, name, indent, path string) []line {
	key, label := join(path, name), name+":"
	switch kindOf(v.Type()) {
	case kindSection:
		return append([]line{{indent, label, "", key}}, structLines(v, indent+"  ", key)...)
	case kindSections:
		if v.Len() == 0 {
			return []line{{indent, label, "[]", key}}
		}
		lines := []line{{indent, label, "", key}}
		for i := range v.Len() {
			below := structLines(v.Index(i), indent+"    ", element(key, i))
			if len(below) > 0 {
				below[0].indent, below[0].label = indent+"  ", "- "+below[0].label
			}
			lines = append(lines, below...)
		}
		return lines
	case kindTexts:
		var texts []string
		for _, text := range v.Seq2() {
			texts = append(texts, scalar(text))
		}
		return []line{{indent, label, "[" + strings.Join(texts, ", ") + "]", key}}
	default:
		return []line{{indent, label, scalar(v), key}}
	}
}

func scalar(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		// Duration.String writes 2m0s.
		return strings.Replace(strings.Replace(x.String(), "m0s", "m", 1), "h0m", "h", 1)
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			return quote(err.Error())
		}
		return quote(strings.ToLower(string(text)))
	}
	if v.Kind() == reflect.String {
		return quote(v.String())
	}
	return fmt.Sprint(v.Interface())
}

// plain matches strings that need no quotes in YAML.
var plain = regexp.MustCompile(`^[A-Za-z0-9./][A-Za-z0-9._/:-]*$`)

// notStrings matches words that YAML 1.1 parsers read as numbers, booleans or null,
// although the parser here does not.
var notStrings = regexp.MustCompile(`^(?i:[0-9]+[:_].*|yes|no|on|y|n)$`)

// quote writes a string for YAML. It leaves "off" without quotes, which only stands in
// keys that want a string.
func quote(s string) string {
	bare := yaml.Node{Kind: yaml.ScalarNode, Value: s}
	if plain.MatchString(s) && !notStrings.MatchString(s) && !strings.HasSuffix(s, ":") && bare.ShortTag() == "!!str" {
		return s
	}
	return strconv.Quote(s)
}
