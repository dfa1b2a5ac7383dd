package protocols

import (
	"context"
	"net"
	"net/http"
)

// A passage takes the answer of a handler that was called before net/http knew of its request to where net/http serves that
// request. There are two goroutines until the answer is complete: the handler's, which writes it, and net/http's, which waits.
type passage struct {
	cancel context.CancelFunc       // the request's
	writer chan http.ResponseWriter // gives net/http's
	lost   chan struct{}            // closed when the connection ended instead
	done   chan struct{}            // closed when the handler has returned
	failed bool                     // it has panicked; set before done is closed
}

type passageKey struct{}

// passTo passes the connection on and returns net/http's writer, or false where the connection has ended.
func (s *WebSocketServer) passTo(c net.Conn, p *passage) (http.ResponseWriter, bool) {
	s.mu.Lock()
	s.passed[c] = p
	s.mu.Unlock()
	if s.onward(c) != nil {
		_ = c.Close()
		s.connState(c, http.StateClosed)
	}
	select {
	case w := <-p.writer:
		return w, true
	case <-p.lost:
		return nil, false
	}
}

// take returns the passage of a connection, once.
func (s *WebSocketServer) take(c net.Conn) *passage {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.passed[c]
	delete(s.passed, c)
	return p
}

// connContext is the hook of net/http's server. It is told of a connection before the first request.
func (s *WebSocketServer) connContext(ctx context.Context, c net.Conn) context.Context {
	if s.hooks.ConnContext != nil {
		ctx = s.hooks.ConnContext(ctx, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passed[c] != nil {
		ctx = context.WithValue(ctx, passageKey{}, c)
	}
	return ctx
}

// connState is the hook of net/http's server.
func (s *WebSocketServer) connState(c net.Conn, state http.ConnState) {
	s.state(c, state)
	if state != http.StateClosed {
		return
	}
	if p := s.take(c); p != nil {
		close(p.lost)
	}
}

// servePassed is the handler of net/http's server.
func (s *WebSocketServer) servePassed(w http.ResponseWriter, r *http.Request) {
	if c, ok := r.Context().Value(passageKey{}).(net.Conn); ok {
		if p := s.take(c); p != nil {
			p.serve(w, r)
			return
		}
	}
	s.hooks.Handler.ServeHTTP(w, r)
}

// serve lends w to the handler until it returns.
func (p *passage) serve(w http.ResponseWriter, r *http.Request) {
	defer context.AfterFunc(r.Context(), p.cancel)() // The peer is gone.
	p.writer <- w
	<-p.done
	if p.failed {
		panic(http.ErrAbortHandler) // It was logged.
	}
}
