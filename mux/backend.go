package mux

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/muxserve/muxserve/mux/internal/sub"
	"github.com/muxserve/muxserve/protocols"
)

// backend is one generation of the protocols' servers. What net/http and grpc-go
// fix when a server is made is changed by making another backend: new connections go
// to that one, and the old one lives as long as its connections.
type backend struct {
	config   *Config // what it was made from
	settings []byte  // the SETTINGS with which its HTTP/2 servers begin
	http1    *http.Server
	http2    *http.Server
	h2c      *protocols.H2CUpgrades // nil: no upgrades to HTTP/2
	grpc     *protocols.GRPCServers
	// refusals is where HTTP/2 connections go that a limit keeps out.
	refusals *sub.Listener
	refuser  *http.Server
}

// newBackend makes servers that are ready for connections, but serve none yet.
func (s *Server) newBackend(c *Config) (*backend, error) {
	b := &backend{config: c}
	var err error
	if b.settings, err = protocols.ServerSettings(c.HTTP2); err != nil {
		return nil, fmt.Errorf("mux: %w", err)
	}
	hooks := protocols.HTTPHooks{
		Handler:     http.HandlerFunc(s.serveHTTP),
		ConnContext: connContext,
		ConnState:   trackState,
		Logger:      s.logger,
	}
	b.http2 = protocols.NewHTTP2Server(c.HTTP2, hooks)
	b.refuser = protocols.NewRefusingHTTP2Server(c.HTTP2, hooks, connAge)
	b.refusals = sub.New(listenAddr("refusals"), maxRefusals)
	b.http1 = protocols.NewHTTP1Server(c.HTTP1, hooks)
	if c.HTTP2.UpgradeH2C {
		if b.h2c, err = protocols.NewH2CUpgrades(c.HTTP2, hooks, h2cUpgraded); err != nil {
			return nil, fmt.Errorf("mux: %w", err)
		}
	}
	b.grpc = protocols.NewGRPCServers(c.GRPC, c.HTTP2, s.registerGRPC,
		slices.Concat(boundCalls(c.HTTP2.MaxStreams), s.interceptors(), s.grpcOptions)...)
	if err := b.grpc.CheckSettings(b.settings); err != nil {
		b.grpc.Stop()
		return nil, err
	}
	return b, nil
}

// use has new connections go to b. Where the servers have been closed already there are none, and b is closed as well.
func (s *Server) use(b *backend) {
	s.mu.Lock()
	s.backends = append(s.backends, b)
	closed := s.serversClosed
	s.mu.Unlock()
	s.backend.Store(b)
	if closed {
		b.close()
		return
	}
	s.background.run(func() { _ = b.refuser.Serve(b.refusals) })
}

// all returns the backends that are not closed.
func (s *Server) allBackends() []*backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.backends)
}

// drop closes a backend that has no connections any more.
func (s *Server) drop(b *backend) {
	s.mu.Lock()
	s.backends = slices.DeleteFunc(s.backends, func(other *backend) bool { return other == b })
	s.mu.Unlock()
	b.close()
}

// close ends the servers at once.
func (b *backend) close() {
	_ = b.refusals.Close()
	for _, srv := range []*http.Server{b.http1, b.http2, b.refuser} {
		_ = srv.Close()
	}
	b.grpc.Stop()
}
