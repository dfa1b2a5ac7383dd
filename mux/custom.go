package mux

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/soheilhy/cmux"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// custom is a protocol that the embedder recognises and serves by himself.
type custom struct {
	name     string
	matchers []cmux.MatchWriter
	listener *listeners.Sub
	after    bool // asked after the built-in protocols
}

// customBacklog is how many connections may wait for an Accept on a custom
// listener before recognising more of its kind waits too.
const customBacklog = 128

// Match returns a listener that gets the connections which one of the matchers
// accepts. They are asked before the built-in protocols, in the order of the
// calls; those of [Server.MatchAfter] come last. Each matcher reads the connection's
// first bytes from the start, behind TLS where there is TLS, and what it reads stays
// for whoever serves the connection. What matchers may read, and wait for, is
// bounded by the sniff limits; one that reads more than a client sends before it is
// answered, as a matcher of HTTP/2 headers does, makes that client wait for the limit. [SNI] and [ALPN] match by the TLS handshake.
//
// The caller serves the listener's connections and closes them; they are counted
// in a pool called name, [FromConn] tells more of them, and their [DrainContextOf] ends when they are to leave. The listener's
// Accept returns an error that wraps net.ErrClosed once the server has stopped
// accepting and its queue is empty, and closing it closes nothing else. Match panics once the server
// serves, and for the name of a built-in pool.
func (s *Server) Match(name string, matchers ...cmux.Matcher) net.Listener {
	return s.addCustom(name, false, matchers)
}

// MatchAfter is [Server.Match] for connections that no built-in protocol has
// matched. With cmux.Any() it is the fallback for everything that speaks: a
// connection that says nothing, or whose TLS handshake fails, never gets there.
func (s *Server) MatchAfter(name string, matchers ...cmux.Matcher) net.Listener {
	return s.addCustom(name, true, matchers)
}

func (s *Server) addCustom(name string, after bool, matchers []cmux.Matcher) net.Listener {
	if name == "" || slices.Contains([]string{string(pool.Sniffing), string(pool.TotalTag), string(refusedTag)}, name) || slices.Contains(builtin, protocols.Protocol(name)) {
		panic("mux: " + name + " cannot be the name of a custom protocol")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		panic("mux: a custom protocol was added after the server had begun to serve")
	}
	c := &custom{name: name, after: after, listener: listeners.NewSub(customAddr(&s.initial), customBacklog)}
	for _, m := range matchers {
		c.matchers = append(c.matchers, c.peeking(m))
	}
	s.custom = append(s.custom, c)
	return c.listener
}

// customs returns the custom protocols that are asked before or after the built-in ones.
func (s *Server) customs(after bool) []*custom {
	s.mu.Lock()
	defer s.mu.Unlock()
	var some []*custom
	for _, c := range s.custom {
		if c.after == after {
			some = append(some, c)
		}
	}
	return some
}

// finishCustoms lets the owners of the custom listeners accept what is queued, and then ends them.
func (s *Server) finishCustoms() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.custom {
		c.listener.Finish()
	}
}

// takeTime is how long the owner of a custom listener may take for one of the
// connections that are left in its queue at a drain.
const takeTime = time.Second

// waitTaken waits until the custom listeners' queues are empty, or until nobody takes anything from them.
func (s *Server) waitTaken(ctx context.Context) {
	left := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.custom {
			n += c.listener.Queued()
		}
		return n
	}
	tick := time.NewTicker(takeTime / 100)
	defer tick.Stop()
	since := time.Now()
	for before := left(); before > 0 && time.Since(since) < takeTime; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now := left(); now != before {
			before, since = now, time.Now()
		}
	}
}

// closeCustoms ends the custom listeners; connections that were accepted live on.
func (s *Server) closeCustoms() {
	s.mu.Lock()
	customs := slices.Clone(s.custom)
	s.mu.Unlock()
	for _, c := range customs {
		_ = c.listener.Close() // What it closes is told to observers, who may ask the server.
	}
}

// peeking lets a matcher read the connection's own peek buffer, so that its
// reads are bounded and nothing is left behind in cmux's wrapper.
func (cu *custom) peeking(m cmux.Matcher) cmux.MatchWriter {
	return func(w io.Writer, _ io.Reader) bool {
		c, ok := w.(*conn)
		if !ok || !cu.mayHave(c) || !c.matches(m) {
			return false
		}
		c.decide(protocols.Verdict{Protocol: protocols.Protocol(cu.name), Reason: "custom matcher", Bytes: c.Verdict().Bytes})
		return true
	}
}

// mayHave reports whether c's first bytes are the custom protocol's to look at.
func (cu *custom) mayHave(c *conn) bool {
	if !cu.after {
		return c.prepare()
	}
	failure := c.verdict().Failure
	return failure == protocols.FailureNoMatch || failure == protocols.FailureTooLarge ||
		c.verdict().Protocol == protocols.TLS
}

// matches asks a custom matcher. One that panics has not matched.
func (c *conn) matches(m cmux.Matcher) (matched bool) {
	defer func() {
		if v := recover(); v != nil {
			matched = false
			c.root.server.logger.Error("custom matcher panicked", keyErr, v, "stack", string(debug.Stack()))
		}
	}()
	return m(&firstBytes{c.PeekReader(), c.seldom().state})
}

// firstBytes is what a custom matcher reads.
type firstBytes struct {
	io.Reader
	tls *tls.ConnectionState
}

// SNI returns a matcher for connections whose TLS handshake asked for a server
// name that matches one of the patterns, as [path.Match] understands them:
// "*.example.com". Case does not count.
func SNI(patterns ...string) cmux.Matcher {
	return func(r io.Reader) bool {
		b, ok := r.(*firstBytes)
		return ok && b.tls != nil && slices.ContainsFunc(patterns, func(pattern string) bool {
			matched, err := path.Match(strings.ToLower(pattern), strings.ToLower(b.tls.ServerName))
			return err == nil && matched
		})
	}
}

// ALPN returns a matcher for connections whose TLS handshake agreed on one of
// the protocols. The TLS configuration must offer them (see [WithTLS]).
func ALPN(protocols ...string) cmux.Matcher {
	return func(r io.Reader) bool {
		b, ok := r.(*firstBytes)
		return ok && b.tls != nil && slices.Contains(protocols, b.tls.NegotiatedProtocol)
	}
}

// pump hands the connections of one root to the listener that the embedder holds.
func (cu *custom) pump(l *subListener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		// A queue that nobody empties must not hold up the server's end.
		if err := cu.listener.Deliver(l.root.server.handing, conn); err != nil {
			_ = conn.Close()
		}
	}
}

// listenAddr is the address that a listener shows before anything is bound.
type listenAddr string

func (listenAddr) Network() string  { return "tcp" }
func (a listenAddr) String() string { return string(a) }

func customAddr(c *Config) net.Addr {
	if len(c.Listeners) == 0 {
		return listenAddr("")
	}
	return listenAddr(c.Listeners[0].Address)
}
