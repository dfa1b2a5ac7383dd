package main

import (
	"context"
	"sync"
)

// stream is a bidirectional stream of an HTTP/2 connection; see session.
type stream interface {
	send(n uint64) error
	receive() (uint64, error)
	closeSend()
	cancel()
}

// protocol is how the streams of a link are opened.
type protocol struct {
	open  func(context.Context) (stream, error)
	close func()
}

// links are HTTP/2 clients of which each connection carries some streams. When a
// connection is told to leave, the next stream gets a new one. Its methods are
// safe for concurrent use.
type links struct {
	t       *tally
	address func() string
	connect func(*dialer) (protocol, error)

	mu      sync.Mutex
	current *link // guarded by mu; nil before the first one
}

// link is one of the clients. Its connection is closed with the last of its streams.
type link struct {
	protocol

	told    chan struct{}
	tell    func()
	streams int  // guarded by links.mu
	retired bool // guarded by links.mu: no stream is to come
}

// open opens a session on the current link.
func (ls *links) open(ctx context.Context) (session, error) {
	l, err := ls.take()
	if err != nil {
		return nil, err
	}
	s, err := l.open(ctx)
	if err != nil {
		ls.give(l)
		return nil, err
	}
	return &linkSession{stream: s, link: l, links: ls}, nil
}

// take returns the current link, and counts a stream on it.
func (ls *links) take() (*link, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.current; l != nil {
		select {
		case <-l.told:
			ls.retire()
		default:
		}
	}
	if ls.current == nil {
		l := &link{told: make(chan struct{})}
		l.tell = sync.OnceFunc(func() { close(l.told) })
		p, err := ls.connect(&dialer{t: ls.t, address: ls.address, http2: true, onTold: func(*watchedConn) { l.tell() }})
		if err != nil {
			return nil, err
		}
		l.protocol = p
		ls.current = l
	}
	ls.current.streams++
	return ls.current, nil
}

// retire gives the current link no more streams. ls.mu is held.
func (ls *links) retire() {
	l := ls.current
	ls.current = nil
	l.retired = true
	if l.streams == 0 {
		l.close()
	}
}

// give gives back a stream that has ended.
func (ls *links) give(l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.streams--
	if l.retired && l.streams == 0 {
		l.close()
	}
}

// close closes what is left when no stream is.
func (ls *links) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.current != nil {
		ls.retire()
	}
}

// linkSession is a stream of a link.
type linkSession struct {
	stream

	link  *link
	links *links
}

var _ session = (*linkSession)(nil)

func (s *linkSession) told() <-chan struct{}  { return s.link.told }
func (s *linkSession) leave()                 { s.closeSend() }
func (s *linkSession) isGoingAway(error) bool { return false }

func (s *linkSession) close() {
	s.cancel()
	s.links.give(s.link)
}

// newStreams runs messengers over links with so many streams each.
func newStreams(ctx context.Context, t *tally, n, each int, address func() string, connect func(*dialer) (protocol, error)) *messages {
	groups := make([]*links, (n+each-1)/each)
	for i := range groups {
		groups[i] = &links{t: t, address: address, connect: connect}
	}
	return newMessages(ctx, t, n,
		func(ctx context.Context, i int) (session, error) { return groups[i/each].open(ctx) },
		func() {
			for _, g := range groups {
				g.close()
			}
		})
}
