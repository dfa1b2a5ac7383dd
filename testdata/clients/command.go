package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// command runs a program to its end and returns what it printed.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", name, err, tail(stderr.String()))
	}
	return stdout.String(), nil
}

// tail returns the end of an output, where programs say what went wrong.
func tail(s string) string {
	const longest = 1000
	return s[max(0, len(s)-longest):]
}

// atOnce is how many command-line clients run at the same time, each with a connection.
const atOnce = 8

// perConnection runs a client once for each connection, and adds up.
func perConnection(l load, one func() (answered int, err error)) (int, error) {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex // guards answered and errs
		answered int
		errs     []error
	)
	slots := make(chan struct{}, atOnce)
	for range l.connections {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			n, err := one()
			mu.Lock()
			defer mu.Unlock()
			answered += n
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return answered, errors.Join(errs...)
}

// curlReuse spreads a load over curl's connections. In plaintext HTTP/2 it makes one
// request on each: curl 7.88, which is Debian 12's, fails with every server when it
// takes such a connection for a second one (curl/curl#10634).
func curlReuse(option string, l load) load {
	if option == "--http2-prior-knowledge" {
		return load{connections: l.requests(), each: 1}
	}
	return l
}

// curl is curl with that option, which says what to speak; version is what the
// answers then have to be in.
func curl(option, version string) client {
	return func(ctx context.Context, t target) (int, error) {
		t.load = curlReuse(option, t.load)
		args := []string{
			"--silent", "--show-error", option, "--noproxy", "*", "--output", "/dev/null",
			"--write-out", `%{http_code} %{http_version}\n`,
		}
		if t.ca != "" {
			args = append(args, "--cacert", t.ca)
		}
		args = append(args, fmt.Sprintf("%s?n=[1-%d]", t.url(), t.load.each))
		return perConnection(t.load, func() (int, error) {
			out, err := command(ctx, "curl", args...)
			return strings.Count(out, "200 "+version+"\n"), err
		})
	}
}

// nghttp is nghttp, all requests of a connection at once.
func nghttp(ctx context.Context, t target) (int, error) {
	return perConnection(t.load, func() (int, error) {
		out, err := command(ctx, "nghttp", "-nvy", "-m", strconv.Itoa(t.load.each), t.url())
		return strings.Count(out, ":status: 200"), err
	})
}

var h2loadSucceeded = regexp.MustCompile(`status codes: (\d+) 2xx`)

// h2load is h2load with further arguments.
func h2load(args ...string) client {
	return func(ctx context.Context, t target) (int, error) {
		args := append([]string{"-n", strconv.Itoa(t.load.requests()), "-c", strconv.Itoa(t.load.connections)}, args...)
		out, err := command(ctx, "h2load", append(args, t.url())...)
		if err != nil {
			return 0, err
		}
		match := h2loadSucceeded.FindStringSubmatch(out)
		if match == nil {
			return 0, fmt.Errorf("h2load: no figures in\n%s", tail(out))
		}
		return strconv.Atoi(match[1])
	}
}

// node is a script of the directory node; form is for the script to understand.
func node(script, form string) client {
	return func(ctx context.Context, t target) (int, error) {
		return t.script(ctx, form, "node", "node/"+script)
	}
}

// python is a script of the directory python. It needs the interpreter that Debian's
// packages belong to, whichever comes first in PATH.
func python(script string) client {
	return func(ctx context.Context, t target) (int, error) {
		return t.script(ctx, "", "/usr/bin/python3", "python/"+script)
	}
}

// script runs a client that is told what to do as JSON in its last argument and
// says as JSON what came of it.
func (t target) script(ctx context.Context, form string, name string, args ...string) (int, error) {
	task, err := json.Marshal(map[string]any{
		"address":     t.addr,
		"ca":          t.ca,
		"url":         t.url(),
		"connections": t.load.connections,
		"each":        t.load.each,
		"pause_ms":    t.pause.Milliseconds(),
		"transport":   t.transport,
		"form":        form,
	})
	if err != nil {
		return 0, err
	}
	out, err := command(ctx, name, append(args, string(task))...)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Answered int      `json:"answered"`
		Errors   []string `json:"errors"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return 0, fmt.Errorf("%s: %w in %q", name, err, tail(out))
	}
	if len(answer.Errors) > 0 {
		err = errors.New(strings.Join(answer.Errors, "\n"))
	}
	return answer.Answered, err
}
