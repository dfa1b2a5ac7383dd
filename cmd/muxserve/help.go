package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// program describes muxserve for its help, its manual page and the completion of
// its command line.
func program() cli.Program {
	p := cli.Program{
		Name:    "muxserve",
		Summary: "muxserve serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one port.",
		Default: "serve",
		Notes: []string{
			"\"muxserve help flags\" explains these. A flag > MUXSERVE_… > file > default.",
		},
		Sections: manual,
	}
	for _, c := range commands() {
		described := cli.Command{Name: c.name, Usage: c.usage, Help: c.help}
		switch c.name {
		case "serve", "check":
			described.Flags = settings.Flags()
		case "probe":
			described.Flags = probeFlags
		case "completion":
			described.Args = cli.Shells()
		case "help":
			described.Args = []string{helpFlags}
		}
		p.Commands = append(p.Commands, described)
	}
	return p
}

// helpFlags is the argument of help that asks for all flags.
const helpFlags = "flags"

// manual ends the manual page.
var manual = []cli.Section{
	{Title: "Configuration", Paragraphs: []string{
		"A value comes from, in this order: the flag, its environment variable, the file that --config names, the default. An empty variable " +
			"is as good as none. The flags of listeners bear on every listener, those of the file included; with --listen, the first address " +
			"replaces that of the file's first listener, and so on.",
		"IP, and PORT or APP_PORT, replace the host and the port of the first TCP address, unless --listen is given.",
		"The file is YAML, of which JSON is a part. muxserve.example.yaml has every key, and CONFIGURATION.md explains them. muxserve check " +
			"prints what all of it comes to, and says behind each value where it is from.",
	}},
	{Title: "Environment", Paragraphs: []string{
		"Each flag has a variable, as shown with it. NO_COLOR switches the colours of the log off.",
	}},
	{Title: "Signals", Paragraphs: []string{
		"SIGINT, SIGTERM and SIGQUIT drain, and a second one cuts what is left. SIGHUP reloads the configuration and the certificates. SIGUSR2 " +
			"replaces the process by a new one of the same binary's file, without losing a connection. SIGPIPE is ignored.",
	}},
	{Title: "Exit status", Paragraphs: []string{
		"0: a clean end. 1: could not start or serve; with probe, not healthy. 2: wrong command line or configuration. 3: the drain had to " +
			"cut connections. 128 and the signal's number: a second signal forced the end.",
	}},
}

// help prints the short help, or explains all flags.
func help(_ context.Context, args []string, env environment) int {
	switch {
	case len(args) == 0 || args[0] == "-h" || args[0] == "--help":
		printHelp(env.stdout)
		return exitOK
	case len(args) == 1 && args[0] == helpFlags:
		fmt.Fprint(env.stdout, "Flags of serve and check:\n\n")
		// A failed write of a help text leaves nobody to tell.
		_ = cli.WriteFlags(env.stdout, settings.Flags())
		fmt.Fprint(env.stdout, `
What is said of listeners, by the flags of Listening and TLS, bears on every
listener, those of the file included. IP, and PORT or APP_PORT, replace the host
and the port of the first TCP address, unless --listen is given.

Flags of probe:

`)
		_ = cli.WriteFlags(env.stdout, probeFlags)
		return exitOK
	default:
		return usageError(env, fmt.Errorf("help takes nothing, or %s", helpFlags))
	}
}

// printHelp writes the help that fits a screen.
func printHelp(w io.Writer) {
	// A failed write of a help text leaves nobody to tell.
	_ = program().WriteHelp(w)
}

// printProbeHelp explains the flags of probe.
func printProbeHelp(w io.Writer) {
	fmt.Fprint(w, "muxserve probe [flags] ADDR asks a server once whether it is healthy.\n\n")
	// A failed write of a help text leaves nobody to tell.
	_ = cli.WriteFlags(w, probeFlags)
}

// completion prints the completion script for a shell.
func completion(_ context.Context, args []string, env environment) int {
	if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
		printHelp(env.stdout)
		return exitOK
	}
	if len(args) != 1 {
		return usageError(env, errors.New("completion needs the name of a shell: bash, zsh or fish"))
	}
	if err := program().WriteCompletion(env.stdout, args[0]); err != nil {
		return usageError(env, fmt.Errorf("completion: %w", err))
	}
	return exitOK
}

// man prints the manual page.
func man(_ context.Context, args []string, env environment) int {
	if len(args) > 0 {
		return usageError(env, errors.New("man takes no arguments; see it with: muxserve man | man -l -"))
	}
	if err := program().WriteMan(env.stdout); err != nil {
		return failure(env, err)
	}
	return exitOK
}
