package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// defaultCtlTimeout bounds a call. A reload reads certificates and opens sockets.
const defaultCtlTimeout = 30 * time.Second

// maxCtlAnswer bounds an answer in bytes. A connection takes some 400.
const maxCtlAnswer = 64 << 20

// ctlFlags are the flags of ctl besides those that say where the server is.
var ctlFlags = []cli.Flag{
	{Name: "json", Help: "print the answer of the admin listener as it is"},
	{Name: "timeout", Value: "TIME", Help: "how long the answer may take", Default: defaultCtlTimeout.String()},
	{Name: "protocol", Value: "NAME", Help: "with connections: those of one pool"},
	{Name: "peer", Value: "ADDR", Help: "with connections and close: those of an address, an address with a port, or a network"},
	{Name: "sort", Value: "ORDER", Choices: []string{"id", "age", "bytes"}, Help: "with connections: id, age (oldest first) or bytes (most first)"},
	{Name: "limit", Value: "N", Help: "with connections and closed: how many to list", Default: "100"},
	{Name: "patience", Value: "TIME", Help: "with close: how long what is under way may go on; 0s for not at all", Default: "1s"},
}

// verb is something that ctl does.
type verb struct {
	name string
	// usage has its arguments and flags, and count says how many arguments there are.
	usage string
	count int
	help  string
	// flags are those of ctlFlags that it takes besides json and timeout.
	flags  []string
	method string
	path   string
	// argument is the parameter that its argument is sent as; "id" stands in the path.
	argument string
	// choices are the possible arguments; nil for any.
	choices []string
	// show prints the answer for people.
	show func(w io.Writer, answer []byte) error
}

var verbs = []verb{
	{name: "status", help: "phase, health and pools", method: http.MethodGet, path: "/health", show: showStatus},
	{
		name: "connections", usage: "[--protocol NAME] [--peer ADDR] [--sort ORDER] [--limit N]", help: "the open connections",
		flags: []string{"protocol", "peer", "sort", "limit"}, method: http.MethodGet, path: "/connections", show: showConnections,
	},
	{
		name: "closed", usage: "[--limit N]", help: "the connections that have ended last, with reasons",
		flags: []string{"limit"}, method: http.MethodGet, path: "/closed", show: showClosed,
	},
	{name: "reload", help: "read the configuration and the certificates again", method: http.MethodPost, path: "/config/reload", show: showVersion},
	{
		name: "rollback", usage: "VERSION", count: 1, help: "return to an earlier configuration until the next reload",
		method: http.MethodPost, path: "/config/rollback", argument: "version", show: showVersion,
	},
	{name: "drain", help: "end the server, as SIGTERM does", method: http.MethodPost, path: "/drain", show: showText("the server drains")},
	{
		name: "ready", usage: "on|off", count: 1, help: "whether balancers are to choose this server; it serves on in any case",
		method: http.MethodPost, path: "/ready", argument: "state", choices: []string{"on", "off"}, show: showReady,
	},
	{
		name: "log", usage: "debug|info|warn|error", count: 1, help: "set the level of the log until the next reload",
		method: http.MethodPost, path: "/log", argument: "level", choices: []string{"debug", "info", "warn", "error"}, show: showLevel,
	},
	{
		name: "close", usage: "ID | --peer ADDR  [--patience TIME]", help: "tell clients to leave, and cut them after a second",
		flags: []string{"peer", "patience"}, method: http.MethodDelete, path: "/connections", argument: "id", show: showDisconnected,
	},
}

func verbNames() []string {
	names := make([]string, len(verbs))
	for i, v := range verbs {
		names[i] = v.name
	}
	return names
}

// form returns the verb as a user writes it.
func (v verb) form() string { return strings.TrimSpace("muxserve ctl " + v.name + " " + v.usage) }

// wrong is an error of the command line, with the right form.
func (v verb) wrong(format string, args ...any) error {
	return fmt.Errorf("%s; the form is: %s", fmt.Sprintf(format, args...), v.form())
}

func allCtlFlags() []cli.Flag { return append(settings.AdminFlags(), ctlFlags...) }

