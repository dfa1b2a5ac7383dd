package settings

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// badFile is a faulty file. In want, each line of the error is "LINE: path: text",
// without the name of the file.
type badFile struct {
	name string
	text string
	want []string
}

var badSyntax = []badFile{
	{"truncated in a list", "http1:\n  max_age: 1s\nlisteners: [{address: \":1\"\n", []string{"3: not YAML: did not find expected ',' or '}'"}},
	{"truncated in a string", "log:\n  format: \"tex", []string{"2: not YAML: found unexpected end of stream"}},
	{"truncated in a key", "log:\n  level: info\ndrain:\n  del", []string{`4: drain: want keys below it, not the text "del"`}},
	{"tab", "log:\n\tlevel: info\n", []string{"2: not YAML: the line begins with a tab; indent with spaces"}},
	{"tab below spaces", "log:\n  level: info\n\taccess: true\n", []string{"3: not YAML: the line begins with a tab; indent with spaces"}},
	{"wrong indentation", "log:\n    level: info\n  access: true\n", []string{"3: not YAML: did not find expected key"}},
	{"two colons", "admin: {}\nlog: level: info\n", []string{"2: not YAML: mapping values are not allowed in this context"}},
	{"two documents", "admin: {}\n---\nlog: {}\n", []string{"2: a second document begins; there can be only one"}},
	{"binary", "\x7fELF\x02\x01", []string{"1: byte 0x7f is not text; is this the right file?"}},
	{"compressed", "log: {}\n\x1f\x8b\x08", []string{"2: byte 0x1f is not text; is this the right file?"}},
	{"Latin-1", "log: {}\n\n# caf\xe9\n", []string{"3: byte 0xe9 is not UTF-8; is this the right file?"}},
	{"UTF-16", "\xff\xfel\x00o\x00g\x00", []string{"1: the file is UTF-16; save it as UTF-8"}},
	{"NUL", "log: {}\n\x00", []string{"2: byte 0x00 is not text; is this the right file?"}},
	{"unknown anchor", "log: {}\nadmin: *a\n", []string{"2: not YAML: an alias of nothing; put a text that begins with * in quotes"}},
	{"too deep", strings.Repeat("[", 20000), []string{"1: not YAML: exceeded max depth of 10000"}},
	{"list", "- log\n", []string{"1: want keys below it, not a list"}},
	{"text", "muxserve\n", []string{"1: want keys below it, not what stands there"}},
	{
		"anchors that multiply", "static: &a [x, x]\nlisteners: &b [*a, *a]\nhttp1: *b\n",
		[]string{
			"1: static: want a text, not a list", "2: listeners[0]: aliases are not allowed; write the value again",
			"2: listeners[1]: aliases are not allowed; write the value again", "3: http1: aliases are not allowed; write the value again",
		},
	},
	{"merge key", "http1: &a {max_age: 1s}\nhttp2:\n  <<: *a\n", []string{"3: http2.<<: unknown key; the keys here are max_connections,"}},
	{"tag", "static: !!binary aGFsbG8=\n", []string{"1: static: tags are not allowed; put a text that begins with ! in quotes"}},
}

var badKeys = []badFile{
	{"misspelt", "log: {}\nhttp1:\n  max_connection: 5\n", []string{"3: http1.max_connection: unknown key; did you mean max_connections?"}},
	{"misspelt at the top", "grcp: {}\n", []string{"1: grcp: unknown key; did you mean grpc?"}},
	{"in another section", "http1:\n  upgrade_h2c: true\n", []string{"2: http1.upgrade_h2c: unknown key here; it stands in http2"}},
	{"nowhere", "a: {}\n\nfrobnicate: 1\n", []string{"1: a: unknown key; the keys here are profile, listeners,", "3: frobnicate: unknown key;"}},
	{"twice", "drain:\n  delay: 1s\n  timeout: 30s\n  delay: 2s\n", []string{"4: drain.delay: given twice; it stands on line 2 already"}},
	{"section twice", "drain: {}\nlog: {}\ndrain: {}\n", []string{"3: drain: given twice; it stands on line 1 already"}},
	{"list as key", "? [a]\n: b\n", []string{"1: a key has to be a word"}},
	{"key that a terminal would obey", "\"\\e[31m\": 1\n", []string{"1: what stands there is no key"}},
	{"key of a listener", "listeners:\n  - address: :1\n    tls:\n      kye: x\n      cert: c.pem\n", []string{"4: listeners[0].tls.kye: unknown key; did you mean key?"}},
}

