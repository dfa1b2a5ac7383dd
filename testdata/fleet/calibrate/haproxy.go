package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
	"github.com/muxserve/muxserve/testdata/fleet/sim"
)

// recipeText returns muxserve's own configuration of HAProxy, from the module around.
func recipeText() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/muxserve/muxserve").Output() //nolint:noctx // It takes no time.
	if err != nil {
		return "", fmt.Errorf("calibrate: finding the recipe: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "cmd", "muxserve", "deploy", "haproxy.cfg"))
	if err != nil {
		return "", fmt.Errorf("calibrate: %w", err)
	}
	return string(text), nil
}

// maxConnections takes the place of the recipe's, which needs more descriptors.
const maxConnections = 4000

// haproxy is a running HAProxy.
type haproxy struct {
	bind   *process.Port
	socket string
	cmd    *exec.Cmd
	log    strings.Builder // to be read when ended is closed
	ended  chan struct{}
}

// startHAProxy runs HAProxy in front of the servers, which must run.
func startHAProxy(ctx context.Context, dir string, balancer sim.Balancer, servers []*server) (*haproxy, error) {
	text, err := recipeText()
	if err != nil {
		return nil, err
	}
	bind, err := process.Reserve()
	if err != nil {
		return nil, err
	}
	h := &haproxy{bind: bind, socket: filepath.Join(dir, "haproxy.sock"), ended: make(chan struct{})}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(h.configure(text, balancer, servers)), 0o600); err != nil {
		bind.Release()
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	h.cmd = exec.Command("haproxy", "-db", "-f", file) //nolint:gosec,noctx // The file is ours, and close ends the process.
	h.cmd.Stdout, h.cmd.Stderr = &h.log, &h.log
	if err := h.cmd.Start(); err != nil {
		bind.Release()
		return nil, fmt.Errorf("calibrate: %w", err)
	}
	go func() {
		defer close(h.ended)
		_ = h.cmd.Wait()
	}()
	for _, s := range servers {
		if err := h.waitUp(ctx, s); err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

// recipeChecks are the recipe's health checks.
var recipeChecks = regexp.MustCompile(`check inter \S+ fall \d+ rise \d+`)

// configure returns the recipe with the addresses of this run, and with the checks and
// retries of the balancer.
func (h *haproxy) configure(text string, b sim.Balancer, servers []*server) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		switch directive, _, _ := strings.Cut(strings.TrimSpace(line), " "); directive {
		case "global":
			line += fmt.Sprintf("    stats socket %s mode 600\n", h.socket)
		case "maxconn":
			line = fmt.Sprintf("    maxconn %d\n", maxConnections)
		case "retries":
			line = fmt.Sprintf("    retries %d\n", b.Retries)
		case "bind":
			line = fmt.Sprintf("    bind %s\n", h.bind)
		case "default-server":
			line = recipeChecks.ReplaceAllString(line, fmt.Sprintf("check inter %dms fall %d rise %d", b.Interval.Milliseconds(), b.Fall, b.Rise))
		case "server":
			line = ""
		}
		out.WriteString(line)
	}
	for _, s := range servers { // The backend is the last section.
		fmt.Fprintf(&out, "    server %s %s port %d\n", s.name, s.service, s.admin.Number)
	}
	return out.String()
}

// waitUp waits until HAProxy has had a good check of a server.
func (h *haproxy) waitUp(ctx context.Context, s *server) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// Before the first check a server is UP too, without a result of a check.
		if state, check, err := h.state(ctx, s.name); err == nil && state == "UP" && strings.HasPrefix(check, "L7OK") {
			return nil
		}
		select {
		case <-tick.C:
		case <-h.ended:
			return fmt.Errorf("calibrate: HAProxy ended: %s\n%s", h.cmd.ProcessState, &h.log)
		case <-ctx.Done():
			return fmt.Errorf("calibrate: %s is not up for HAProxy: %w", s.name, context.Cause(ctx))
		}
	}
}

// state returns the columns status and check_status of a server in HAProxy's statistics.
func (h *haproxy) state(ctx context.Context, server string) (status, check string, err error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", h.socket)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "show stat\n"); err != nil {
		return "", "", err
	}
	r := csv.NewReader(c)
	r.FieldsPerRecord = -1 // The last line is empty.
	rows, err := r.ReadAll()
	if err != nil {
		return "", "", err
	}
	for _, row := range rows[1:] {
		if len(row) < len(rows[0])-1 || row[1] != server {
			continue
		}
		for i, value := range row {
			switch rows[0][i] {
			case "status":
				status = value
			case "check_status":
				check = value
			}
		}
		return status, check, nil
	}
	return "", "", fmt.Errorf("calibrate: HAProxy knows no server %s", server)
}

// close ends HAProxy.
func (h *haproxy) close() {
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	<-h.ended
	h.bind.Release()
}
