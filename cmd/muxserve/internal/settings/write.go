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

	"github.com/muxserve/muxserve/listeners"
)

// Write writes the effective settings as YAML without secrets. A comment behind
// each value says what set it.
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

// source says what set a key.
func (s *Settings) source(key string) string {
	if source, ok := s.sources[key]; ok {
		return source
	}
	return "default"
}

// values returns all settings by key, as they are shown.
func (s *Settings) values() map[string]string {
	values := make(map[string]string)
	for _, l := range s.lines() {
		values[l.key] = l.value
	}
	return values
}

// line is one line of the settings as they are shown.
type line struct {
	indent string
	label  string // "key:", or "- key:" for the first of a list's element
	value  string // empty for a key that has keys below it
	key    string // the path of keys, without the positions in lists
}

func (s *Settings) lines() []line {
	return structLines(reflect.ValueOf(*s), "", "")
}

// indentStep is one level of nesting.
const indentStep = "  "

func structLines(v reflect.Value, indent, path string) []line {
	if c, ok := reflect.TypeAssert[listeners.Config](v); ok {
		c.Protocols = c.EffectiveProtocols()
		c.ProxyProtocol.Mode = c.ProxyProtocol.EffectiveMode()
		v = reflect.ValueOf(c)
	}
	if c, ok := reflect.TypeAssert[listeners.TLSConfig](v); ok {
		c.Mode = c.EffectiveMode()
		v = reflect.ValueOf(c.Redacted())
	}
	var lines []line
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			lines = append(lines, structLines(v.Field(i), indent, path)...)
		case name != "" && name != "-":
			lines = append(lines, fieldLines(v.Field(i), name, indent, path)...)
		}
	}
	return lines
}

func fieldLines(v reflect.Value, name, indent, path string) []line {
	key := strings.TrimPrefix(path+"."+name, ".")
	label := name + ":"
	switch {
	case isScalar(v):
		return []line{{indent, label, scalar(v), key}}
	case v.Kind() == reflect.Struct:
		return append([]line{{indent, label, "", key}}, structLines(v, indent+indentStep, key)...)
	case v.Kind() == reflect.Slice && v.Len() > 0 && !isScalar(v.Index(0)):
		lines := []line{{indent, label, "", key}}
		for i := range v.Len() {
			element := structLines(v.Index(i), indent+indentStep+indentStep, key)
			if len(element) > 0 {
				element[0].indent, element[0].label = indent+indentStep, "- "+element[0].label
			}
			lines = append(lines, element...)
		}
		return lines
	case v.Kind() == reflect.Slice:
		elements := make([]string, v.Len())
		for i := range elements {
			elements[i] = scalar(v.Index(i))
		}
		return []line{{indent, label, "[" + strings.Join(elements, ", ") + "]", key}}
	default:
		return []line{{indent, label, fmt.Sprintf("%q", v.Interface()), key}}
	}
}

// isScalar reports whether a value is shown on one line.
func isScalar(v reflect.Value) bool {
	if _, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok {
		return true
	}
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	default:
		return false
	}
}

func scalar(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
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

// plain matches strings that YAML reads as themselves without quotes.
var plain = regexp.MustCompile(`^[A-Za-z0-9./][A-Za-z0-9._/:-]*$`)

// notStrings matches what YAML, in one version or another, reads as a number, a
// boolean or nothing.
var notStrings = regexp.MustCompile(`^(?i:[0-9.]+|[0-9]+[:_e].*|0x.*|true|false|yes|no|on|y|n|null|~)$`)

// quote returns a string as YAML wants it. "off" stays bare: it is the value of
// keys whose reader wants a string.
func quote(s string) string {
	if plain.MatchString(s) && !notStrings.MatchString(s) && !strings.HasSuffix(s, ":") {
		return s
	}
	return strconv.Quote(s)
}
