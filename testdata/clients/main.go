// Clients lets every client that can be had ask a real muxserve, in plaintext
// and over TLS, and prints a table of what was answered and of how many SETTINGS
// each connection saw. It fails when anything is lost. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// requestsPerConnection spreads the requests over many connections, since it is
// at the opening of one that a multiplexer may lose them.
const requestsPerConnection = 10

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("clients", flag.ContinueOnError)
	requests := flags.Int("requests", 2000, "how many requests each client makes; 10 a connection")
	late := flags.Duration("late", time.Minute, "how long after Connect an eager client makes its first call")
	only := flags.String("run", "", "the regular expression of the rows to run, as in \"grpc-go.*TLS\"; all if empty")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("clients: -run: %w", err)
	}
	if *requests < requestsPerConnection || *requests%requestsPerConnection != 0 {
		return fmt.Errorf("clients: -requests: %d is not a multiple of %d", *requests, requestsPerConnection)
	}
	dir, err := os.MkdirTemp("", "muxserve-clients-")
	if err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	defer os.RemoveAll(dir)
	servers, err := startServers(ctx, dir)
	if err != nil {
		return err
	}
	defer servers.stop()

	load := load{connections: *requests / requestsPerConnection, each: requestsPerConnection}
	var lost, ran int
	printHeader(os.Stdout)
	for _, r := range rows(*late) {
		if !pattern.MatchString(r.client + " " + r.form) {
			continue
		}
		ran++
		result := r.run(ctx, servers, load)
		result.print(os.Stdout)
		if !result.ok() {
			lost++
		}
	}
	if err := servers.stop(); err != nil {
		return err
	}
	if lost > 0 || ran == 0 {
		return fmt.Errorf("clients: %d of %d rows failed", lost, ran)
	}
	return nil
}
