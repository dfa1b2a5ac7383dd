// Package cli parses GNU-style command lines: --name value, --name=value, and "--" before
// arguments that begin with a dash. It also writes help texts, manual pages and
// completion scripts.
//
// Unlike package flag it reports which flags were given, which a program with environment
// variables for the same settings needs, and it corrects misspelt flags.
package cli

import (
	"fmt"
	"slices"
	"strings"
)

// Flag declares one flag.
type Flag struct {
	// Name is the flag's name without dashes.
	Name string
	// Value is the placeholder of the value in the help, such as ADDR. A flag without it
	// is a switch: it takes no value, or =true or =false.
	Value string
	// Help describes the flag in one line.
	Help string
	// Default is only shown in the help.
	Default string
	// Group is the heading of the flag. The flags of a group are shown together.
	Group string
	// Env is the environment variable, and Key the key of the configuration file, with
	// the same meaning; empty if there is none.
	Env string
	Key string
	// Choices are the possible values; nil if there are too many to list.
	Choices []string
	// Files are the files that a value may name.
	Files Files
	// Rare leaves the flag out of the help that fits a screen.
	Rare bool
}

// Files are the files that the value of a flag may name.
type Files int

// The values of Files.
const (
	NoFile    Files = iota // the value is not a file
	AnyFile                // the value may be a file
	Directory              // the value is a directory
)

// usage returns the flag as a user writes it.
func (f Flag) usage() string {
	if f.Value == "" {
		return "--" + f.Name
	}
	return "--" + f.Name + " " + f.Value
}

// Parsed is a parsed command line.
type Parsed struct {
	// Values are the values of each given flag, in order. A switch has the values "true"
	// or "false".
	Values map[string][]string
	// Args are the arguments without the flags.
	Args []string
	// Help is true if -h or --help was given; nothing after it was read.
	Help bool
}

// Last returns the last value of a flag, and whether the flag was given.
func (p Parsed) Last(name string) (value string, given bool) {
	if values := p.Values[name]; len(values) > 0 {
		return values[len(values)-1], true
	}
	return "", false
}

// On reports whether a switch is on.
func (p Parsed) On(name string) bool {
	value, _ := p.Last(name)
	return value == "true"
}

// Parse parses args. Its errors name the flag, and for an unknown flag a similar one.
func Parse(flags []Flag, args []string) (Parsed, error) {
	p := Parsed{Values: make(map[string][]string)}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			p.Args = append(p.Args, args...)
			return p, nil
		case arg == "-h" || arg == "--help":
			p.Help = true
			return p, nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			p.Args = append(p.Args, arg)
		default:
			var err error
			if args, err = p.take(flags, arg, args); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// take parses the flag arg. Its value is in arg or the first of rest. It returns the
// arguments that are left.
func (p Parsed) take(flags []Flag, arg string, rest []string) ([]string, error) {
	i := find(flags, arg)
	if i < 0 {
		return nil, unknownFlag(flags, arg)
	}
	_, value, hasValue := strings.Cut(arg, "=")
	f := flags[i]
	name := f.Name
	switch {
	case f.Value == "" && !hasValue:
		value = "true"
	case f.Value == "" && value != "true" && value != "false":
		return nil, fmt.Errorf("--%s: %q is not true or false", name, value)
	case f.Value != "" && !hasValue:
		// A known flag in the place of the value means that the value is missing. Other
		// values may begin with a dash: negative numbers and PEM texts.
		if len(rest) == 0 || find(flags, rest[0]) >= 0 {
			return nil, fmt.Errorf("--%s needs a value: --%s %s", name, name, f.Value)
		}
		value, rest = rest[0], rest[1:]
	}
	p.Values[name] = append(p.Values[name], value)
	return rest, nil
}

// find returns the index of the flag in arg, or -1.
func find(flags []Flag, arg string) int {
	name, _, _ := strings.Cut(arg, "=")
	return slices.IndexFunc(flags, func(f Flag) bool { return "--"+f.Name == name })
}

func unknownFlag(flags []Flag, arg string) error {
	given, _, _ := strings.Cut(arg, "=")
	names := make([]string, len(flags))
	for i, f := range flags {
		names[i] = "--" + f.Name
	}
	if meant := Suggest("--"+strings.TrimLeft(given, "-"), names); meant != "" {
		return fmt.Errorf("unknown flag %s; %s", given, meant)
	}
	return fmt.Errorf("unknown flag %s", given)
}

// maxTypos bounds the wrong, missing and surplus letters of a misspelling.
const maxTypos = 3

// Suggest asks whether the candidate that is most similar to word was meant. It returns ""
// if none is similar.
func Suggest(word string, candidates []string) string {
	if near := Nearest(word, candidates); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}

// Nearest returns the candidate that is most similar to word, or "" if none is similar.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", maxTypos+1
	for _, c := range candidates {
		if len(word) > len(c)+maxTypos {
			continue
		}
		if d := distance(word, c); d < bestDistance && 2*d < len(c) {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance counts the letters of a to insert, delete, replace or swap with the next in
// order to get b. It counts bytes, because flags, commands and keys are ASCII.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			substitute := row[j]
			if a[i] != b[j] {
				substitute++
			}
			next[j+1] = min(substitute, next[j]+1, row[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
