package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// The screen that a help text is made for: that of the first terminals, which
// is still the least that anybody has.
const (
	screenWidth = 80
	helpIndent  = "        "
)

// WriteHelp writes a help text that fits a screen: the commands, and the flags of
// the default command by their groups, without explanation.
func (p Program) WriteHelp(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s\n\n", p.Summary)
	const padding = 3
	table := tabwriter.NewWriter(out, 0, 0, padding, ' ', 0)
	for _, c := range p.Commands {
		fmt.Fprintf(table, "  %s\t%s\n", strings.TrimSpace(p.Name+" "+c.Name+" "+c.Usage), c.Help)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	all := groups(p.command(p.Default).Flags)
	width := 0
	for _, g := range all {
		width = max(width, len(g.name))
	}
	fmt.Fprintln(out)
	for _, g := range all {
		usages := make([]string, len(g.flags))
		for i, f := range g.flags {
			usages[i] = strings.ReplaceAll(f.usage(), " ", "\u00a0")
		}
		lines := wrap(strings.Join(usages, "  "), screenWidth-width-len("    "))
		for i, line := range lines {
			name := g.name
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(out, "  %-*s  %s\n", width, name, strings.ReplaceAll(line, "\u00a0", " "))
		}
	}
	fmt.Fprintln(out)
	for _, note := range p.Notes {
		fmt.Fprintln(out, note)
	}
	return out.Flush()
}

// WriteFlags explains flags, each group under its heading.
func WriteFlags(w io.Writer, flags []Flag) error {
	out := bufio.NewWriter(w)
	for i, g := range groups(flags) {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if g.name != "" {
			fmt.Fprintf(out, "%s\n", g.name)
		}
		for _, f := range g.flags {
			fmt.Fprintf(out, "  %s\n", f.usage())
			for _, line := range wrap(f.explain(), screenWidth-len(helpIndent)) {
				fmt.Fprintln(out, helpIndent+line)
			}
		}
	}
	return out.Flush()
}

// explain returns the flag's help with its default and its variable.
func (f Flag) explain() string {
	text := f.Help
	if f.Default != "" && f.Default != "false" {
		text += " (default " + f.Default + ")"
	}
	if f.Env != "" {
		text += " [" + f.Env + "]"
	}
	return text
}

// wrap breaks a text between words into lines of at most width columns; a word
// that is longer has a line of its own. Runs of blanks within a line stay.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case line == "":
			line = word
		case runes(line)+1+runes(word) > width:
			lines = append(lines, strings.TrimRight(line, " "))
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, strings.TrimRight(line, " "))
}

func runes(s string) int { return len([]rune(s)) }
