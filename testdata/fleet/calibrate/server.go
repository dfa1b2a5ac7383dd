package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// server is a muxserve that keeps its ports over its restarts.
type server struct {
	name           string
	options        process.Options
	service, admin *process.Port

	mu       sync.Mutex
	running  *process.Process // guarded by mu
	accepted int              // guarded by mu; by the processes that have ended
	current  int              // guarded by mu; by running, when it was asked last
}

// newServer returns a muxserve with these further flags that does not run yet.
func newServer(binary, name string, flags ...string) (*server, error) {
	service, err := process.Reserve()
	if err != nil {
		return nil, err
	}
	admin, err := process.Reserve()
	if err != nil {
		service.Release()
		return nil, err
	}
	args := append([]string{"--listen=" + service.String(), "--admin=" + admin.String()}, flags...)
	return &server{name: name, options: process.Options{Binary: binary, Bare: true, Args: args}, service: service, admin: admin}, nil
}

// start starts a process and returns when it serves.
func (s *server) start(ctx context.Context) error {
	p, err := process.Start(ctx, s.options)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted, s.current = s.accepted+s.current, 0
	s.running = p
	return nil
}

// drain sends SIGTERM and waits for the exit code 0.
func (s *server) drain(ctx context.Context) error {
	code, err := s.running.Drain(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("calibrate: %s: exit code %d\n%s", s.name, code, s.running.Log())
	}
	return err
}

// close ends the process, if one runs, and gives the ports back.
func (s *server) close() error {
	defer s.service.Release()
	defer s.admin.Release()
	if s.running == nil || !s.running.Alive() {
		return nil
	}
	return s.running.Stop()
}

// total returns how many connections the server has accepted, over its restarts. A process
// that drains accepts none while its clients are told, so that the last look at it, before
// it ends, has them all.
func (s *server) total(ctx context.Context) int {
	s.mu.Lock()
	p := s.running
	s.mu.Unlock()
	n, err := accepted(ctx, s.admin.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && p == s.running { // It may have been restarted meanwhile.
		s.current = n
	}
	return s.accepted + s.current
}

// acceptedMetric counts the connections of the service port: each comes into this pool
// first.
const acceptedMetric = `mux_connections_accepted_total{protocol="sniffing"} `

// accepted asks an admin listener how many connections its process has accepted.
func accepted(ctx context.Context, admin string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := probe.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), acceptedMetric); found {
			return strconv.Atoi(value)
		}
	}
	return 0, fmt.Errorf("calibrate: no %s in the metrics", acceptedMetric)
}

// probe asks the admin listeners, each time on a new connection.
var probe = &http.Transport{DisableKeepAlives: true}
