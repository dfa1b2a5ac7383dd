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
	"strings"
	"syscall"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// haproxy is a running HAProxy.
type haproxy struct {
	bind   *process.Port
	socket string
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{} // closed when the process has ended
}

// startHAProxy runs HAProxy in front of the backends, which must run, and returns
// when all of them are up for it.
func startHAProxy(ctx context.Context, o *options, backends []*backend) (_ *haproxy, err error) {
	h := &haproxy{socket: filepath.Join(o.dir, "haproxy.sock"), ended: make(chan struct{})}
	if h.bind, err = process.Reserve(); err != nil {
		return nil, err
	}
	config, err := recipe(o.recipe, h.socket, h.bind, backends, !o.asIs)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("restarts: %w", err)
	}
	if h.log, err = os.Create(filepath.Join(o.dir, "haproxy.log")); err != nil {
		return nil, fmt.Errorf("restarts: %w", err)
	}
	h.cmd = exec.Command("haproxy", "-db", "-f", file) //nolint:gosec,noctx // The file is ours, and close ends the process.
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("restarts: %w", err)
	}
	go func() {
		defer close(h.ended)
		_ = h.cmd.Wait() // Nobody asks how it went; the clients see it.
	}()
	for i := range backends {
		if err := h.waitUp(ctx, i); err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

func backendName(i int) string { return fmt.Sprintf("muxserve%d", i) }

// waitUp waits until HAProxy has had a good check of backend i.
func (h *haproxy) waitUp(ctx context.Context, i int) error {
	return eventually(ctx, backendName(i)+" is up for HAProxy", func() (bool, error) {
		select {
		case <-h.ended:
			log, _ := os.ReadFile(h.log.Name())
			return false, fmt.Errorf("HAProxy ended: %s\n%s", h.cmd.ProcessState, log)
		default:
		}
		stat, err := h.stat(ctx, backendName(i))
		if err != nil {
			return false, nil //nolint:nilerr // The socket is not there yet, or busy.
		}
		// Before the first check a server is UP too, without a result of a check.
		return stat["status"] == "UP" && strings.HasPrefix(stat["check_status"], "L7OK"), nil
	})
}

// stat returns what "show stat" says of a server, by the names of the columns.
func (h *haproxy) stat(ctx context.Context, server string) (map[string]string, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", h.socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "show stat\n"); err != nil {
		return nil, err
	}
	r := csv.NewReader(c)
	r.FieldsPerRecord = -1 // The last line is empty.
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	for _, row := range rows[1:] {
		if len(row) < len(rows[0])-1 || row[1] != server {
			continue
		}
		stat := make(map[string]string)
		for i, value := range row {
			stat[rows[0][i]] = value
		}
		return stat, nil
	}
	return nil, fmt.Errorf("restarts: HAProxy knows no server %s", server)
}

// close ends HAProxy.
func (h *haproxy) close() {
	if h.cmd != nil && h.cmd.Process != nil {
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		<-h.ended
	}
	if h.log != nil {
		_ = h.log.Close()
	}
	h.bind.Release()
}
