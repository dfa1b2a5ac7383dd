package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// readSchema returns the parsed schema. Unknown keywords are errors, because violations
// would ignore them.
func readSchema(t *testing.T) *node {
	t.Helper()
	text, err := jsonSchema(commentsOfModule(t))
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	root := new(node)
	if err := decoder.Decode(root); err != nil {
		t.Fatal(err)
	}
	return root
}

// violations returns the violations of the schema in a document.
func violations(n *node, value any, path string) []string {
	var all []string
	against := func(format string, args ...any) { all = append(all, path+": "+fmt.Sprintf(format, args...)) }
	if n.Type != nil && !slices.ContainsFunc(n.Type, func(name string) bool { return isOf(name, value) }) {
		against("%v is not of type %v", value, n.Type)
	}
	if n.Enum != nil && !slices.ContainsFunc(n.Enum, func(one any) bool { return reflect.DeepEqual(one, value) }) {
		against("%v is not in %v", value, n.Enum)
	}
	switch value := value.(type) {
	case string:
		if n.Pattern != "" && !regexp.MustCompile(n.Pattern).MatchString(value) {
			against("%q does not match %s", value, n.Pattern)
		}
	case map[string]any:
		for key, below := range value {
			if n.Properties[key] == nil {
				against("unknown key %s", key)
				continue
			}
			all = append(all, violations(n.Properties[key], below, path+"."+key)...)
		}
	case []any:
		if len(value) < n.MinItems {
			against("%d items, want %d", len(value), n.MinItems)
		}
		for i, below := range value {
			if n.Items == nil {
				break
			}
			all = append(all, violations(n.Items, below, fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	if number, ok := numberOf(value); ok {
		if n.Minimum != nil && number < float(n.Minimum) || n.Maximum != nil && number > float(n.Maximum) ||
			n.Above != nil && number <= float(n.Above) {
			against("%v is out of bounds", value)
		}
	}
	return all
}

func float(n *json.Number) float64 {
	f, _ := n.Float64()
	return f
}

// numberOf returns a value as a number, if it is one.
func numberOf(value any) (float64, bool) {
	v := reflect.ValueOf(value)
	switch {
	case !v.IsValid():
		return 0, false
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	default:
		return 0, false
	}
}

// isOf reports whether a value is of a type of JSON Schema.
func isOf(name string, value any) bool {
	number, isNumber := numberOf(value)
	switch name {
	case "null":
		return value == nil
	case "number":
		return isNumber
	case "integer":
		return isNumber && number == math.Trunc(number)
	case "string":
		return reflect.TypeOf(value) == reflect.TypeFor[string]()
	case "boolean":
		return reflect.TypeOf(value) == reflect.TypeFor[bool]()
	case "array":
		return reflect.TypeOf(value) == reflect.TypeFor[[]any]()
	case "object":
		return reflect.TypeOf(value) == reflect.TypeFor[map[string]any]()
	default:
		panic("unknown type " + name)
	}
}

func TestExampleFitsTheSchema(t *testing.T) {
	t.Parallel()
	var document any
	if err := yaml.Unmarshal([]byte(uncommented(t)), &document); err != nil {
		t.Fatal(err)
	}
	if found := violations(readSchema(t), document, ""); found != nil {
		t.Errorf("%s", strings.Join(found, "\n"))
	}
}

// probes are YAML values that are right for some keys and wrong for others.
var probes = []string{
	"null", "true", "[]", "{}", `""`, "unheard-of", "[unheard-of]", "[1]", "0", "1", "-1", "-2", "1.5", "0.9", "2", "1023", "1024", "16383", "16384",
	"65534", "65535", "1048576", "1048577", "16777215", "16777216", "2147483647", "2147483648", "4294967295", "4294967296",
	"9007199254740991", "9007199254740992", "9223372036854775807", "18446744073709551615", "18446744073709551616", exponent,
	"0s", "1s", "1h30m", "1.5h", "-1s", "1", `"1"`, "1d", "30 s",
}

// beside are the keys that other keys need, by prefixes of their paths.
var beside = []struct{ path, keys string }{
	{"listeners[].tls.client_auth", "mode: mutual, cert: c.pem, key: k.pem, client_ca: ca.pem"},
	{"listeners[].tls.client_ca", "mode: mutual, cert: c.pem, key: k.pem"},
	{"listeners[].tls.mode", "cert: c.pem, key: k.pem"},
	{"listeners[].tls.certificates[].cert", "key: k.pem"},
	{"listeners[].tls.certificates[].key_", "cert: c.pem, key: k.pem"},
	{"listeners[].tls.certificates[].key", "cert: c.pem"},
	{"listeners[].tls.cert", "mode: off"},
	{"listeners[].tls.key", "mode: off"},
	{"listeners[].tls.", "mode: manual, cert: c.pem, key: k.pem"},
	{"listeners[].proxy_protocol.mode", "trusted: [unix]"},
	{"listeners[].proxy_protocol.trusted", "mode: off"},
	{"listeners[].unix_", `address: "unix:x"`},
	{"admin.protect", "token: t"},
	{"health.degraded_above", "overloaded_above: 1"},
	{"health.overloaded_above", "degraded_above: 0.1"},
}

// windows are too small for windows. Only 0, which the schema allows as well, is smaller.
var windows = []string{"1", "2", "1023", "1024", "16383", "16384", "65534"}

// laxer are the values that the schema accepts and Load refuses. The schema checks
// neither addresses, directories and names of cipher suites nor whether keys fit each
// other.
var laxer = map[string][]string{
	"listeners[].address":                 {`""`, "unheard-of", "30 s", "0s", "1s", "1h30m", "1.5h", "-1s", `"1"`, "1d"},
	"listeners[].unix_mode":               {"unheard-of", "30 s", "0s", "1s", "1h30m", "1.5h", "-1s", "1d"},
	"admin.address":                       {`""`, "unheard-of", "30 s", "0s", "1s", "1h30m", "1.5h", "-1s", `"1"`, "1d"},
	"admin.token_file":                    {"unheard-of", "30 s", "0s", "1s", "1h30m", "1.5h", "-1s", `"1"`, "1d"},
	"static":                              {"unheard-of", "30 s", "0s", "1s", "1h30m", "1.5h", "-1s", `"1"`, "1d"},
	"listeners[].tls.mode":                {"self-signed", "mutual"},
	"listeners[].tls.client_auth":         {"none"},
	"listeners[].tls.certificates[].cert": {`""`, "null"},
	"listeners[].tls.certificates[].key":  {`""`, "null"},
	"listeners[].tls.client_ca":           {`""`, "null"},
	"listeners[].proxy_protocol.mode":     {`""`, "null"},
	"listeners[].tls.cipher_suites":       {"[unheard-of]"},
	"listeners[].proxy_protocol.trusted":  {"[unheard-of]"},
	"http2.ping_timeout":                  {"0", "0s"},
	"websocket.pong_timeout":              {"0", "0s"},
	"drain.step_timeout":                  {"0", "0s"},
	"grpc.stream_window":                  windows,
	"grpc.connection_window":              windows,
}

// exponent is a whole number in JSON. Load refuses it, because few people read it as one.
const exponent = "1e3"

// TestSchemaTakesWhatIsTaken loads files with one key. The schema must refuse what Load
// refuses.
func TestSchemaTakesWhatIsTaken(t *testing.T) {
	t.Parallel()
	schema := readSchema(t)
	for _, k := range settings.Keys() {
		t.Run(k.Path, func(t *testing.T) {
			t.Parallel()
			values := slices.Clone(probes)
			file := filepath.Join(t.TempDir(), "muxserve.yaml")
			for _, v := range constraintsOf(k).values {
				if v = fmt.Sprintf("%q", v); k.Type.Kind() == reflect.Slice {
					v = "[" + v + "]"
				}
				values = append(values, v)
			}
			for _, value := range values {
				text := fileWith(k.Path, value)
				_, err := loadFrom(t, file, text)
				var document any
				if err := yaml.Unmarshal([]byte(text), &document); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				found := violations(schema, document, "")
				excused := slices.Contains(laxer[k.Path], strings.ReplaceAll(value, `"`, "")) || slices.Contains(laxer[k.Path], value) || value == exponent
				switch {
				case err == nil && found != nil:
					t.Errorf("%s is taken, and against the schema: %v", text, found)
				case err != nil && found == nil && !excused:
					t.Errorf("%s fits the schema, and is refused: %v", text, err)
				}
			}
		})
	}
}

// fileWith returns a file with a value in the key at path, and with the keys that this
// key needs.
func fileWith(path, value string) string {
	names := strings.Split(path, ".")
	text := names[len(names)-1] + ": " + value
	for _, b := range beside {
		if strings.HasPrefix(path, b.path) {
			text = b.keys + ", " + text
			break
		}
	}
	for i := len(names) - 2; i >= 0; i-- {
		if name, list := strings.CutSuffix(names[i], "[]"); list {
			text = name + ": [{" + text + "}]"
		} else {
			text = name + ": {" + text + "}"
		}
	}
	return "{" + text + "}\n"
}

func TestSchemaRefusesUnknownKeys(t *testing.T) {
	t.Parallel()
	schema := readSchema(t)
	for _, document := range []any{
		map[string]any{"a": nil},
		map[string]any{"log": map[string]any{"levle": "info"}},
		map[string]any{"listeners": []any{map[string]any{"tls": map[string]any{"a": 1}}}},
		map[string]any{"listeners": []any{}},
		[]any{},
	} {
		if len(violations(schema, document, "")) != 1 {
			t.Errorf("%v: %v", document, violations(schema, document, ""))
		}
	}
}
