package mux

import (
	"context"
	"crypto/tls"
	"log/slog"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/sniff"
)

// settle takes the connection off the list of those that its root still has to dispatch,
// and counts it where it was given up.
func (c *conn) settle() {
	v := c.verdict()
	asksForTLS := v.Protocol == protocols.TLS && v.Reason != customReason // A custom protocol may be called "tls".
	switch why := c.account.CloseReason(); {
	case why == reasonRoom: // What was cut had nothing to say.
	case why == reasonDrain, v.Failure != "" && !v.IsIdle(), asksForTLS:
		c.noteRefusal(c.fault())
	}
	c.logVerdict()
	if c.stage() == stageClosed {
		c.root.books.closed.add(c, false)
	}
	c.root.unsettled.Done()
}

func (c *conn) logVerdict() {
	logger := c.root.books.logger
	if !logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	v, known := c.verdict(), c.known()
	attrs := []any{
		keyConnID, c.account.ID(), keyRemoteAddr, addrText(known.remote), keyLocalAddr, addrText(known.local),
		keyProtocol, string(v.Protocol), keyVerdict, v.Reason, keyReason, v.Failure,
		keyBytesRead, v.Bytes, keyDuration, v.Duration.Seconds(),
	}
	if f := c.rare().fault; f != nil {
		attrs = append(attrs, keyErr, f.err)
	}
	logger.Debug("connection recognised", attrs...)
}

// noteRefusal counts the connection as refused.
func (c *conn) noteRefusal(f *fault) {
	c.root.books.noteRefusal(c, c.account.Tag(), f)
}

// classify recognises the connection the first time it is called, and answers from memory
// after that. It blocks as long as the peer may take to speak. Only the goroutine that
// cmux has for the connection calls it.
func (c *conn) classify() protocols.Protocol {
	if c.prepare() && c.stage() == stageOpen {
		if p := c.alpn(); p != "" && p != alpnHTTP1 && p != alpnHTTP2 {
			c.decide(sniff.ALPNVerdict()) // It is a custom protocol's, or nobody's.
		} else {
			c.recognise()
			c.advance(stageKnown)
		}
	}
	return c.verdict().Protocol
}

// verdict returns what the connection was recognised as, and the zero Verdict before.
func (c *conn) verdict() sniff.Verdict {
	if own := c.rare().own; own != nil {
		return *own
	}
	return c.Verdict()
}

// decide records a verdict that the recogniser did not give. A custom matcher may have the
// last word on a connection that nothing else matched.
func (c *conn) decide(v sniff.Verdict) {
	c.ensureRare().own = &v
	if c.stage() == stageOpen {
		c.advance(stageKnown)
	}
}

// recognise asks the first bytes. Where they ask for TLS, which this listener does not
// have or has already ended, the verdict says so and no built-in protocol matches.
func (c *conn) recognise() {
	defer c.contain()
	config := c.sniffConfig()
	if p := c.alpn(); p != "" {
		bound := *config
		bound.ALPN = p
		config = &bound
	}
	if v := c.Sniff(config); v.Failure != sniff.FailureSilent {
		c.root.books.sniffTimes.Record(v.Duration)
	}
}

// alpn returns the protocol that the TLS handshake has agreed on, empty for none. That of a
// wrapped *tls.Conn does not bind, as it does not in net/http.
func (c *conn) alpn() string {
	layer := c.layers()
	if _, ok := layer.tls.(*tls.Conn); ok && layer.state != nil {
		return layer.state.NegotiatedProtocol
	}
	return ""
}
