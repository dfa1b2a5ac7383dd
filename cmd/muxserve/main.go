// Command muxserve serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one port. It is the
// demo of package mux, and a tool to try clients, balancers and drains with.
// "muxserve help" lists its commands, and "muxserve man" prints the manual page with the
// signals and the exit status.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/upgrade"
	"github.com/muxserve/muxserve/listeners"
)

// The exit codes.
const (
	exitOK        = 0
	exitFailed    = 1   // could not start or serve; not healthy
	exitUsage     = 2   // wrong command line or configuration
	exitCut       = 3   // the drain cut connections
	exitSignalled = 128 // plus the number of the second signal, as in shells
)

// environment is the part of the process that a command may use.
type environment struct {
	getenv func(string) string
	// environ has all variables, in which misspelt names are looked for.
	environ []string
	stdout  io.Writer
	stderr  io.Writer
	// restart replaces the process by itself with another value of GODEBUG, and returns
	// only when that fails. It is nil where the system cannot replace a process.
	restart func(godebug string) error
}

// command is one of muxserve's commands.
type command struct {
	cli.Command

	run func(ctx context.Context, args []string, env environment) int
}

func commands() []command {
	serverFlags := settings.Flags()
	return []command{
		{cli.Command{Name: "serve", Usage: "[flags]", Help: "serve, until a signal (the default)", Flags: serverFlags}, serve},
		{cli.Command{Name: "check", Usage: "[flags]", Help: "validate, and print what applies", Flags: serverFlags}, check},
		{cli.Command{Name: "probe", Usage: "[flags] ADDR", Help: "ask once whether a server is healthy", Flags: probeFlags}, probe},
		{cli.Command{Name: "ctl", Usage: "[flags] VERB", Help: "ask a running server, or have it drain, reload …", Flags: allCtlFlags(), Args: verbNames()}, ctl},
		{cli.Command{Name: "version", Help: "print what this binary was built from"}, version},
		{cli.Command{Name: "completion", Usage: "SHELL", Help: "print a completion script: bash, zsh or fish", Args: cli.Shells()}, completion},
		{cli.Command{Name: "man", Help: "print the manual page"}, man},
		{cli.Command{Name: "help", Usage: "[flags]", Help: "print this, or explain all flags", Args: []string{helpFlags}}, help},
	}
}

func main() {
	env := environment{getenv: os.Getenv, environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr, restart: restart}
	os.Exit(run(context.Background(), os.Args[1:], env))
}

// run runs the command that args name and returns the exit code.
func run(ctx context.Context, args []string, env environment) int {
	name := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	} else if len(args) > 0 && args[0] == "--version" {
		name, args = "version", args[1:]
	}
	var names []string
	for _, c := range commands() {
		if c.Name == name {
			return c.run(ctx, args, env)
		}
		names = append(names, c.Name)
	}
	meant := cmp.Or(cli.Suggest(name, names), "the commands are "+strings.Join(names, ", "))
	return usageError(env, fmt.Errorf("unknown command %q; %s", name, meant))
}

// usageError reports faults of the command line or the configuration, one on each line.
func usageError(env environment, err error) int {
	for fault := range strings.Lines(err.Error()) {
		fmt.Fprintln(env.stderr, "muxserve:", strings.TrimSuffix(fault, "\n"))
	}
	fmt.Fprintln(env.stderr, "See muxserve --help.")
	return exitUsage
}

// failure reports an error of a well-formed command. It waits for stderr, which may be a full
// pipe, for a bounded time.
func failure(env environment, err error) int {
	written := make(chan struct{})
	go func() {
		defer close(written)
		fmt.Fprintln(env.stderr, "muxserve:", err)
	}()
	select {
	case <-written:
	case <-time.After(writeTime):
	}
	return exitFailed
}

// envInherit is the variable in which package listeners describes the sockets of an
// upgrade to the new process.
const envInherit = "MUXSERVE_INHERIT"

// warnings returns a sentence for each variable that looks like muxserve's and is not.
func (e environment) warnings() []string {
	return settings.VariableWarnings(e.environ, upgrade.EnvReady, envState, envInherit)
}

// check does everything that serve does before it opens a port, and prints the effective
// configuration. It loads the certificates too, because they cause most mistakes.
func check(_ context.Context, args []string, env environment) int {
	s, code, done := load("check", args, env)
	if done {
		return code
	}
	warnings, err := checkCertificates(s)
	if err != nil {
		return usageError(env, err)
	}
	for _, w := range slices.Concat(warnings, s.Warnings(), env.warnings()) {
		fmt.Fprintln(env.stderr, "muxserve: warning:", w)
	}
	if err := s.Write(env.stdout); err != nil {
		return failure(env, err)
	}
	return exitOK
}

// checkCertificates loads the TLS files of the listeners. It returns every fault with its
// place in the configuration, and warnings about files that work but are probably not
// intended.
func checkCertificates(s *settings.Settings) (warnings []string, err error) {
	var faults []error
	for i, l := range s.Mux.Listeners {
		if !l.TLS.Enabled() {
			continue
		}
		material, err := listeners.NewTLS(l.TLS)
		if err != nil {
			faults = append(faults, s.Locate(fmt.Sprintf("listeners[%d]", i), err))
			continue
		}
		for _, w := range material.Warnings() {
			if !slices.Contains(warnings, w) { // Listeners may share a certificate.
				warnings = append(warnings, w)
			}
		}
	}
	return warnings, errors.Join(faults...)
}

// load loads the settings of a command that takes the server's flags. Where done is true,
// the command has ended with code.
func load(name string, args []string, env environment) (s *settings.Settings, code int, done bool) {
	parsed, err := cli.Parse(settings.Flags(), args)
	switch {
	case err != nil:
		return nil, usageError(env, err), true
	case parsed.Help:
		printHelp(env.stdout)
		return nil, exitOK, true
	case len(parsed.Args) > 0:
		return nil, usageError(env, fmt.Errorf("%s takes flags only, not %q", name, parsed.Args[0])), true
	}
	loadSettings := settings.Load
	if env.getenv(upgrade.EnvReady) != "" && !passedStateOf(env.getenv).Blank {
		loadSettings = settings.LoadFull
	}
	if s, err = loadSettings(parsed, env.getenv); err != nil {
		return nil, usageError(env, err), true
	}
	return s, exitOK, false
}
