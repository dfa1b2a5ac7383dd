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

	"github.com/muxserve/muxserve/mux/internal/sub"
	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// A Matcher reports whether a connection is of its kind, by what it reads of the
// connection's first bytes. Matchers of package cmux fit.
type Matcher = func(io.Reader) bool

// custom is a protocol that the embedder recognises and serves.
type custom struct {
	name     string
	matchers []Matcher
	listener *sub.Listener
	after    bool // asked after the built-in protocols
}

// customBacklog is how many connections may wait for an Accept on a custom listener.
// Beyond it, recognising more of that kind waits.
const customBacklog = 128

// Match returns a listener for the connections that one of the matchers accepts; see
// [Matcher]. They are asked before the built-in protocols, in the order of the calls; those of
// [Server.MatchAfter] come last. [SNI] and [ALPN] match by the TLS handshake that ended
// here, [ClientHelloSNI] by one that did not.
//
// Each matcher reads from the connection's first byte, behind TLS where TLS ends here.
// What it reads stays for the connection's owner. The sniff limits bound how much
// matchers read and how long they wait. A matcher that reads more than its client sends
// before an answer makes that client wait for the limit.
//
// The caller serves the listener's connections and closes them. They count in a pool
// called name, [ConnOf] describes them, and [Conn.Draining] ends when they are
// to leave. Accept returns an error that wraps net.ErrClosed once the server has stopped
// accepting and the queue is empty. Closing the listener closes nothing else. Match
// panics for the name of a built-in pool, and once the server serves.
func (s *Server) Match(name string, matchers ...Matcher) net.Listener {
	return s.topology.addCustom(s.newCustom(name, false, matchers))
}

// MatchAfter is [Server.Match] for connections that no built-in protocol has matched.
// With [Any] it is the fallback. What begins like HTTP and stalls ("PING") gets there when the
// sniff time is over. A connection that sends nothing, or whose TLS handshake fails, does not.
func (s *Server) MatchAfter(name string, matchers ...Matcher) net.Listener {
	return s.topology.addCustom(s.newCustom(name, true, matchers))
}

// takeTime is how long a drain waits for the next Accept from a custom listener whose
// queue is not empty.
const takeTime = time.Second

func (s *Server) newCustom(name string, after bool, matchers []Matcher) *custom {
	return &custom{name, slices.Clone(matchers), sub.New(listenAddr(name), customBacklog), after}
}

func (t *topology) addCustom(c *custom) net.Listener {
	reserved := []string{"", string(pool.Sniffing), string(pool.TotalTag), string(refusedTag)}
	if slices.Contains(reserved, c.name) || slices.Contains(builtin, protocols.Protocol(c.name)) {
		panic("mux: " + c.name + " cannot be the name of a custom protocol")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started {
		panic("mux: a custom protocol was added after the server had begun to serve")
	}
	t.custom = append(t.custom, c)
	return &customListener{c.listener, t}
}

// customListener is what the embedder gets of a custom protocol.
type customListener struct {
	*sub.Listener
	topology *topology
}

// Addr returns the address that is served, or before that the first configured one.
func (l *customListener) Addr() net.Addr { return l.topology.firstAddr() }

// customs returns the custom protocols that are asked after the built-in ones, or those
// that are asked before.
func (t *topology) customs(after bool) []*custom {
	t.mu.Lock()
	defer t.mu.Unlock()
	var some []*custom
	for _, c := range t.custom {
		if c.after == after {
			some = append(some, c)
		}
	}
	return some
}

// finishCustoms ends the custom listeners behind what is queued.
func (t *topology) finishCustoms() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.custom {
		c.listener.Finish()
	}
}

