package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// program describes muxserve for its help, its manual page and its completion scripts.
func program() cli.Program {
	p := cli.Program{
		Name:     "muxserve",
		Summary:  "muxserve serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one port.",
		Default:  "serve",
		Notes:    []string{"\"muxserve help flags\" explains all. A flag > MUXSERVE_… > file > default."},
		Sections: manual,
	}
	for _, c := range commands() {
		p.Commands = append(p.Commands, c.Command)
	}
	return p
}

// helpFlags is the argument of help that asks for all flags.
const helpFlags = "flags"

// manual is the end of the manual page.
var manual = []cli.Section{
	{Title: "Configuration", Paragraphs: []string{
		"A value comes from, in this order: the flag, its environment variable, the file that --config names, the default. An empty " +
			"variable counts as not set. The flags of listeners set every listener, those of the file included. With --listen, the first " +
			"address replaces that of the file's first listener, and so on.",
		"IP replaces the host, and PORT or APP_PORT the port, of the first TCP address, unless --listen is given. A port alone replaces " +
			"the default host by all addresses.",
		"The file is YAML, which includes JSON. muxserve.example.yaml has every key, and CONFIGURATION.md explains them. muxserve check " +
			"prints the effective configuration, and behind each value where it is from.",
	}},
	{Title: "Environment", Paragraphs: []string{
		"Each flag has a variable, which is shown with it. NO_COLOR switches the colours of the log off.",
	}},
	{Title: "Signals", Paragraphs: []string{
		"SIGINT, SIGTERM and SIGQUIT drain, and a second one cuts what is left. SIGHUP reloads the file and the certificates; flags and variables stay as they are. " +
			"SIGUSR2 starts the binary again and hands the sockets over, without losing a connection. SIGPIPE is ignored.",
	}},
	{Title: "Exit status", Paragraphs: []string{
		"0: a clean end. 1: could not start or serve; with probe, not healthy. 2: wrong command line or configuration. 3: the drain had to " +
			"cut connections. 128 plus the signal's number: a second signal forced the end.",
	}},
}

// Failed writes of help texts are ignored in this file: there is no other place to report
// to.

// help prints the short help, or explains all flags.
func help(_ context.Context, args []string, env environment) int {
	switch {
	case len(args) == 0 || isHelp(args):
		printHelp(env.stdout)
		return exitOK
	case len(args) == 1 && args[0] == helpFlags:
		fmt.Fprint(env.stdout, "Flags of serve and check:\n\n")
		_ = cli.WriteFlags(env.stdout, settings.Flags())
		fmt.Fprint(env.stdout, `
The flags of Listening and TLS set every listener, those of the file included.
IP replaces the host, and PORT or APP_PORT the port, of the first TCP address,
unless --listen is given. A port alone replaces the default host by all addresses.

Flags of probe:

`)
		_ = cli.WriteFlags(env.stdout, probeFlags)
		return exitOK
	default:
		return usageError(env, fmt.Errorf("help takes nothing, or %s", helpFlags))
	}
}

func isHelp(args []string) bool { return args[0] == "-h" || args[0] == "--help" }

// printHelp writes the help that fits a screen.
func printHelp(w io.Writer) { _ = program().WriteHelp(w) }

// completion prints the completion script for a shell.
func completion(_ context.Context, args []string, env environment) int {
	if len(args) != 1 {
		return usageError(env, errors.New("completion needs the name of a shell: bash, zsh or fish"))
	}
	if isHelp(args) {
		printHelp(env.stdout)
		return exitOK
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

// version prints the module's version, the toolchain and the revision of the build.
func version(_ context.Context, args []string, env environment) int {
	if len(args) > 0 {
		return usageError(env, errors.New("version takes no arguments"))
	}
	info, _ := debug.ReadBuildInfo()
	printVersion(env.stdout, info)
	return exitOK
}

// buildVersion returns the module's version. info may be nil.
func buildVersion(info *debug.BuildInfo) string {
	if info == nil {
		return "unknown"
	}
	return cmp.Or(info.Main.Version, "unknown")
}

// printVersion prints "unknown" for what the build has not recorded. info may be nil.
func printVersion(w io.Writer, info *debug.BuildInfo) {
	info = cmp.Or(info, new(debug.BuildInfo))
	module, revision, when, modified := buildVersion(info), "unknown", "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.time":
			when = " of " + s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", modified"
		}
	}
	if revision == "unknown" {
		modified = "" // A tree without a commit always counts as modified.
	}
	fmt.Fprintf(w, "muxserve %s\n%s %s/%s\nrevision %s%s%s\n",
		module, runtime.Version(), runtime.GOOS, runtime.GOARCH, revision, when, modified)
}
