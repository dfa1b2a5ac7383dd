package mux

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// refusal is the reason for which a connection is kept out.
type refusal uint8

const (
	notRefused refusal = iota
	refusedLimit
	refusedAddress
	refusedNoMatch
)

var refusalReasons = [...]string{"", pool.ReasonLimit, pool.ReasonAddressLimit, protocols.FailureNoMatch}

func (r refusal) String() string { return refusalReasons[r] }

// refusalOf returns the refusal for a reason that a limit has given.
func refusalOf(reason string) refusal {
	return refusal(max(0, slices.Index(refusalReasons[:], reason)))
}

// refusedTag is the pool of connections that are being refused: each is there
// for about a second.
const refusedTag pool.Tag = "refused"

// maxRefusals bounds how many connections are refused politely at a time. What
// comes above that, in a flood, is closed without a word.
const maxRefusals = 256

// tooManyRefusals reports whether one more connection cannot be refused politely.
func (s *Server) tooManyRefusals() bool {
	total := s.live.Load().Limits.MaxConnections
	return s.conns.Len(refusedTag) >= maxRefusals || total > 0 && s.conns.Len() > total+maxRefusals
}

// refuse ends a connection that a limit keeps out, in the words of its protocol:
// HTTP/1.1 gets a 503, HTTP/2 and gRPC an answer to each request for a second. One whose protocol is
// not served here gets 505 or GOAWAY.
// An HTTP/2 client that has not sent a request is not greeted: to it the attempt
// to connect has failed, and it backs off as it does from a server that is down.
func (s *Server) refuse(c *conn, tag pool.Tag) {
	s.conns.Reject(tag, c.refused.String())
	s.conns.Exempt(&c.account)
	c.account.SetCloseReason(reasonRefused)
	polite := !s.tooManyRefusals() && !c.verdict().IsUndecided() && s.conns.Move(&c.account, refusedTag)
	c.advance(stageServing)
	if polite {
		switch p := c.verdict().Protocol; {
		case c.refused == refusedNoMatch:
			polite = s.background.run(func() { denyConn(c) })
		case p == protocols.HTTP1, p == protocols.WebSocket:
			polite = s.background.run(func() { protocols.RefuseHTTP1(c) })
		case p == protocols.HTTP2, p == protocols.GRPC:
			polite = c.root.backend.refusals.Deliver(s.accepting, c) == nil
		default:
			polite = false
		}
	}
	if !polite {
		_ = c.Close()
	}
}

// connAge returns how old the connection of a request is.
func connAge(r *http.Request) time.Duration {
	if c, ok := connOf(r.Context()); ok {
		return time.Since(c.account.Opened())
	}
	return 0
}

// setLimits bounds the open connections. Connections above a lowered limit stay, except
// WebSockets: the surplus is closed with 1013 (try again later).
func (s *Server) setLimits(l pool.Limits) {
	s.conns.SetLimits(l)
	s.webSockets.CloseExcess(max(0, l.PerTag[pool.Tag(protocols.WebSocket)]))
}

// background is a set of goroutines that the server waits for at its end.
type background struct {
	mu    sync.Mutex
	ended bool // guarded by mu
	wg    sync.WaitGroup
}

// run runs f in a goroutine. It reports false, and does not, once wait was called.
func (b *background) run(f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	b.wg.Go(f)
	return true
}

// wait returns a channel that is closed when every goroutine has ended. None begins after the call.
func (b *background) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	done := make(chan struct{})
	go func() {
		b.wg.Wait()
		close(done)
	}()
	return done
}
