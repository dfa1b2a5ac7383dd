package settings

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Key is one key of the configuration file that has a value of its own.
type Key struct {
	// Path leads to the key, as in listeners[].tls.mode.
	Path string
	// Type is what its values are stored in.
	Type reflect.Type
	// Apply is "runtime" or "restart", as its field's apply tag says; empty if it does not say.
	Apply string
	// Struct and Field say which field of which struct it is.
	Struct reflect.Type
	Field  string
	// Default is its default as the file would have it; empty where the machine decides.
	Default string
	// Secret says that its value is not shown.
	Secret bool
}

// secretKeys are those whose values never appear in an error or in what is shown.
// A key may be the PEM text itself.
var secretKeys = []string{"admin.token", "listeners[].tls.key", "listeners[].tls.key_passphrase"}

// machineKeys are those whose default depends on the machine.
var machineKeys = []string{"limits.max_connections"}

// Keys returns all keys in the order in which they are shown. The slice is the
// caller's own.
func Keys() []Key { return slices.Clone(allKeys()) }

// Sections returns what has keys below it, in the order in which it is shown:
// Path is listeners[].tls for the TLS section of each element of the list listeners.
func Sections() []Key {
	var sections []Key
	walk(reflect.TypeFor[Settings](), "", func(f field, path string) {
		if isSection(f.Type) {
			sections = append(sections, f.key(path))
		}
	})
	return sections
}

var allKeys = sync.OnceValue(func() []Key {
	defaults := Default().values()
	var keys []Key
	walk(reflect.TypeFor[Settings](), "", func(f field, path string) {
		if isSection(f.Type) {
			return
		}
		k := f.key(path)
		if !slices.Contains(machineKeys, path) {
			k.Default = defaults[strings.ReplaceAll(path, "[]", "[0]")]
		}
		keys = append(keys, k)
	})
	return keys
})

// walk visits every field that stands in the file, those below the section at path and
// each section before what is in it.
func walk(t reflect.Type, path string, visit func(f field, path string)) {
	for _, f := range fieldsOf(t) {
		key := join(path, f.name)
		visit(f, key)
		switch kindOf(f.Type) {
		case kindSection:
			walk(f.Type, key, visit)
		case kindSections:
			walk(f.Type.Elem(), key+"[]", visit)
		}
	}
}

// isSection reports whether a key of type t has keys below it.
func isSection(t reflect.Type) bool { return kindOf(t) == kindSection || kindOf(t) == kindSections }

// key describes a field that stands at path.
func (f field) key(path string) Key {
	return Key{
		Path: path, Type: f.Type, Apply: f.Tag.Get("apply"), Struct: f.owner, Field: f.Name,
		Secret: slices.Contains(secretKeys, path),
	}
}

// join puts a name behind the path of the section that it is in.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// element returns the path of an element of a list.
func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// withoutIndexes returns a path as [Key.Path] has it: its elements without their positions.
func withoutIndexes(path string) string {
	var key strings.Builder
	for {
		before, rest, found := strings.Cut(path, "[")
		key.WriteString(before)
		if !found {
			return key.String()
		}
		key.WriteString("[]")
		_, path, _ = strings.Cut(rest, "]")
	}
}

// field is a field of a struct that stands in the file under a name.
type field struct {
	reflect.StructField

	name string
	// owner is the struct that declares it, which is another one for a field of an inlined struct.
	owner reflect.Type
	// path is its index for [reflect.Value.FieldByIndex].
	path []int
}

// fieldsOf returns the fields of a struct that stand in the file, those of inlined structs among them.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			for _, inner := range fieldsOf(f.Type) {
				inner.path = append([]int{i}, inner.path...)
				fields = append(fields, inner)
			}
		case name != "" && name != "-":
			fields = append(fields, field{StructField: f, name: name, owner: t, path: []int{i}})
		}
	}
	return fields
}

// The kinds of values that can stand in the file.
type kind int

const (
	kindText     kind = iota // any string type
	kindBool                 // true or false
	kindWhole                // an integer, signed or not
	kindNumber               // a floating-point number
	kindDuration             // a length of time such as 30s
	kindLevel                // a log level
	kindTexts                // a list of strings
	kindSection              // keys below it
	kindSections             // a list of elements with keys
)

// kindOf says what a value of type t is in the file. It panics for a type that no
// key has had so far, so that whoever adds one learns it from any test.
func kindOf(t reflect.Type) kind {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return kindDuration
	case reflect.TypeFor[slog.Level]():
		return kindLevel
	}
	switch t.Kind() {
	case reflect.String:
		return kindText
	case reflect.Bool:
		return kindBool
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return kindWhole
	case reflect.Float32, reflect.Float64:
		return kindNumber
	case reflect.Struct:
		return kindSection
	case reflect.Slice:
		switch t.Elem().Kind() {
		case reflect.String:
			return kindTexts
		case reflect.Struct:
			return kindSections
		}
	}
	panic(fmt.Sprintf("settings: no key can be of type %v", t))
}
