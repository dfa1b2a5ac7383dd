package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// decoder stores the values of a file in settings. It checks the types of values and not
// their meaning.
type decoder struct {
	// lines has the line of each key and of each element of a list.
	lines map[string]int
	// set has the paths of the keys with a value in the file.
	set    []string
	faults []fault
}

// maxFaults bounds the faults that are reported. A file with more is the wrong file.
const maxFaults = 100

func (d *decoder) faultf(n *yaml.Node, path, format string, args ...any) {
	if d.full() {
		return
	}
	d.faults = append(d.faults, fault{path: path, line: n.Line, text: fmt.Sprintf(format, args...)})
}

// full reports whether there are maxFaults faults.
func (d *decoder) full() bool { return len(d.faults) >= maxFaults }

// decode stores n, the value at path, in v. It leaves v unchanged for null and for a
// faulty value.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	if !d.plain(n, path) || isNull(n) {
		return
	}
	switch kindOf(v.Type()) {
	case kindSection:
		d.section(n, v, path)
	case kindSections:
		d.sections(n, v, path)
	case kindTexts:
		d.texts(n, v, path)
	default:
		if besideSecrets(path) && isLoose(n) {
			d.faultf(n, path, textLoose)
			return
		}
		if err := setScalar(n, v); err != nil {
			d.faultf(n, path, "%v, not %s", err, describe(n, path))
			return
		}
		d.set = append(d.set, path)
	}
}

const textLoose = "another key seems to stand in this text; put it on a line of its own, or the text in quotes"

// nextKeyForm matches the name of a secret key between a space and a colon, an equals sign or
// another space.
var nextKeyForm = regexp.MustCompile(`\s(token|key|key_passphrase)[:=\s]`)

// isLoose reports whether n is a text without quotes that seems to have taken in the next
// key, whose colon or comma is missing.
func isLoose(n *yaml.Node) bool {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return n.Kind == yaml.ScalarNode && n.Style&quoted == 0 && nextKeyForm.MatchString(n.Value)
}

// plain refuses aliases, which can multiply the size of a document, and explicit tags,
// which can change the type of a value.
func (d *decoder) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		d.faultf(n, path, "aliases are not allowed; write the value again")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		d.faultf(n, path, "tags are not allowed; put a text that begins with ! in quotes") // It may be a secret.
		return false
	default:
		return true
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// section stores the keys of a mapping in the fields of a struct.
func (d *decoder) section(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.faultf(n, path, "want keys below it, not %s%s", describe(n, path), missingSpace(n))
		return
	}
	fields := fieldsOf(v.Type())
	for i := 0; i+1 < len(n.Content) && !d.full(); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.faultf(key, path, "a key has to be a word")
			continue
		}
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		keyPath := join(path, key.Value)
		if at < 0 {
			d.unknown(key, value, path, fields)
			continue
		}
		if first, twice := d.lines[keyPath]; twice {
			d.faultf(key, keyPath, "given twice; it stands on line %d already", first)
			continue
		}
		d.lines[keyPath] = key.Line
		d.decode(value, v.FieldByIndex(fields[at].path), keyPath)
	}
}

// sections stores a list of mappings in a slice of structs. Each element starts as a copy
// of the first element of the default list.
func (d *decoder) sections(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.faultf(n, path, "want a list, not %s", describe(n, path))
		return
	}
	d.set = append(d.set, path)
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		elementPath := element(path, i)
		d.lines[elementPath] = e.Line
		if v.Len() > 0 {
			list.Index(i).Set(v.Index(0))
		}
		if isNull(e) {
			d.faultf(e, elementPath, "want keys below it, not %s", describe(e, elementPath))
			continue
		}
		d.decode(e, list.Index(i), elementPath)
	}
	v.Set(list)
}

// texts stores a list of strings.
func (d *decoder) texts(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.faultf(n, path, "want a list such as [a, b], not %s", describe(n, path))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		if !d.plain(e, element(path, i)) {
			continue
		}
		if besideSecrets(path) && isLoose(e) {
			d.faultf(e, element(path, i), textLoose)
			continue
		}
		if err := setScalar(e, list.Index(i)); err != nil {
			d.faultf(e, element(path, i), "%v, not %s", err, describe(e, path))
		}
	}
	v.Set(list)
	d.set = append(d.set, path)
}

// wordForm matches what could be meant as a key.
var wordForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// unknown refuses a key of the section at path. It shows no text that may be a secret, such
// as token:s3cret, which YAML takes for a key without a value.
func (d *decoder) unknown(key, value *yaml.Node, path string, fields []field) {
	text, similar := unknownKey(key.Value, fields)
	if aboveSecrets(path) && (!wordForm.MatchString(key.Value) || isNull(value) && !similar) {
		d.faultf(key, path, "what stands there is no key%s", missingSpace(key))
		return
	}
	d.faultf(key, join(path, printable(key.Value)), "%s", text)
}

// missingSpace is a hint where a text begins with the name of a key and a colon, as in
// token:s3cret.
func missingSpace(n *yaml.Node) string {
	name, _, found := strings.Cut(n.Value, ":")
	if !found || !slices.ContainsFunc(allKeys(), func(k Key) bool { return slices.Contains(strings.Split(k.Path, "."), name) }) {
		return ""
	}
	return "; a space is missing behind " + name + ":"
}