var badValues = []badFile{
	{"number for a time", "drain:\n  delay: 5\n", []string{"2: drain.delay: want a length of time such as 500ms, 30s or 1m30s, not the number 5"}},
	{"time without a unit", "drain: {delay: \"5\"}\n", []string{`1: drain.delay: want a length of time such as 500ms, 30s or 1m30s, not the text "5"`}},
	{"negative time", "http1: {max_age: -1s}\n", []string{`1: http1.max_age: want a length of time such as 500ms, 30s or 1m30s, not the text "-1s"`}},
	{"absurd time", "http1: {max_age: 99999999h}\n", []string{"1: http1.max_age: want a length of time such as 500ms, 30s or 1m30s of at most 8760h"}},
	{"absurd number", "http2: {max_streams: 4294967296}\n", []string{"1: http2.max_streams: want a whole number from 0 to 4294967295, not the number 4294967296"}},
	{"larger than any", "http1: {max_connections: 99999999999999999999}\n", []string{"1: http1.max_connections: want a whole number"}},
	{"exponent", "http1: {max_connections: 1e3}\n", []string{"1: http1.max_connections: want a whole number such as 1000, not the number 1e3"}},
	{"octal", "http1: {max_connections: 0777}\n", []string{"1: http1.max_connections: want a whole number such as 1000, not the number 0777"}},
	{"negative number", "http2: {max_streams: -1}\n", []string{"1: http2.max_streams: want a whole number from 0 to 4294967295, not the number -1"}},
	{"negative limit", "log: {}\nlimits:\n  per_address: -1\n", []string{"3: limits.per_address: -1 must not be negative"}},
	{"text for a number", "http1: {max_connections: many}\n", []string{`1: http1.max_connections: want a whole number such as 1000, not the text "many"`}},
	{"not a number", "health: {degraded_above: .nan}\n", []string{"1: health.degraded_above: want a number such as 0.8, not the number .nan"}},
	{"yes", "watch: yes\n", []string{`1: watch: want true or false, not the text "yes"`}},
	{"number for a text", "listeners:\n  - tls:\n      min_version: 1.3\n", []string{"3: listeners[0].tls.min_version: want a text, which is put in quotes here, not the number 1.3"}},
	{"text for a list", "drain: {skip_steps: announce}\n", []string{`1: drain.skip_steps: want a list such as [a, b], not the text "announce"`}},
	{"number in a list", "drain:\n  skip_steps:\n    - announce\n    - 5\n", []string{"4: drain.skip_steps[1]: want a text, which is put in quotes here, not the number 5"}},
	{"keys for a list", "listeners: {address: \":1\"}\n", []string{"1: listeners: want a list, not keys below it"}},
	{"nothing in a list", "listeners:\n  -\n", []string{"2: listeners[0]: want keys below it, not nothing"}},
	{"empty list", "listeners: []\n", []string{"1: listeners: empty; leave it out to listen on the default address"}},
	{"list for a section", "log: []\n", []string{"1: log: want keys below it, not a list"}},
	{"level", "log:\n  level: loud\n", []string{`2: log.level: want one of debug, info, warn, error, not the text "loud"`}},
	{"format", "log:\n  format: xml\n", []string{`2: log.format: "xml" is not one of auto, text, json`}},
	{"address", "listeners:\n  - address: \"8080\"\n", []string{`2: listeners[0].address: "8080" is not HOST:PORT`}},
	{"address twice", "listeners:\n  - {address: \":1\"}\n  - {address: \":1\"}\n", []string{"3: listeners[1].address: :1 is that of listeners[0].address already"}},
	{"default address twice", "listeners:\n  - {}\n  - tls: {}\n", []string{"3: listeners[1].address: 127.0.0.1:8080 is that of listeners[0].address already"}},
	{"admin address", "admin:\n  address: on\n", []string{`2: admin.address: "on" is not HOST:PORT`}},
	{"protection", "admin:\n  protect: reads\n", []string{`2: admin.protect: "reads" is not one of writes, all`}},
	{"protection without a token", "admin:\n  protect: all\n", []string{"2: admin.protect: all needs a token; set admin.token or admin.token_file"}},
	{
		"hosts", "admin:\n  hosts:\n    - a.example\n    - http://a.example\n    - a.example:8081\n    - \"\"\n    - \"*.example\"\n",
		[]string{`2: admin.hosts[1]: "http://a.example" is not a host name`, "2: admin.hosts[2]", "2: admin.hosts[3]", "2: admin.hosts[4]"},
	},
	{"certificate without a key", "listeners:\n  - {}\n  - address: :1\n    tls:\n      cert: c.pem\n", []string{"4: listeners[1].tls.key: needed in mode auto"}},
	{"directory that is not there", "log: {}\nstatic: /missing/directory\n", []string{"2: static: not a directory that can be read: open /missing/directory"}},
	{"step", "drain:\n  skip_steps: [annuonce]\n", []string{`2: drain.skip_steps: unknown step "annuonce"`}},
	{
		"what may follow is not told", "listeners:\n  - tls:\n      mode: [manual]\n      cert: c.pem\n      min_version: \"1.3\"\n",
		[]string{"3: listeners[0].tls.mode: want a text, not a list"},
	},
	{
		"what does not follow is told", "listeners:\n  - tls:\n      mode: manul\n      crt: c.pem\n",
		[]string{`3: listeners[0].tls.mode: unknown "manul"`, "4: listeners[0].tls.crt: unknown key; did you mean cert?"},
	},
	{
		"several", "http1: {max_age: x}\nhtpt2: {}\nlimits:\n  per_address: -1\nlog: {format: y, format: z}\n",
		[]string{"1: http1.max_age: want", "2: htpt2: unknown key; did you mean http2?", "4: limits.per_address: -1", "5: log.format: given twice"},
	},
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	for _, tests := range [][]badFile{badSyntax, badKeys, badValues} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				s, name, err := loadText(t, tt.text)
				if err == nil {
					t.Fatalf("no error, but %+v", s)
				}
				got := strings.Split(err.Error(), "\n")
				if len(got) != len(tt.want) {
					t.Fatalf("%d faults, want %d:\n%v", len(got), len(tt.want), err)
				}
				for i, want := range tt.want {
					if !strings.HasPrefix(got[i], name+":"+want) {
						t.Errorf("fault %q, want %q", strings.TrimPrefix(got[i], name+":"), want)
					}
				}
			})
		}
	}
}

