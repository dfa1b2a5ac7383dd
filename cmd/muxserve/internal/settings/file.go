package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds a configuration file. One with every key has 10 KiB.
const maxFileBytes = 1 << 20

// ReadFile reads a regular file of at most limit bytes. Other kinds of files are an
// error: a pipe cannot be read twice, and opening it may block for ever.
func ReadFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return data, nil
}

// parseConfig returns the only document of a file; nil for an empty file. Its fault has
// the line where parsing ended.
func parseConfig(data []byte) (*yaml.Node, *fault) {
	if f := checkText(data); f != nil {
		return nil, f
	}
	var first, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&first); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, syntaxFault(err, data)
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
		return first.Content[0], nil
	case err != nil:
		return nil, syntaxFault(err, data)
	default:
		return nil, &fault{line: second.Line, text: "a second document begins; there can be only one"}
	}
}

// syntaxForm matches the errors of the YAML package.
var syntaxForm = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// grammarForm matches the errors of its parser, which counts lines from 0; its scanner
// counts from 1. Both leave the line out where it is 0.
var grammarForm = regexp.MustCompile(`^(did not find|found undefined tag|found duplicate %|found incompatible)`)

// anchorForm matches the one error that never has a line.
var anchorForm = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)

// syntaxFault returns the fault of a file that is not YAML.
func syntaxFault(err error, data []byte) *fault {
	m := syntaxForm.FindStringSubmatch(err.Error())
	if m == nil {
		return &fault{line: 1, text: err.Error()}
	}
	text := m[2]
	line, _ := strconv.Atoi(m[1])
	if grammarForm.MatchString(text) {
		line++
	}
	if anchor := anchorForm.FindStringSubmatch(text); anchor != nil {
		before, _, _ := bytes.Cut(data, []byte("*"+anchor[1]))
		line = 1 + bytes.Count(before, []byte("\n"))
		text = "an alias of nothing; put a text that begins with * in quotes" // It may be a secret.
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	line = min(max(line, 1), len(lines))
	// The line is the beginning of the element that contains the tab, so the tab is there
	// or below.
	if at := slices.IndexFunc(lines[line-1:], indentForm.MatchString); at >= 0 && tabForm.MatchString(text) {
		return &fault{line: line + at, text: "not YAML: the line begins with a tab; indent with spaces"}
	}
	return &fault{line: line, text: "not YAML: " + text}
}

// tabForm matches the errors for a line that begins with a tab, and indentForm such lines.
var (
	tabForm    = regexp.MustCompile(`tab character|cannot start any token`)
	indentForm = regexp.MustCompile(`^ *\t`)
)

// checkText refuses text that is not UTF-8, and control characters, which binary files
// have. The parser would accept UTF-16, but other programs that read the file may not.
func checkText(data []byte) *fault {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return &fault{line: 1, text: "the file is UTF-16; save it as UTF-8"}
	}
	line := 1
	for rest := data; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1:
			return &fault{line: line, text: fmt.Sprintf("byte %#02x is not UTF-8; is this the right file?", rest[0])}
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return &fault{line: line, text: fmt.Sprintf("byte %#02x is not text; is this the right file?", r)}
		}
		rest = rest[size:]
	}
	return nil
}
