package mux

import (
	"net"
	"net/http"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// serveHTTP is the root handler of every HTTP server here: whatever a connection
// was recognised as, any of its requests is served as what it is.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := connOf(r.Context())
	if ok {
		if state := c.TLSState(); state != nil {
			r.TLS = state
		}
	}
	switch {
	case r.ProtoMajor == 2:
		s.serveHTTP2(w, r)
	default:
		s.serveHTTP1(c, w, r)
	}
}

func (s *Server) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && protocols.IsGRPCContentType(r.Header.Get("Content-Type")) {
		s.grpc.Shared.ServeHTTP(w, r)
		return
	}
	s.route(w, r)
}

func (s *Server) serveHTTP1(c *conn, w http.ResponseWriter, r *http.Request) {
	if s.telling.Load() {
		w.Header().Set("Connection", "close")
	}
	upgrade := protocols.IsWebSocketUpgrade(r)
	if upgrade && s.webSocketHandler != nil {
		s.webSocketHandler.ServeHTTP(w, r)
	} else {
		s.route(w, r)
	}
	if upgrade && c != nil && c.account.State() != pool.StateUpgraded {
		// The handshake was refused, so the connection goes on as HTTP.
		s.conns.Move(&c.account, pool.Tag(protocols.HTTP1))
	}
}

// route answers the health paths and leaves the rest to the embedder's handler.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	if s.healthPaths {
		switch r.URL.Path {
		case "/livez":
			s.livez.ServeHTTP(w, r)
			return
		case "/readyz":
			s.readyz.ServeHTTP(w, r)
			return
		}
	}
	s.handler.ServeHTTP(w, r)
}

// trackState is the http.Server hook that keeps the account's state.
func trackState(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		c.account.SetState(pool.StateActive)
	case http.StateIdle:
		c.account.SetState(pool.StateIdle)
	case http.StateHijacked:
		c.account.SetState(pool.StateUpgraded)
	case http.StateNew, http.StateClosed:
	}
}