// TestUnreadableFiles has no file without permission, because tests may run as root,
// which can read it.
func TestUnreadableFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := writeConfig(t, "{}")
	long := writeConfig(t, "#"+strings.Repeat("x", maxFileBytes))
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	tests := map[string]string{
		dir:                           "--config: " + dir + " is not a regular file",
		filepath.Join(dir, "missing"): "--config: stat " + filepath.Join(dir, "missing") + ": no such file or directory",
		filepath.Join(file, "below"):  "--config: stat " + filepath.Join(file, "below") + ": not a directory",
		long:                          "--config: " + long + " is longer than 1048576 bytes",
		socket:                        "--config: " + socket + " is not a regular file",
		"a\x00b":                      "--config: stat a\x00b: invalid argument",
	}
	for name, want := range tests {
		_, err := loadFrom(t, []string{"--config", name}, nil)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if err := os.WriteFile(long, []byte("#"+strings.Repeat("x", maxFileBytes-1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadFrom(t, []string{"--config", long}, nil); err != nil {
		t.Errorf("a file of just so many bytes: %v", err)
	}
}

// TestManyFaults: the error for a file full of faults is bounded.
func TestManyFaults(t *testing.T) {
	t.Parallel()
	_, _, err := loadText(t, strings.Repeat("a: 1\n", 10*maxFaults))
	if err == nil {
		t.Fatal("no error")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != maxFaults {
		t.Errorf("%d faults, want %d", n, maxFaults)
	}
}

func TestSecretsAreNotInErrors(t *testing.T) {
	t.Parallel()
	_, _, err := loadText(t, "admin: {token: 12345}\nlisteners:\n  - tls: {key_passphrase: 12345, key: [12345]}\n")
	if err == nil || strings.Contains(err.Error(), "12345") || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error %v", err)
	}
	const space, word = "; a space is missing behind token:", "what stands there is no key"
	for text, want := range map[string]string{
		"s3cret\n":                                          "1: want keys below it, not what stands there",
		"token:s3cret\n":                                    "1: want keys below it, not what stands there" + space,
		"{token:s3cret}\n":                                  "1: " + word + space,
		"admin: s3cret\n":                                   "1: admin: want keys below it, not what stands there",
		"admin: 53.37\n":                                    "1: admin: want keys below it, not what stands there",
		"admin:\n  token:s3cret\n":                          "2: admin: want keys below it, not what stands there" + space,
		"admin: {token:s3cret}\n":                           "1: admin: " + word + space,
		"admin: {token=s3cret}\n":                           "1: admin: " + word,
		"admin: {s3cret}\n":                                 "1: admin: " + word,
		"admin: {token s3cret: a}\n":                        "1: admin: " + word,
		"admin:\n  protect: all\n   token:s3cret\n":         "2: admin.protect: another key seems to stand in this text",
		"admin:\n  address: off\n   token s3cret\n":         "2: admin.address: another key seems to stand in this text",
		"admin:\n  protect: all\n  token:s3cret\n":          "3: not YAML: could not find expected ':'",
		"admin: {hosts: [a token:s3cret]}\n":                "1: admin.hosts[0]: another key seems to stand in this text",
		"listeners: s3cret\n":                               "1: listeners: want a list, not what stands there",
		"listeners: [s3cret]\n":                             "1: listeners[0]: want keys below it, not what stands there",
		"listeners: [{tls: s3cret}]\n":                      "1: listeners[0].tls: want keys below it, not what stands there",
		"listeners: [{tls: {optional: true key:s3cret}}]\n": "1: listeners[0].tls.optional: another key seems to stand in this text",
		"listeners: [{tls: {certificates: [s3cret]}}]\n":    "1: listeners[0].tls.certificates[0]: want keys below it, not what stands there",
	} {
		_, name, err := loadText(t, text)
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "53.37") || !strings.HasPrefix(err.Error(), name+":"+want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	text := "admin: {token: one of mine, hosts: [a.example]}\nlisteners: [{tls: {mode: manual, cert: a b, client_auth: none, ticket_keys: \"a key=b\", key: c d, key_passphrase: e f}}]\n"
	if _, _, err := loadText(t, text); err != nil {
		t.Error(err)
	}
}
