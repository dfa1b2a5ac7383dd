// Command muxserve serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one port: the
// demo of package mux, and a tool to try clients, balancers and drains with.
//
//	muxserve [serve] [flags]      run (the default)
//	muxserve check [flags]        validate, and print the effective configuration
//	muxserve probe [flags] ADDR   ask a server once whether it is healthy
//	muxserve version              print what this binary was built from
//	muxserve completion SHELL     print the completion script for bash, zsh or fish
//	muxserve man                  print the manual page
//	muxserve help [flags]         print a short help, or explain all flags
//
// SIGINT, SIGTERM and SIGQUIT drain, and a second one cuts what is left. SIGHUP
// reloads the configuration and the certificates. The exit code is 0 after a clean end, 1 if the server
// could not start or serve, 2 for a wrong command line or configuration, 3 if the drain had
// to cut connections, and 128 plus the signal's number if a second signal forced the end.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// The exit codes, beside 128 plus the number of a signal.
const (
	exitOK     = 0
	exitFailed = 1 // could not start or serve; not healthy
	exitUsage  = 2 // wrong command line or configuration
	exitCut    = 3 // the drain cut connections
)

// environment is what a command may use of the process.
type environment struct {
	getenv func(string) string
	stdout io.Writer
	stderr io.Writer
	// restart replaces the process by itself with another value of GODEBUG, and
	// returns only when that fails. It is nil where the system cannot.
	restart func(godebug string) error
}

// command is one of muxserve's commands.
type command struct {
	name  string
	usage string // of its arguments
	help  string
	run   func(ctx context.Context, args []string, env environment) int
}

func commands() []command {
	return []command{
		{"serve", "[flags]", "serve, until a signal (the default)", serve},
		{"check", "[flags]", "validate, and print what applies", check},
		{"probe", "[flags] ADDR", "ask once whether a server is healthy", probe},
		{"version", "", "print what this binary was built from", version},
		{"completion", "SHELL", "print a completion script: bash, zsh or fish", completion},
		{"man", "", "print the manual page", man},
		{"help", "[flags]", "print this, or explain all flags", help},
	}
}

func main() {
	env := environment{getenv: os.Getenv, stdout: os.Stdout, stderr: os.Stderr, restart: restart}
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
		if c.name == name {
			return c.run(ctx, args, env)
		}
		names = append(names, c.name)
	}
	meant := "the commands are " + strings.Join(names, ", ")
	if near := cli.Nearest(name, names); near != "" {
		meant = "did you mean " + near + "?"
	}
	return usageError(env, fmt.Errorf("unknown command %q; %s", name, meant))
}

// usageError reports what is wrong with the command line or the configuration,
// one line for each fault.
func usageError(env environment, err error) int {
	for fault := range strings.Lines(err.Error()) {
		fmt.Fprintln(env.stderr, "muxserve:", strings.TrimSuffix(fault, "\n"))
	}
	fmt.Fprintln(env.stderr, "See muxserve --help.")
	return exitUsage
}

// failure reports what went wrong with a well-formed command.
func failure(env environment, err error) int {
	fmt.Fprintln(env.stderr, "muxserve:", err)
	return exitFailed
}
