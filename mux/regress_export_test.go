package mux

import "net"

// NativeConns returns how many of the server's connections native gRPC calls can be
// traced to.
func (s *Server) NativeConns() int {
	n := 0
	grpcConns.Range(func(_, c any) bool {
		if c.(*conn).root.server == s {
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
	return s.serveRoots(newRoot(s, boundListener{Listener: l, optional: true, allow: allowAll}))
}

// FailListener makes the configured listener i fail for good.
func (s *Server) FailListener(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound[i].Listener.Close()
}