// ctl asks a running server for something. The exit code is 2 where the question is wrong,
// and 1 where the server does not do it.
func ctl(ctx context.Context, args []string, env environment) int {
	parsed, err := cli.Parse(allCtlFlags(), args)
	if err == nil && parsed.Help {
		printCtlHelp(env.stdout)
		return exitOK
	}
	var v verb
	if err == nil {
		v, err = verbOf(parsed)
	}
	if err != nil {
		return usageError(env, err)
	}
	access, err := settings.LoadAdmin(parsed, env.getenv)
	if err != nil {
		return usageError(env, err)
	}
	timeout, err := timeoutOf(parsed, defaultCtlTimeout)
	if err != nil {
		return usageError(env, err)
	}
	client, err := newCtlClient(access)
	if err != nil {
		return usageError(env, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	status, answer, err := client.call(ctx, v.method, v.target(parsed))
	switch {
	case err != nil:
		return failure(env, fmt.Errorf("no answer from the admin listener at %s: %w", access.Address, err))
	case status == http.StatusBadRequest:
		return usageError(env, v.wrong("%s", faultsIn(answer)))
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return failure(env, fmt.Errorf("%s\nmuxserve: ctl takes the token from --admin-token-file, --admin-token, their variables or the file of --config", faultsIn(answer)))
	case status == http.StatusServiceUnavailable && v.path == "/health": // It says so in words.
	case status < http.StatusOK || status >= http.StatusMultipleChoices:
		return failure(env, errors.New(faultsIn(answer)))
	}
	if parsed.On("json") {
		_, err = env.stdout.Write(answer)
	} else {
		err = v.show(env.stdout, answer)
	}
	if err != nil {
		return failure(env, err)
	}
	return exitOK
}

// verbOf returns the verb of a command line, whose arguments and flags fit.
func verbOf(parsed cli.Parsed) (verb, error) {
	if len(parsed.Args) == 0 {
		return verb{}, fmt.Errorf("ctl needs one of %s; see muxserve ctl --help", strings.Join(verbNames(), ", "))
	}
	name, args := parsed.Args[0], parsed.Args[1:]
	at := slices.IndexFunc(verbs, func(v verb) bool { return v.name == name })
	if at < 0 {
		meant := cmp.Or(cli.Suggest(name, verbNames()), "it is one of "+strings.Join(verbNames(), ", "))
		return verb{}, fmt.Errorf("ctl does not know %q; %s", name, meant)
	}
	v := verbs[at]
	if v.name == "close" {
		v.count = 1
		if len(parsed.Values["peer"]) > 0 {
			v.count = 0
		}
	}
	if len(args) != v.count {
		return v, v.wrong("%s takes %d arguments, not %d", name, v.count, len(args))
	}
	if v.choices != nil && !slices.Contains(v.choices, args[0]) {
		return v, v.wrong("%q is not one of %s", args[0], strings.Join(v.choices, ", "))
	}
	for _, f := range ctlFlags {
		common := f.Name == "json" || f.Name == "timeout"
		if len(parsed.Values[f.Name]) > 0 && !common && !slices.Contains(v.flags, f.Name) {
			return v, v.wrong("--%s has no effect with %s", f.Name, name)
		}
	}
	return v, nil
}

// target returns the path and the parameters of a call.
func (v verb) target(parsed cli.Parsed) string {
	parameters, path := make(url.Values), v.path
	for _, name := range v.flags {
		if value, given := parsed.Last(name); given {
			parameters.Set(name, value)
		}
	}
	switch {
	case v.argument == "id" && len(parsed.Args) > 1:
		path += "/" + url.PathEscape(parsed.Args[1])
	case v.argument != "" && len(parsed.Args) > 1:
		parameters.Set(v.argument, parsed.Args[1])
	}
	if len(parameters) > 0 {
		path += "?" + parameters.Encode()
	}
	return path
}

// ctlClient is a client of one admin listener.
type ctlClient struct {
	target

	token string
}

// newCtlClient returns a client for the listener of a configuration. It asks at the address that
// the listener has bound, and none beside it: another user may listen there, who would get the
// token. One that listens on all addresses is reached by the loopback interface.
func newCtlClient(access settings.Admin) (*ctlClient, error) {
	address := access.Address
	switch {
	case address == settings.Off:
		return nil, errors.New("admin.address is off: this server has no admin listener to ask")
	case strings.HasPrefix(address, settings.InheritedPrefix):
		return nil, fmt.Errorf("admin.address is %s, a socket of the service manager; say by --admin where that listens", address)
	}
	c := &ctlClient{token: access.Token}
	var err error
	if c.target, err = targetOf(address); err != nil {
		return nil, err
	}
	if c.network == "tcp" {
		c.address, err = boundTarget(address)
	}
	return c, err
}

// boundTarget returns the address by which ctl reaches a listener. Of the addresses of a
// name, net.Listen binds the one that net.ResolveTCPAddr returns.
func boundTarget(address string) (string, error) {
	bound, err := net.ResolveTCPAddr("tcp", address)
	switch {
	case err != nil:
		return "", err
	case len(bound.IP) == 0, bound.IP.Equal(net.IPv4zero): // Without a host it is both of them.
		bound.IP = net.IPv4(127, 0, 0, 1)
	case bound.IP.IsUnspecified():
		bound.IP = net.IPv6loopback
	}
	return bound.String(), nil
}

// call makes a request.
func (c *ctlClient) call(ctx context.Context, method, target string) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.authority()+target, nil) //nolint:gosec // The user names the server.
	if err != nil {
		return 0, nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: c.dial, DisableKeepAlives: true}}
	resp, err := client.Do(req) //nolint:gosec // As above.
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxCtlAnswer))
	return resp.StatusCode, answer, err
}

// faultsIn returns what an answer says that is an error: JSON, or a line of text.
func faultsIn(answer []byte) string {
	var said struct {
		Error  string   `json:"error"`
		Faults []string `json:"faults"`
	}
	if json.Unmarshal(answer, &said) != nil || said.Error == "" {
		return strings.TrimPrefix(strings.TrimSpace(string(answer)), "muxserve: ")
	}
	return strings.Join(append([]string{said.Error}, said.Faults...), "\n")
}

// printCtlHelp explains ctl.
func printCtlHelp(w io.Writer) {
	fmt.Fprint(w, "muxserve ctl [flags] VERB asks a running server, or has it do something.\n\n")
	for _, v := range verbs {
		fmt.Fprintf(w, "  %s\n        %s\n", v.form(), v.help)
	}
	fmt.Fprint(w, "\nIt finds the admin listener and its token as serve does: by flags, variables and the file.\n\n")
	_ = cli.WriteFlags(w, allCtlFlags()) // As in help.go.
}