// unknownKey suggests a key with a similar name, and reports whether there is one, or the
// sections that have the same key.
func unknownKey(name string, fields []field) (text string, similar bool) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if meant := cli.Suggest(name, names); meant != "" {
		return "unknown key; " + meant, true
	}
	var sections []string
	for _, k := range allKeys() {
		if section, ok := strings.CutSuffix(k.Path, "."+name); ok {
			sections = append(sections, section)
		}
	}
	if len(sections) > 0 {
		return "unknown key here; it stands in " + strings.Join(sections, ", "), false
	}
	return "unknown key; the keys here are " + strings.Join(names, ", "), false
}

// below returns the value of a key of a section; nil if there is none.
func below(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// maxDuration bounds every duration, so that sums and jitter stay far from overflow.
const maxDuration = 365 * 24 * time.Hour

// DurationPattern matches durations in Go's syntax without a sign. A zero needs no unit.
const DurationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

var durationForm = regexp.MustCompile(DurationPattern)

// wholeForm matches the numbers that all YAML parsers read alike. Some read 010 as eight,
// and 1_000 as a string.
var wholeForm = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)$`)

// setScalar stores a single value. Its error names the type that it wants.
func setScalar(n *yaml.Node, v reflect.Value) error {
	switch kindOf(v.Type()) {
	case kindDuration:
		return setDuration(n, v)
	case kindLevel:
		return setLevel(n, v)
	case kindBool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			return errors.New("want true or false")
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case kindWhole:
		return setWhole(n, v)
	case kindNumber:
		f, err := strconv.ParseFloat(n.Value, 64)
		if !isNumber(n) || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return errors.New("want a number such as 0.8")
		}
		v.SetFloat(f)
	default:
		if n.Kind != yaml.ScalarNode {
			return errors.New("want a text")
		}
		if n.ShortTag() != "!!str" {
			return errors.New("want a text, which is put in quotes here")
		}
		v.SetString(n.Value)
	}
	return nil
}

// isNumber reports whether n is a number without quotes.
func isNumber(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!int" || n.ShortTag() == "!!float")
}

// maxExact bounds whole numbers to those that every JSON parser reads exactly (RFC 8259,
// section 6).
const maxExact = 1<<53 - 1

// WholeRange returns the range of whole numbers for keys of type t. The range of int is
// the same on every machine, and sums of a few values stay far from overflow.
func WholeRange(t reflect.Type) (least, most int64) {
	switch t.Kind() {
	case reflect.Int, reflect.Int32:
		return math.MinInt32, math.MaxInt32
	case reflect.Uint32:
		return 0, math.MaxUint32
	case reflect.Uint, reflect.Uint64:
		return 0, maxExact
	default:
		return -maxExact, maxExact
	}
}

func setWhole(n *yaml.Node, v reflect.Value) error {
	if !isNumber(n) || !wholeForm.MatchString(n.Value) {
		return errors.New("want a whole number such as 1000")
	}
	least, most := WholeRange(v.Type())
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || i < least || i > most {
		return fmt.Errorf("want a whole number from %d to %d", least, most)
	}
	if v.CanUint() {
		v.SetUint(uint64(i))
	} else {
		v.SetInt(i)
	}
	return nil
}

func setDuration(n *yaml.Node, v reflect.Value) error {
	wanted := errors.New("want a length of time such as 500ms, 30s or 1m30s")
	if n.Kind != yaml.ScalarNode || !durationForm.MatchString(n.Value) {
		return wanted
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil || d > maxDuration {
		return fmt.Errorf("%w of at most %gh", wanted, maxDuration.Hours())
	}
	v.SetInt(int64(d))
	return nil
}

// levels are the names of the log levels.
var levels = []string{"debug", "info", "warn", "error"}

func setLevel(n *yaml.Node, v reflect.Value) error {
	if n.Kind != yaml.ScalarNode || !slices.Contains(levels, n.Value) {
		return errors.New("want one of " + strings.Join(levels, ", "))
	}
	level, _ := reflect.TypeAssert[*slog.Level](v.Addr())
	return level.UnmarshalText([]byte(n.Value))
}

// describe describes the value at path, for an error about it.
func describe(n *yaml.Node, path string) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys below it"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind != yaml.ScalarNode:
		return "an alias"
	case isNull(n):
		return "nothing"
	case slices.Contains(secretKeys, withoutIndexes(path)), aboveSecrets(path):
		return "what stands there"
	case isNumber(n):
		return "the number " + printable(n.Value)
	case n.ShortTag() == "!!bool":
		return n.Value
	default:
		return "the text " + strconv.Quote(shorten(n.Value))
	}
}

// maxShown bounds the part of a value that an error shows, in bytes.
const maxShown = 40

func shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…" // Without the part of a rune.
}

// printable returns a word of the file for an error: short, on one line and without
// control sequences of terminals.
func printable(s string) string {
	s = shorten(s)
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` || s == "" || strings.Contains(s, " ") {
		return quoted
	}
	return s
}
