package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// printHelp writes the help of muxserve as a whole.
func printHelp(w io.Writer) {
	fmt.Fprint(w, "muxserve serves HTTP/1.1, HTTP/2, gRPC and WebSocket on one port.\n\nUsage:\n")
	const padding = 3
	table := tabwriter.NewWriter(w, 0, 0, padding, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(table, "  muxserve %s %s\t%s\n", c.name, c.usage, c.help)
	}
	// A failed write of a help text leaves nobody to tell.
	_ = table.Flush()
	fmt.Fprint(w, "\nFlags of serve and check:\n")
	cli.PrintFlags(w, settings.Flags())
	fmt.Fprint(w, `
Each flag has an environment variable that it wins over: --tls-cert is
MUXSERVE_TLS_CERT. IP and PORT (or APP_PORT) replace the default host and port.

Flags of probe:
`)
	cli.PrintFlags(w, probeFlags)
	fmt.Fprint(w, `
Signals: SIGINT, SIGTERM and SIGQUIT drain, a second one forces; SIGHUP reloads
the certificates.
Exit codes: 0 clean, 1 could not start or serve (probe: not healthy), 2 usage or
invalid configuration, 3 the drain cut connections, 128+signal forced.
`)
}
