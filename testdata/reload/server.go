package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// file is what stands in the configuration file of a run.
type file struct {
	addresses []string
	tls       string // the TLS section of every listener; empty for none
	more      string // further sections
}

// spread is the time over which clients are told to leave what was replaced.
const spread = 100 * time.Millisecond

// text returns the file as YAML. The admin listener's port is the system's choice and stays.
func (f file) text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "admin: {address: \"127.0.0.1:0\"}\nlog: {format: json}\ndrain: {delay: 0s, spread: %v}\nlisteners:\n", spread)
	for _, address := range f.addresses {
		fmt.Fprintf(&out, "  - address: %q\n", address)
		if f.tls != "" {
			fmt.Fprintf(&out, "    tls: %s\n", f.tls)
		}
	}
	out.WriteString(f.more)
	return out.String()
}

// server is a muxserve with a configuration file that changes. Its change method is used by one goroutine.
type server struct {
	*process.Process

	path string
	// published are the addresses that clients know, the one to try first at the front.
	published atomic.Pointer[[]string]
	changes   int
	longest   time.Duration // of the changes
	slowest   time.Duration // of the addresses that were left, to refuse
}

// startServer runs muxserve with a file in dir.
func startServer(ctx context.Context, o *options, dir string, f file) (*server, error) {
	s := &server{path: filepath.Join(dir, "muxserve.yaml")}
	if err := s.write(f); err != nil {
		return nil, err
	}
	s.publish(f.addresses...)
	var err error
	s.Process, err = process.Start(ctx, process.Options{Binary: o.binary, Bare: true, Args: []string{"--config=" + s.path}})
	return s, err
}

func (s *server) publish(addresses ...string) { s.published.Store(&addresses) }

// known returns where clients connect to at the moment.
func (s *server) known() []string { return *s.published.Load() }

// write replaces the file at once, so that nobody reads half of it.
func (s *server) write(f file) error {
	if err := os.WriteFile(s.path+".new", []byte(f.text()), 0o600); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

// change has another file put in force, and fails if that is not what comes of it.
func (s *server) change(ctx context.Context, f file) error {
	if err := s.write(f); err != nil {
		return err
	}
	started := time.Now()
	body, err := s.ask(ctx, http.MethodPost, "/config/reload")
	if err != nil {
		return err
	}
	s.longest = max(s.longest, time.Since(started))
	var version struct {
		Outcome string `json:"outcome"`
	}
	if err := json.Unmarshal(body, &version); err != nil {
		return fmt.Errorf("reload: %w: %s", err, body)
	}
	if version.Outcome != "applied" {
		return fmt.Errorf("reload: change %d was not applied: %s", s.changes+1, body)
	}
	s.changes++
	return nil
}

// ask asks the admin listener.
func (s *server) ask(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Admin+path, nil)
	if err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if err != nil {
		return nil, fmt.Errorf("reload: %s: %w", path, err)
	}
	return body, nil
}

// stop ends the process, and returns an error if it has logged one.
func (s *server) stop() error {
	err := s.Stop()
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, `"level":"ERROR"`) {
			err = errors.Join(err, fmt.Errorf("reload: muxserve has logged: %s", strings.TrimSpace(line)))
		}
	}
	return err
}

// wait lets some time pass.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
