package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// haproxyConfig is HAProxy in tcp mode, which looks into the first bytes and chooses a server. It cannot tell gRPC from
// other HTTP/2, since gRPC clients wait for the server's SETTINGS before they send a header. So there are two front
// ends, which differ in where they send HTTP/2. Over TLS it sees the protocols that the client offers, which do
// not tell HTTP/1.1 from WebSockets.
const haproxyConfig = `global
  nbthread %d
  maxconn %d
defaults
  mode tcp
  timeout connect 5s
  timeout client 5m
  timeout server 5m
%s
backend http1
  server s %s
backend websocket
  server s %s
backend http2
  server s %s
backend grpc
  server s %s
backend http1-tls
  server s %s
backend http2-tls
  server s %s
backend grpc-tls
  server s %s
`

// haproxyFrontEnd is one of the front ends, on a socket that is handed to HAProxy.
const haproxyFrontEnd = `frontend front_%[1]s
  bind fd@%[2]d
  tcp-request inspect-delay 3s
  tcp-request content accept if { req.ssl_hello_type 1 }
  tcp-request content accept if { req.payload(0,3) -m str PRI }
  tcp-request content accept if HTTP
  use_backend %[1]s-tls if { req.ssl_alpn h2 }
  use_backend http1-tls if { req.ssl_hello_type 1 }
  use_backend %[1]s if { req.payload(0,3) -m str PRI }
  use_backend websocket if { req.payload(0,0) -m sub -i "upgrade: websocket" }
  default_backend http1
`

// firstInherited is the number of the first descriptor that a child inherits besides the standard ones.
const firstInherited = 3

// startHAProxy serves each protocol on a port of its own, and runs HAProxy in front of them.
func startHAProxy(o serverOptions) (*running, error) {
	r, err := startDirect(o)
	if err != nil {
		return nil, err
	}
	behind := r.addresses
	r.addresses = make(map[string]string)
	var frontEnds strings.Builder
	var sockets []*os.File
	defer func() {
		for _, socket := range sockets {
			_ = socket.Close()
		}
	}()
	for i, ports := range [][]string{{portHTTP2, portHTTP1, portWebSocket}, {portGRPC}} {
		socket, address, err := openSocket()
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, socket)
		fmt.Fprintf(&frontEnds, haproxyFrontEnd, ports[0], firstInherited+i)
		for _, port := range ports {
			r.addresses[port], r.addresses[overTLS(port)] = address, address
		}
	}
	file := filepath.Join(o.dir, "haproxy.cfg")
	config := fmt.Sprintf(haproxyConfig, runtime.GOMAXPROCS(0), haproxyConnections(), frontEnds.String(),
		behind[portHTTP1], behind[portWebSocket], behind[portHTTP2], behind[portGRPC],
		behind[overTLS(portHTTP1)], behind[overTLS(portHTTP2)], behind[overTLS(portGRPC)])
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), formHAProxy, "-q", "-db", "-f", file) //nolint:gosec // The file is ours.
	cmd.ExtraFiles = sockets
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("bench: haproxy: %w", err)
	}
	r.others = []int{cmd.Process.Pid}
	r.closers = append(r.closers, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // It was killed.
	})
	return r, nil
}

// openSocket returns a listening socket as a file, and its address. Clients may connect before anybody accepts.
func openSocket() (*os.File, string, error) {
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	defer l.Close()
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, "", errors.New("bench: not a TCP listener")
	}
	file, err := tcp.File()
	if err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	return file, l.Addr().String(), nil
}

// spareFiles are the descriptors that HAProxy needs besides those of connections, and more.
const spareFiles = 200

// haproxyConnections is how many connections HAProxy can have, with a descriptor on each side.
func haproxyConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return (int(min(limit.Cur, math.MaxInt32)) - spareFiles) / 2
}
