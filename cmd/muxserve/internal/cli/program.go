package cli

// Program describes a program with commands, for its help, its man page and the
// completion of its command line.
type Program struct {
	// Name is that of the binary.
	Name string
	// Summary says in one sentence what it does.
	Summary string
	// Default is the name of the command that runs where none is given.
	Default string
	// Commands are in the order in which they are shown.
	Commands []Command
	// Notes are shown below the flags of the help, as they are.
	Notes []string
	// Sections end the man page.
	Sections []Section
}

// Command is one command of a program.
type Command struct {
	Name string
	// Usage stands for its flags and arguments in the help.
	Usage string
	// Help says in one line what it does.
	Help string
	// Flags are its own. Several commands may have the same.
	Flags []Flag
	// Args are the words that may stand as its argument; nil if any may.
	Args []string
}

// Section is a section of a man page.
type Section struct {
	Title      string
	Paragraphs []string
}

// command returns the command of a name; the zero Command if there is none.
func (p Program) command(name string) Command {
	for _, c := range p.Commands {
		if c.Name == name {
			return c
		}
	}
	return Command{}
}

// group is the flags under one heading.
type group struct {
	name  string
	flags []Flag
}

// groups puts the flags under their headings, in the order of their first flags.
func groups(flags []Flag) []group {
	var all []group
	at := make(map[string]int)
	for _, f := range flags {
		i, known := at[f.Group]
		if !known {
			i = len(all)
			at[f.Group] = i
			all = append(all, group{name: f.Group})
		}
		all[i].flags = append(all[i].flags, f)
	}
	return all
}
