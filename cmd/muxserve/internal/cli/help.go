package cli

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Program describes a program with commands.
type Program struct {
	// Name is the name of the binary.
	Name string
	// Summary describes the program in one sentence.
	Summary string
	// Default is the name of the command that runs where none is given.
	Default string
	// Commands are shown in this order.
	Commands []Command
	// Notes are lines below the flags of the help.
	Notes []string
	// Sections are the end of the man page.
	Sections []Section
}

// Command is one command of a program.
type Command struct {
	Name string
	// Usage is the placeholder of its flags and arguments in the help.
	Usage string
	// Help describes it in one line.
	Help string
	// Flags are its flags. Commands may share them.
	Flags []Flag
	// Args are the possible arguments, for completion; nil for any.
	Args []string
}

// Section is a section of a man page.
type Section struct {
	Title      string
	Paragraphs []string
}

// command returns the command with a name; the zero Command if there is none.
func (p Program) command(name string) Command {
	at := slices.IndexFunc(p.Commands, func(c Command) bool { return c.Name == name })
	if at < 0 {
		return Command{}
	}
	return p.Commands[at]
}

// group is the flags under one heading.
type group struct {
	name  string
	flags []Flag
}

// groups sorts the flags into their groups, in the order of the first flag of each.
func groups(flags []Flag) []group {
	var all []group
	for _, f := range flags {
		i := slices.IndexFunc(all, func(g group) bool { return g.name == f.Group })
		if i < 0 {
			i, all = len(all), append(all, group{name: f.Group})
		}
		all[i].flags = append(all[i].flags, f)
	}
	return all
}

// The width of help texts, which fit on any terminal.
const (
	screenWidth = 80
	helpIndent  = "        "
)

// WriteHelp writes a help text that fits a screen: the commands, and the names of the
// default command's flags by group.
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
		var usages []string
		for _, f := range g.flags {
			if !f.Rare {
				usages = append(usages, strings.ReplaceAll(f.usage(), " ", "\u00a0"))
			}
		}
		lines := Wrap(strings.Join(usages, "  "), screenWidth-width-len("    "))
		name := g.name // on its first line
		for _, line := range lines {
			fmt.Fprintf(out, "  %-*s  %s\n", width, name, strings.ReplaceAll(line, "\u00a0", " "))
			name = ""
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
			for _, line := range Wrap(f.explain(), screenWidth-len(helpIndent)) {
				fmt.Fprintln(out, helpIndent+line)
			}
		}
	}
	return out.Flush()
}

// explain returns the flag's help with its default and its environment variable.
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

// Wrap breaks a text between words into lines of at most width columns. A longer word has
// its own line. Runs of blanks within a line stay.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line+" "+word) > width:
			lines = append(lines, strings.TrimRight(line, " "))
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, strings.TrimRight(line, " "))
}

// WriteMan writes the man page for section 1 in roff. It has neither a date nor a
// version, so that it only changes with the program's description.
func (p Program) WriteMan(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, ".TH %s 1 \"\" %s \"User Commands\"\n", strings.ToUpper(p.Name), roff(p.Name))
	fmt.Fprintf(out, ".SH NAME\n%s \\- %s\n", roff(p.Name), roff(strings.TrimSuffix(strings.TrimPrefix(p.Summary, p.Name+" "), ".")))
	fmt.Fprint(out, ".SH SYNOPSIS\n")
	for i, c := range p.Commands {
		if i > 0 {
			fmt.Fprint(out, ".br\n")
		}
		name := c.Name
		if name == p.Default {
			name = "[" + name + "]"
		}
		fmt.Fprintf(out, "\\fB%s\\fR %s\n", roff(p.Name), roff(strings.TrimSpace(name+" "+c.Usage)))
	}
	fmt.Fprint(out, ".SH COMMANDS\n")
	for _, c := range p.Commands {
		fmt.Fprintf(out, ".TP\n\\fB%s\\fR\n%s\n", roff(c.Name), roffText(c.Help))
	}
	for _, c := range p.Commands {
		p.manFlags(out, c)
	}
	for _, s := range p.Sections {
		fmt.Fprintf(out, ".SH %s\n", strings.ToUpper(s.Title))
		for i, text := range s.Paragraphs {
			if i > 0 {
				fmt.Fprint(out, ".PP\n")
			}
			fmt.Fprintf(out, "%s\n", roffText(text))
		}
	}
	return out.Flush()
}

// manFlags explains the flags of a command, except where they are those of the default
// command.
func (p Program) manFlags(out io.Writer, c Command) {
	if len(c.Flags) == 0 || (c.Name != p.Default && sameFlags(c.Flags, p.command(p.Default).Flags)) {
		return
	}
	title := "OPTIONS"
	if c.Name != p.Default {
		title += " OF " + strings.ToUpper(c.Name)
	}
	fmt.Fprintf(out, ".SH %s\n", title)
	for _, g := range groups(c.Flags) {
		if g.name != "" {
			fmt.Fprintf(out, ".SS %s\n", roff(g.name))
		}
		for _, f := range g.flags {
			fmt.Fprintf(out, ".TP\n\\fB%s\\fR", roff("--"+f.Name))
			if f.Value != "" {
				fmt.Fprintf(out, " \\fI%s\\fR", roff(f.Value))
			}
			fmt.Fprintf(out, "\n%s\n", roffText(f.explain()))
		}
	}
}

// sameFlags reports whether two commands share their flags.
func sameFlags(a, b []Flag) bool {
	return slices.EqualFunc(a, b, func(a, b Flag) bool { return a.Name == b.Name })
}

// roff escapes the characters that roff interprets. It would print a dash as a hyphen,
// which shells do not accept.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, `"`, `\(dq`, "…", `...`).Replace(s)
}

// roffWidth is the width of lines in the source; roff fills them again.
const roffWidth = 78

// roffText is roff for text of several lines. It escapes a dot at the beginning of a
// line, which would be a request.
func roffText(s string) string {
	lines := Wrap(roff(s), roffWidth)
	return strings.ReplaceAll("\n"+strings.Join(lines, "\n"), "\n.", "\n\\&.")[1:]
}
