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
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxDuration bounds every duration, so that sums and jitter stay far from overflow.
const maxDuration = 365 * 24 * time.Hour

// durationForm is a duration in Go's syntax without a sign. A zero needs no unit.
var durationForm = regexp.MustCompile(`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`)

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
	var level slog.Level
	if err := level.UnmarshalText([]byte(n.Value)); err != nil {
		return err
	}
	v.SetInt(int64(level))
	return nil
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
	case slices.Contains(secretKeys, withoutIndexes(path)):
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
	cut := maxShown
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
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
