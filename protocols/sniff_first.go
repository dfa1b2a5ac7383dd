package protocols

import "time"

// SniffHTTP1 waits for c's first bytes and reports whether they decide, all at once, that c speaks HTTP/1.1 and
// asks for nothing else. If so, that is the verdict, as Sniff would have given it. In every other case, of which a failure is one,
// nothing is decided, and Sniff goes on from there. It is for the goroutine of a server that would
// rather not leave it to another one to find out.
//
// It takes the place of the beginning of Sniff: the same rules hold for who owns c, and it is called once. The Timeout of
// the config that Sniff is given then counts from here.
func (c *Conn) SniffHTTP1(config *SniffConfig) bool {
	e := c.early.Load()
	if e == nil || e.wait == decided {
		return c.Verdict().Protocol == HTTP1
	}
	e.config = config.withDefaults()
	e.begin()
	_ = c.inner.SetReadDeadline(after(e.started, e.config.Timeout))
	if err := e.peek.fill(c.inner, e.config.MaxBytes); err != nil {
		return false
	}
	v, ok := scanHTTP1(e.peek.unread(), &e.config)
	if !ok {
		return false
	}
	v.Bytes = e.peek.total
	v.Duration = time.Since(e.started)
	c.decide(e, v)
	return true
}

// scanHTTP1 returns the verdict of SniffHTTP1. It is a function of its own because a scanner is big: it
// would make the stack of the server's goroutine grow if it stayed there.
//
//go:noinline
func scanHTTP1(b []byte, config *SniffConfig) (Verdict, bool) {
	s := newScanner(config.Transport, config.MaxBytes)
	answer, v := s.scan(b)
	return v, answer != NeedMore && v.Protocol == HTTP1
}
