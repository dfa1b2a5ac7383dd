package cli

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Shells are the shells that [Program.WriteCompletion] supports.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

// WriteCompletion writes the completion script of the program for a shell of [Shells].
func (p Program) WriteCompletion(w io.Writer, shell string) error {
	out := bufio.NewWriter(w)
	switch shell {
	case "bash":
		p.bash(out)
	case "zsh":
		p.zsh(out)
	case "fish":
		p.fish(out)
	default:
		return fmt.Errorf("%q is not one of %s", shell, strings.Join(Shells(), ", "))
	}
	return out.Flush()
}

// commandNames returns the names of all commands.
func (p Program) commandNames() []string {
	var names []string
	for _, c := range p.Commands {
		names = append(names, c.Name)
	}
	return names
}

// allFlags returns the flags of all commands, each name once.
func (p Program) allFlags() []Flag {
	var all []Flag
	for _, c := range p.Commands {
		for _, f := range c.Flags {
			if !slices.ContainsFunc(all, func(known Flag) bool { return known.Name == f.Name }) {
				all = append(all, f)
			}
		}
	}
	return all
}

// words returns the flags and arguments of a command.
func (c Command) words() string {
	words := slices.Clone(c.Args)
	for _, f := range c.Flags {
		words = append(words, "--"+f.Name)
	}
	return strings.Join(append(words, "--help"), " ")
}

// bash writes a function that completes by the command and the previous word.
func (p Program) bash(out io.Writer) {
	fmt.Fprintf(out, `# bash completion for %[1]s: source <(%[1]s completion bash)
_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=%[2]s
	# Bash takes the equals sign of --flag=value for a word of its own.
	if [[ $cur == "=" ]]; then
		cur=
	elif [[ $prev == "=" ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	COMPREPLY=()
	case ${COMP_WORDS[1]} in
`, p.Name, p.Default)
	fmt.Fprintf(out, "\t%s) command=${COMP_WORDS[1]} ;;\n\tesac\n\tcase $prev in\n", strings.Join(p.commandNames(), " | "))
	for _, f := range p.allFlags() {
		if f.Value != "" {
			fmt.Fprintf(out, "\t--%s) %sreturn ;;\n", f.Name, f.value(`COMPREPLY=($(compgen -W '%s' -- "$cur")); `,
				`compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")); `,
				`compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")); `, ""))
		}
	}
	fmt.Fprint(out, "\tesac\n\tlocal words\n\tcase $command in\n")
	for _, c := range p.Commands {
		fmt.Fprintf(out, "\t%s) words='%s' ;;\n", c.Name, c.words())
	}
	fmt.Fprintf(out, `	esac
	if ((COMP_CWORD == 1)); then
		words="%s $words"
	fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _%s %s
`, strings.Join(p.commandNames(), " "), p.Name, p.Name)
}

// zsh writes a function of _arguments specifications.
func (p Program) zsh(out io.Writer) {
	fmt.Fprintf(out, "#compdef %[1]s\n# zsh completion for %[1]s: source <(%[1]s completion zsh), or a file _%[1]s in $fpath\n_%[1]s() {\n", p.Name)
	fmt.Fprint(out, "\tlocal command=", p.Default, "\n\tlocal -a commands\n\tcommands=(\n")
	for _, c := range p.Commands {
		fmt.Fprintf(out, "\t\t'%s:%s'\n", c.Name, single(c.Help))
	}
	fmt.Fprintf(out, `	)
	if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then
		_describe command commands
		return
	fi
	if [[ $words[2] != -* ]]; then
		command=$words[2]
		shift words
		((CURRENT--))
	fi
	case $command in
`)
	for _, c := range p.Commands {
		fmt.Fprintf(out, "\t%s)\n\t\t_arguments", c.Name)
		for _, f := range c.Flags {
			fmt.Fprintf(out, " \\\n\t\t\t%s", zshFlag(f))
		}
		fmt.Fprint(out, " \\\n\t\t\t'--help[explain]'")
		if len(c.Args) > 0 {
			fmt.Fprintf(out, " \\\n\t\t\t'1:argument:(%s)'", strings.Join(c.Args, " "))
		}
		fmt.Fprint(out, "\n\t\t;;\n")
	}
	fmt.Fprintf(out, `	esac
}
if [[ $funcstack[1] == _%[1]s ]]; then
	_%[1]s "$@"
else
	compdef _%[1]s %[1]s
fi
`, p.Name)
}

// zshFlag returns the specification of a flag, which may be given more than once.
func zshFlag(f Flag) string {
	// A colon or a bracket would end the explanation.
	help := strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(single(f.Help))
	if f.Value == "" {
		return fmt.Sprintf("'*--%s[%s]'", f.Name, help)
	}
	return fmt.Sprintf("'*--%s=[%s]:%s:%s'", f.Name, help, f.Value, f.value("(%s)", "_files", "_files -/", ""))
}

// fish writes one line for each command and flag.
func (p Program) fish(out io.Writer) {
	fmt.Fprintf(out, "# fish completion for %[1]s: %[1]s completion fish | source\ncomplete -c %[1]s -f\n", p.Name)
	for _, c := range p.Commands {
		fmt.Fprintf(out, "complete -c %s -n __fish_use_subcommand -a %s -d '%s'\n", p.Name, c.Name, fishQuote(c.Help))
	}
	for _, c := range p.Commands {
		condition := "__fish_seen_subcommand_from " + c.Name
		if c.Name == p.Default {
			condition = "not __fish_seen_subcommand_from " + strings.Join(slices.DeleteFunc(p.commandNames(), func(n string) bool { return n == c.Name }), " ")
		}
		for _, f := range c.Flags {
			value := ""
			if f.Value != "" {
				value = f.value(" -x -a '%s'", " -r -F", " -x -a '(__fish_complete_directories)'", " -x")
			}
			fmt.Fprintf(out, "complete -c %s -n '%s' -l %s%s -d '%s'\n", p.Name, condition, f.Name, value, fishQuote(f.Help))
		}
		if len(c.Args) > 0 {
			fmt.Fprintf(out, "complete -c %s -n '%s' -a '%s'\n", p.Name, condition, strings.Join(c.Args, " "))
		}
	}
}

// value returns what suits the values of a flag: choices with the possible ones in it,
// or the text for any file, for a directory or for any other value.
func (f Flag) value(choices, file, directory, other string) string {
	switch {
	case len(f.Choices) > 0:
		return strings.ReplaceAll(choices, "%s", strings.Join(f.Choices, " "))
	case f.Files == AnyFile:
		return file
	case f.Files == Directory:
		return directory
	default:
		return other
	}
}

// single escapes a text for single quotes of bash and zsh.
func single(s string) string { return strings.ReplaceAll(s, "'", `'\''`) }

// fishQuote escapes a text for single quotes of fish.
func fishQuote(s string) string { return strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) }
