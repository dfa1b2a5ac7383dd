package mux

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/muxserve/muxserve/mux/internal/sub"
)

// Dial returns an in-process connection to the server, without TLS. It is for clients in the
// same process, such as grpc-gateway's:
//
//	grpc.NewClient("passthrough:mux", grpc.WithContextDialer(
//		func(ctx context.Context, _ string) (net.Conn, error) { return s.Dial(ctx) }), …)
//
// No limit refuses such connections. A drain tells them last: when all others have left, no
// more are made, and what is under way on them ends as on the others. The first one must be
// made before the drain, and starts the server if nothing is served yet.
//
// Dial waits until the server has taken the connection on, or until ctx ends. After the
// drain it returns [ErrServerClosed].
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if err := s.start(); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	err := s.topology.deliverLocal(ctx, server)
	if err != nil {
		_ = server.Close()
		_ = client.Close()
		return nil, err
	}
	return client, nil
}

// deliverLocal has a connection taken on by what serves in-process connections.
func (t *topology) deliverLocal(ctx context.Context, server net.Conn) error {
	for {
		l, err := t.localListener()
		if err != nil {
			return err
		}
		switch err = l.Deliver(ctx, server); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("mux: dial: %w", context.Cause(ctx))
		}
		if now := t.localNow(); now == nil || now.listener == l { // Not replaced by a reload.
			return ErrServerClosed
		}
	}
}

// local is the listener of in-process connections. A reload that makes other servers makes
// another listener.
type local struct {
	listener *sub.Listener
	root     *root
}

// localListener returns the listener of in-process connections, made at the first call.
func (t *topology) localListener() (*sub.Listener, error) {
	l := t.localNow()
	if l == nil {
		l = t.serveLocal()
	}
	if l == nil {
		return nil, ErrServerClosed
	}
	return l.listener, nil
}

// localNow returns what serves in-process connections; nil for nothing.
func (t *topology) localNow() *local {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.local
}

// serveLocal has in-process connections served by the backend in use, unless another goroutine
// has done so. It returns nil where the server is closing.
func (t *topology) serveLocal() *local {
	for {
		b := t.backend.Load()
		l := sub.New(listenAddr("in-process"), 0)
		e := &endpoint{sockets: []net.Listener{l}, allow: allowAll, local: true, left: 1}
		r := t.newRoot(b, e, l)
		e.roots = []*root{r}
		if now, done := t.useLocal(&local{l, r}); done {
			return now
		}
	}
}

// useLocal has l serve new in-process connections, unless others do already by its backend.
// It reports false where that is not the backend in use any more, which a reload replaces
// before it calls replaceLocal. It returns what serves them; nil where the server is closing.
func (t *topology) useLocal(l *local) (now *local, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.running.drainBegun.Load():
		return nil, true
	case l.root.backend != t.backend.Load():
		return nil, false
	case t.local != nil && t.local.root.backend == l.root.backend:
		return t.local, true
	}
	l.root.configure(t.live.Load()) // A change may have been made since it was made.
	t.local = l
	t.roots = append(t.roots, l.root)
	go t.serveRoot(l.root)
	return l, true
}

// replaceLocal has new in-process connections served by the backend in use, and returns the
// root that served them before.
func (t *topology) replaceLocal() []*root {
	old := t.localNow()
	if old == nil || old.root.backend == t.backend.Load() || t.serveLocal() == nil {
		return nil
	}
	roots := old.root.endpoint.replace()
	old.listener.Finish()
	return roots
}

// hasLocal reports whether there may be in-process connections.
func (t *topology) hasLocal() bool { return t.localNow() != nil }

// stopLocal ends in-process connecting, and returns the roots that had it.
func (t *topology) stopLocal() []*root {
	t.mu.Lock()
	defer t.mu.Unlock()
	var roots []*root
	for _, r := range t.roots {
		if r.endpoint.local {
			roots = append(roots, r)
		}
	}
	if t.local != nil {
		t.local.listener.Finish()
	}
	return roots
}

// isLocal reports whether the connection is an in-process one.
func (c *conn) isLocal() bool { return c.root.endpoint.local }

// isRemote reports the opposite.
func (c *conn) isRemote() bool { return !c.isLocal() }

// isDue reports whether the drain is to end the connection by now: in-process ones outlast
// the others.
func (d *drainActions) isDue(c *conn) bool { return c.isRemote() || d.localDue.Load() }

// isLeaving reports whether the drain is to tell the connection.
func (d *drainActions) isLeaving(c *conn) bool { return c.isServing() && d.isDue(c) }

// waitRemoteGone waits until no connection is left but in-process ones.
func (d *drainActions) waitRemoteGone(ctx context.Context) error {
	if !d.topology.hasLocal() {
		return d.books.conns.WaitEmpty(ctx)
	}
	tick := time.NewTicker(remoteInterval)
	defer tick.Stop()
	for len(d.books.all((*conn).isRemote)) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// remoteInterval is how often waitRemoteGone looks.
const remoteInterval = 10 * time.Millisecond

// leaveLocal ends in-process connections, which outlast the others: first the making of new
// ones, then those that are there, as a drain does it with the others.
func (d *drainActions) leaveLocal(ctx context.Context) error {
	roots := d.topology.stopLocal()
	if len(roots) == 0 {
		return nil
	}
	d.localDue.Store(true)
	for _, r := range roots {
		r.endWaits()
	}
	patience, cancel := context.WithTimeout(ctx, d.sniffTime())
	defer cancel()
	if waitRoots(patience, roots) != nil {
		d.cutUnrecognised()
	}
	if err := waitRoots(ctx, roots); err != nil {
		return err
	}
	d.departures.beginDrain(0) // Where no listener was served, nobody has been told yet.
	d.tellLate()
	d.waitAnswered(ctx)
	d.shutdown()
	return d.books.conns.WaitEmpty(ctx)
}
