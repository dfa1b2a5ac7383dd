// Openings records how HTTP/2 clients open a connection: what each of them sends
// to a real muxserve from the preface to the end of its first header block. It
// writes a file for each client; see README.md beside the files.
package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/testdata/clients/process"
	"github.com/muxserve/muxserve/testdata/clients/record"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// timeout bounds one client.
const timeout = 30 * time.Second

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("openings", flag.ContinueOnError)
	out := flags.String("out", "../../protocols/sniff/testdata/openings", "the directory of the files")
	only := flags.String("run", "", "the regular expression of the clients to record; all if empty")
	name := flags.String("name", "", "record one client under this name: the command in the arguments, in which ADDRESS stands for host:port")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("openings: %w", err)
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("openings: -run: %w", err)
	}
	all := clients()
	if *name != "" {
		all = []client{{*name, command(flags.Args()...)}}
	}
	dir, err := os.MkdirTemp("", "muxserve-openings-")
	if err != nil {
		return fmt.Errorf("openings: %w", err)
	}
	defer os.RemoveAll(dir)
	binary, err := process.Build(ctx, dir)
	if err != nil {
		return err
	}
	server, err := process.Start(ctx, process.Options{Binary: binary})
	if err != nil {
		return err
	}
	var errs []error
	if *name == "" {
		for _, d := range documentedClients() {
			if pattern.MatchString(d.name) {
				errs = append(errs, write(*out, d.name, d.opening()))
			}
		}
	}
	for _, c := range all {
		if !pattern.MatchString(c.name) {
			continue
		}
		opening, err := c.record(ctx, server.Addr)
		if err == nil {
			err = write(*out, c.name, opening)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("openings: %s: %w", c.name, err))
		}
	}
	return errors.Join(append(errs, server.Stop())...)
}

// write writes the file of a client.
func write(dir, name string, opening []byte) error {
	fmt.Printf("%s: %d bytes\n", name, len(opening))
	return os.WriteFile(filepath.Join(dir, name+".hex"), lines(opening), 0o644)
}

// A client makes one call or request to a server, in plaintext.
type client struct {
	name string
	call func(ctx context.Context, addr string) error
}

// record lets the client call through a recording proxy.
func (c client) record(ctx context.Context, server string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	proxy, err := record.Listen(server)
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, proxy.Addr())
	for _, counts := range proxy.Close() {
		if counts.Opening != nil {
			return counts.Opening, err
		}
	}
	return nil, errors.Join(errors.New("no HTTP/2 request was seen"), err)
}

// lines returns an opening in hexadecimal digits: the preface on the first line,
// then one frame a line.
func lines(opening []byte) []byte {
	var out bytes.Buffer
	rest := opening[len(http2.ClientPreface):]
	fmt.Fprintln(&out, hex.EncodeToString([]byte(http2.ClientPreface)))
	for len(rest) > 0 {
		n := 9 + int(rest[0])<<16 + int(rest[1])<<8 + int(rest[2]) // RFC 9113, section 4.1
		fmt.Fprintln(&out, hex.EncodeToString(rest[:n]))
		rest = rest[n:]
	}
	return out.Bytes()
}

// command is a client that is a program; ADDRESS stands for host:port.
func command(args ...string) func(context.Context, string) error {
	return func(ctx context.Context, addr string) error {
		if len(args) == 0 {
			return errors.New("no command")
		}
		var filled []string
		for _, arg := range args {
			filled = append(filled, strings.ReplaceAll(arg, "ADDRESS", addr))
		}
		cmd := exec.CommandContext(ctx, filled[0], filled[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", args[0], err, out)
		}
		return nil
	}
}
