package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// strictChecks take the place of the recipe's health checks, so that a restart
// takes seconds: they notice a drain within a second and a half.
const strictChecks = "check inter 500ms fall 2 rise 1"

// recipeChecks are the recipe's own.
var recipeChecks = regexp.MustCompile(`check inter \d+s fall \d+ rise \d+`)

// maxConnections is enough for the load, and takes fewer descriptors than the recipe's.
const maxConnections = "  maxconn 4000"

// recipe returns muxserve's own recipe for HAProxy with the addresses of this
// run. A strict one checks faster, and tries no connection a second time that a
// server has refused, so that the client sees it.
func recipe(file, socket string, bind *process.Port, backends []*backend, strict bool) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("restarts: %w", err)
	}
	var out strings.Builder
	bound, served := false, false
	for line := range strings.Lines(string(text)) {
		directive, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case directive == "global":
			line = fmt.Sprintf("global\n  stats socket %s mode 600\n", socket)
		case directive == "maxconn":
			line = maxConnections + "\n"
		case directive == "bind":
			line = fmt.Sprintf("  bind %s\n", bind)
			bound = true
		case directive == "server":
			line = ""
			served = true
		case strict && directive == "default-server":
			line = recipeChecks.ReplaceAllString(line, strictChecks)
		case strict && directive == "retries":
			line = "  retries 0\n"
		case strict && strings.TrimSpace(line) == "option redispatch":
			line = ""
		}
		out.WriteString(line)
	}
	if !bound || !served {
		return "", fmt.Errorf("restarts: %s binds no port or has no server", file)
	}
	// The backend is the last section.
	for i, b := range backends {
		fmt.Fprintf(&out, "  server %s %s port %d\n", backendName(i), b.service, b.admin.Number)
	}
	return out.String(), nil
}
