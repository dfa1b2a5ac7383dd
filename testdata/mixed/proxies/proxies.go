// Package proxies runs real HTTP/2 proxies, each as a process between clients
// and one backend.
package proxies

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// A Backend is the server that a proxy speaks HTTP/2 to.
type Backend struct {
	Addr string // host:port
	// CA is the file of the certificate to trust; empty in plaintext. The
	// certificate's name is localhost.
	CA string
}

// A Kind is a program and the way it is configured.
type Kind struct {
	name string
	// config is the configuration file; FRONT, BACKEND, CA and DIR are replaced.
	config string
	// plaintext and tls are the lines that replace CONNECTION.
	plaintext, tls string
	command        func(dir, file string) []string
}

// String returns the kind's name.
func (k Kind) String() string { return k.name }

func haproxy(name, reuse string) Kind {
	return Kind{
		name: name,
		config: `global
  maxconn 200
  nbthread 1
defaults
  mode http
  timeout connect 10s
  timeout client 120s
  timeout server 120s
frontend f
  bind FRONT
  default_backend b
backend b
  ` + reuse + `
  server s BACKEND CONNECTION
`,
		plaintext: "proto h2",
		tls:       "ssl verify required ca-file CA alpn h2 sni str(localhost)",
		command:   func(_, file string) []string { return []string{"haproxy", "-db", "-f", file} },
	}
}

var (
	// HAProxy speaks HTTP/2 to the backend, nothing else set.
	HAProxy = haproxy("HAProxy", "")
	// HAProxyReuse is the same with "http-reuse always".
	HAProxyReuse = haproxy("HAProxy, http-reuse always", "http-reuse always")
	// Nginx is "grpc_pass" with one kept connection.
	Nginx = Kind{
		name: "nginx grpc_pass",
		config: `daemon off;
master_process off;
pid DIR/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi;
  scgi_temp_path DIR/scgi;
  keepalive_requests 100000;
  upstream m { server BACKEND; keepalive 1; }
  server {
    listen FRONT http2;
    location / { CONNECTION }
  }
}
`,
		plaintext: "grpc_pass grpc://m;",
		tls: "grpc_pass grpcs://m; grpc_ssl_verify on; grpc_ssl_trusted_certificate CA; " +
			"grpc_ssl_name localhost; grpc_ssl_server_name on;",
		command: func(dir, file string) []string {
			return []string{"nginx", "-p", dir, "-e", "stderr", "-c", file}
		},
	}
	// Nghttpx is nghttp2's own proxy.
	Nghttpx = Kind{
		name: "nghttpx",
		config: `frontend=FRONT;no-tls
backend=BACKEND;;CONNECTION
workers=1
`,
		plaintext: "proto=h2",
		tls:       "proto=h2;tls;sni=localhost\ncacert=CA",
		command:   func(_, file string) []string { return []string{"nghttpx", "--conf=" + file} },
	}
)

// A Proxy is one running proxy.
type Proxy struct {
	Addr string // host:port for the clients, in plaintext

	port  *process.Port
	cmd   *exec.Cmd
	log   string        // A file.
	ended chan struct{} // closed when the process has ended
}

// patience bounds the wait for the start.
const patience = 30 * time.Second

// Start runs a proxy before the backend and returns when it accepts connections.
// The caller must call Stop.
func Start(ctx context.Context, k Kind, b Backend) (_ *Proxy, err error) {
	dir, err := os.MkdirTemp("", "muxserve-proxy-")
	if err != nil {
		return nil, fmt.Errorf("proxies: %w", err)
	}
	p := &Proxy{log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	if p.port, err = process.Reserve(); err != nil {
		return nil, err
	}
	p.Addr = p.port.String()
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("proxies: %w", err)
	}
	defer log.Close()
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(k.configuration(dir, p.port, b)), 0o600); err != nil {
		return nil, fmt.Errorf("proxies: %w", err)
	}
	args := k.command(dir, file)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("proxies: %w", err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // Stop ends it by a signal.
	}()
	if err := p.wait(ctx); err != nil {
		err = fmt.Errorf("proxies: %s: %w\n%s", k, err, p.Log())
		p.Stop()
		return nil, err
	}
	return p, nil
}

func (k Kind) configuration(dir string, front *process.Port, b Backend) string {
	connection, frontAddr, backendAddr := k.plaintext, front.String(), b.Addr
	if b.CA != "" {
		connection = k.tls
	}
	if k.name == Nghttpx.name { // Its own form of an address.
		frontAddr, backendAddr = strings.Replace(frontAddr, ":", ",", 1), strings.Replace(backendAddr, ":", ",", 1)
	}
	return strings.NewReplacer("FRONT", frontAddr, "BACKEND", backendAddr, "DIR", dir).Replace(
		strings.NewReplacer("CONNECTION", strings.ReplaceAll(connection, "CA", b.CA)).Replace(k.config))
}

// wait waits until the proxy listens. It looks for the listener without
// connecting, since a connection may open one to the backend.
func (p *Proxy) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		listens, err := listening(p.port.Number)
		if listens || err != nil {
			return err
		}
		select {
		case <-p.ended:
			return fmt.Errorf("ended: %v", p.cmd.ProcessState)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// listening reports whether a process listens on a port of 127.0.0.1; see proc(5).
func listening(port int) (bool, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return false, err
	}
	const listen = "0A"
	want := fmt.Sprintf("0100007F:%04X", port)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == want && f[3] == listen {
			return true, nil
		}
	}
	return false, nil
}

// Log returns what the proxy has printed.
func (p *Proxy) Log() string {
	log, _ := os.ReadFile(p.log)
	return string(log)
}

// Stop ends the proxy and removes its files.
func (p *Proxy) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	p.port.Release()
	_ = os.RemoveAll(filepath.Dir(p.log))
}
