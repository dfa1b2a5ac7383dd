package mux

import (
	"context"
	"io"
	"net"

	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
)

// custom is a protocol that the embedder recognises and serves by himself.
type custom struct {
	name     string
	matchers []cmux.MatchWriter
	listener *listeners.Sub
}

// customBacklog is how many connections may wait for an Accept on a custom
// listener before recognising more of its kind waits too.
const customBacklog = 128

// Match returns a listener that gets the connections which one of the matchers
// accepts; they are asked before the built-in protocols, in the order of the calls. Each
// matcher reads the connection's first bytes from the start, and what it reads
// stays for whoever serves the connection. The connections are counted in a pool
// called name, and what a matcher reads is bounded by the sniff limits.
//
// The caller serves the listener's connections and closes them. The listener's
// Accept returns an error that wraps net.ErrClosed once the server has stopped
// accepting, and closing it closes nothing else. Match must be called before the server
// serves; later it panics.
func (s *Server) Match(name string, matchers ...cmux.Matcher) net.Listener {
	c := &custom{name: name}
	for _, m := range matchers {
		c.matchers = append(c.matchers, c.peeking(m))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		panic("mux: Match after the server has begun to serve")
	}
	c.listener = listeners.NewSub(customAddr(s.config), customBacklog)
	s.custom = append(s.custom, c)
	return c.listener
}

func (s *Server) customs() []*custom {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.custom
}

// peeking lets a matcher read the connection's own peek buffer, so that its
// reads are bounded and nothing is left behind in cmux's wrapper.
func (cu *custom) peeking(m cmux.Matcher) cmux.MatchWriter {
	return func(w io.Writer, _ io.Reader) bool {
		c, ok := w.(*conn)
		if !ok || !c.prepare() || !m(c.PeekReader()) {
			return false
		}
		c.decide(protocols.Verdict{Protocol: protocols.Protocol(cu.name), Reason: "custom matcher"})
		return true
	}
}

// pump hands the connections of one root to the listener that the embedder holds.
func (cu *custom) pump(l *subListener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if err := cu.listener.Deliver(context.Background(), conn); err != nil {
			_ = conn.Close()
		}
	}
}

// listenAddr is the address that a listener shows before anything is bound.
type listenAddr string

func (listenAddr) Network() string  { return "tcp" }
func (a listenAddr) String() string { return string(a) }

func customAddr(c Config) net.Addr {
	if len(c.Listeners) == 0 {
		return listenAddr("")
	}
	return listenAddr(c.Listeners[0].Address)
}
