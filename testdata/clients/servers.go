package main

import (
	"context"
	"errors"

	"github.com/muxserve/muxserve/testdata/clients/process"
	"github.com/muxserve/muxserve/testdata/clients/selfsigned"
)

// serverName names one of the servers that are asked.
type serverName string

const (
	plaintext       serverName = "plaintext"
	overTLS         serverName = "TLS"
	sharedTransport serverName = "plaintext, shared" // Its gRPC runs on net/http's HTTP/2.
)

// servers are the running muxserves.
type servers struct {
	running map[serverName]*process.Process
	ca      string
}

// startServers builds muxserve into dir and starts it in every form.
func startServers(ctx context.Context, dir string) (_ *servers, err error) {
	binary, err := process.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	cert, key, err := selfsigned.Write(dir)
	if err != nil {
		return nil, err
	}
	s := &servers{running: make(map[serverName]*process.Process), ca: cert}
	for name, args := range map[serverName][]string{
		plaintext:       nil,
		overTLS:         {"--tls-cert=" + cert, "--tls-key=" + key},
		sharedTransport: {"--grpc-transport=shared"},
	} {
		p, err := process.Start(ctx, process.Options{Binary: binary, Args: args})
		if err != nil {
			return nil, errors.Join(err, s.stop())
		}
		s.running[name] = p
	}
	return s, nil
}

// target returns how a client gets to the server.
func (s *servers) target(name serverName) target {
	t := target{addr: s.running[name].Addr, transport: "native"}
	switch name {
	case overTLS:
		t.ca = s.ca
	case sharedTransport:
		t.transport = "shared"
	case plaintext:
	}
	return t
}

// stop ends all servers; it does nothing the second time. Its error says which
// of them had not lived until then.
func (s *servers) stop() error {
	var err error
	for name, p := range s.running {
		err = errors.Join(err, p.Stop())
		delete(s.running, name)
	}
	return err
}