// waitTaken waits until the queues of the custom listeners are empty, or until nothing
// was accepted from them for takeTime.
func (t *topology) waitTaken(ctx context.Context) {
	left := func() (n int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, c := range t.custom {
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
func (t *topology) closeCustoms() {
	t.mu.Lock()
	customs := slices.Clone(t.custom)
	t.mu.Unlock()
	for _, c := range customs {
		_ = c.listener.Close() // Without the lock: observers of what it closes may call the server.
	}
}

// customReason is the reason of a verdict that a custom matcher gave.
const customReason = "custom matcher"

// match reports whether one of the matchers accepts w, which is cmux's name for a
// connection of ours. Matchers read its own peek buffer, so that their reads are bounded
// and nothing stays behind in cmux's wrapper.
func (cu *custom) match(w io.Writer, _ io.Reader) bool {
	c, ok := w.(*conn)
	if !ok || !cu.mayHave(c) || !slices.ContainsFunc(cu.matchers, c.matches) {
		return false
	}
	c.decide(sniff.Verdict{Protocol: protocols.Protocol(cu.name), Reason: customReason, Bytes: c.Verdict().Bytes})
	return true
}

// mayHave reports whether c's first bytes are the custom protocol's to look at.
func (cu *custom) mayHave(c *conn) bool {
	if !cu.after {
		return c.prepare()
	}
	v := c.verdict()
	return v.Failure == sniff.FailureNoMatch || v.Failure == sniff.FailureTooLarge ||
		v.IsStalled() || v.Protocol == protocols.TLS
}

// matches calls a custom matcher. A panic is no match.
func (c *conn) matches(m Matcher) (matched bool) {
	defer func() {
		if v := recover(); v != nil {
			matched = false
			c.root.books.logger.Error("custom matcher panicked", keyErr, v, "stack", string(debug.Stack()))
		}
	}()
	return m(&matcherReader{c.PeekReader(), c.layers().state})
}

// matcherReader is what a custom matcher reads.
type matcherReader struct {
	io.Reader
	tls *tls.ConnectionState // nil where TLS did not end here
}

// Any returns a matcher for every connection.
func Any() Matcher { return func(io.Reader) bool { return true } }

// SNI returns a matcher for connections whose TLS ended here and whose client asked for
// a server name that matches one of the patterns: "*.example.com". A "*" stands for any
// text ([path.Match]), and case does not count.
func SNI(patterns ...string) Matcher {
	return func(r io.Reader) bool {
		b, ok := r.(*matcherReader)
		return ok && b.tls != nil && matchesName(patterns, b.tls.ServerName)
	}
}

// ClientHelloSNI returns a matcher for connections whose TLS does not end here, by the
// server name in the client's TLS ClientHello. Patterns are as in [SNI]. The owner of
// the connection reads the ClientHello again: it ends TLS itself or passes the bytes on.
func ClientHelloSNI(patterns ...string) Matcher {
	return func(r io.Reader) bool {
		if b, ok := r.(*matcherReader); ok && b.tls != nil {
			return false
		}
		name, err := sniff.ReadServerName(r)
		return err == nil && matchesName(patterns, name)
	}
}

// matchesName reports whether a server name matches one of the patterns.
func matchesName(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		matched, err := path.Match(strings.ToLower(pattern), strings.ToLower(name))
		return err == nil && matched
	})
}

// ALPN returns a matcher for connections whose TLS ended here and agreed on one of the
// protocols. The TLS configuration must offer them (see [WithTLS]).
func ALPN(protocols ...string) Matcher {
	return func(r io.Reader) bool {
		b, ok := r.(*matcherReader)
		return ok && b.tls != nil && slices.Contains(protocols, b.tls.NegotiatedProtocol)
	}
}

// pump delivers the connections of one root to the embedder's listener.
func (cu *custom) pump(l *subListener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		// A full queue must not hold up the server's end.
		if err := cu.listener.Deliver(l.root.running.handing, conn); err != nil {
			_ = conn.Close()
		}
	}
}

// listenAddr is the address of a listener that is bound to nothing.
type listenAddr string

func (listenAddr) Network() string  { return "tcp" }
func (a listenAddr) String() string { return string(a) }

// addrOf returns a configured address in the form that a bound listener shows it in.
func addrOf(configured string) net.Addr {
	if path, ok := strings.CutPrefix(configured, "unix:"); ok {
		return &net.UnixAddr{Name: path, Net: "unix"}
	}
	if addr, err := net.ResolveTCPAddr("tcp", configured); err == nil {
		return addr
	}
	return listenAddr(configured)
}
