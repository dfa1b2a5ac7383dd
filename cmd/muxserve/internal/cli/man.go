package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

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
	return len(a) == len(b) && (len(a) == 0 || a[0].Name == b[0].Name)
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
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
