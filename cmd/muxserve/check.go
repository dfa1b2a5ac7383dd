package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/listeners"
)

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
	for _, w := range append(warnings, s.Warnings()...) {
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
	seen := make(map[string]bool)
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
			if !seen[w] { // Listeners may share a certificate.
				seen[w] = true
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
	if s, err = settings.Load(parsed, env.getenv); err != nil {
		return nil, usageError(env, err), true
	}
	return s, exitOK, false
}
