package mux

import "net"

// NativeConns returns how many of the server's connections native gRPC calls can be
// traced to.
func (s *Server) NativeConns() int {
	n := 0
	grpcConns.Range(func(_, c any) bool {
		if c.(*conn).root.books == s.books {
			n++
		}
		return true
	})
	return n
}

// ServeOptional is Serve with TLS, as [WithTLS] sets it, for those who ask for it.
func (s *Server) ServeOptional(l net.Listener) error {
	if err := s.start(); err != nil {
		return err
	}
	e := &endpoint{sockets: []net.Listener{l}, optional: true, allow: allowAll, brought: true}
	return s.serve(func() []*endpoint { return []*endpoint{e} })
}

// FailListener makes the configured listener i fail for good.
func (s *Server) FailListener(i int) error {
	return s.topology.configured()[i].sockets[0].Close()
}

// Backends returns how many generations of servers there are.
func (s *Server) Backends() int { return len(s.topology.allBackends()) }
