package protocols

import (
	"context"
	"log"
	"net"
	"net/http"
	"runtime"
	"sync"
)

// A WebSocketServer serves connections whose verdict is [WebSocket], as the server of [NewHTTP1Server] would serve them, at
// half the memory: that one keeps a connection that has become a WebSocket in a goroutine whose stack was deep before,
// beside buffers of 12 KB that nobody needs any more.
//
// It does so for a handshake that is all there and plain, and whose handler takes the connection over, which is what
// nearly every handler of nearly every handshake does. In all other cases net/http serves the connection:
// from the start where the head is unusual in any way, and from where the handler begins to answer where it does
// anything but that. So no answer is made here but 101, and what the next request is, net/http finds out.
//
// All methods may be called concurrently.
type WebSocketServer struct {
	hooks   HTTPHooks
	log     *log.Logger
	maxHead int
	base    context.Context //nolint:containedctx // It is the root of those of all connections.
	server  *http.Server
	onward  func(net.Conn) error

	mu sync.Mutex
	// passed are the connections that net/http is to go on with while their handlers wait for it. Guarded by mu.
	passed map[net.Conn]*passage
}

// NewWebSocketServer returns a server with the settings of an HTTP/1.1 server. The function onward gives a connection to who
// serves it by [WebSocketServer.HTTPServer]; where it fails the connection is closed.
func NewWebSocketServer(c HTTP1Config, h HTTPHooks, onward func(net.Conn) error) *WebSocketServer {
	s := &WebSocketServer{
		hooks:   h,
		log:     errorLog(h.Logger),
		maxHead: c.MaxHeaderBytes,
		onward:  onward,
		passed:  make(map[net.Conn]*passage),
	}
	s.server = NewHTTP1Server(c, HTTPHooks{
		Handler:     http.HandlerFunc(s.servePassed),
		ConnContext: s.connContext,
		ConnState:   s.connState,
		Logger:      h.Logger,
	})
	s.base = context.WithValue(context.Background(), http.ServerContextKey, s.server)
	return s
}

// HTTPServer returns the server of the connections that go to net/http. To close it is the caller's affair.
func (s *WebSocketServer) HTTPServer() *http.Server { return s.server }

// Serve serves the connections of l until its Accept fails, and returns that error. It does not close l, nor
// the connections.
func (s *WebSocketServer) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c)
	}
}

// serve serves one connection.
func (s *WebSocketServer) serve(c net.Conn) {
	u := s.newUpgrade(c)
	if u == nil {
		s.pass(c)
		return
	}
	s.handle(u)
	if u.session != nil {
		// On a stack that has not been as deep as handlers and the handshake take it: one never shrinks to less than four times what
		// is in use, and this one lives as long as the WebSocket.
		go s.serveSession(u)
	}
}

// handle calls the handler.
func (s *WebSocketServer) handle(u *upgradeWriter) {
	defer u.end()
	s.hooks.Handler.ServeHTTP(u, u.request)
	u.returned = true
}

// serveSession serves the WebSocket that the handler has left behind.
func (s *WebSocketServer) serveSession(u *upgradeWriter) {
	defer u.endSession()
	u.session()
	u.returned = true
}

// pass has net/http serve the connection.
func (s *WebSocketServer) pass(c net.Conn) {
	if s.onward(c) != nil {
		_ = c.Close()
		s.state(c, http.StateClosed)
	}
}

// newUpgrade returns the handshake with which the connection begins, or nil for one that net/http is to look at. In
// either case nothing is consumed. It is not to be a part of serve, whose stack is the handler's.
//
//go:noinline
func (s *WebSocketServer) newUpgrade(c net.Conn) *upgradeWriter {
	p, ok := c.(peeked)
	if !ok {
		return nil
	}
	head := plainHandshake(p.unread(), s.maxHead)
	if head == nil {
		return nil
	}
	r := parseHandshake(head)
	if r == nil {
		return nil
	}
	ctx := s.base
	if s.hooks.ConnContext != nil {
		ctx = s.hooks.ConnContext(ctx, c)
	}
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, c.LocalAddr())
	ctx, cancel := context.WithCancel(ctx)
	u := &upgradeWriter{server: s, conn: p, head: len(head), cancel: cancel, header: make(http.Header)}
	u.presence = presence{conn: p, gone: cancel}
	r = r.WithContext(&presenceContext{ctx, &u.presence})
	u.request = r
	if remote := c.RemoteAddr(); remote != nil {
		r.RemoteAddr = remote.String()
	}
	s.state(c, http.StateActive)
	return u
}

func (s *WebSocketServer) state(c net.Conn, state http.ConnState) {
	if s.hooks.ConnState != nil {
		s.hooks.ConnState(c, state)
	}
}

// logPanic logs what net/http's server does when a handler panics with v. It is not to be a part of what is deferred around a
// WebSocket, which has a small stack.
//
//go:noinline
func (s *WebSocketServer) logPanic(c net.Conn, v any) {
	if v == http.ErrAbortHandler { //nolint:errorlint // As net/http compares it.
		return
	}
	const size = 64 << 10 // As there.
	stack := make([]byte, size)
	stack = stack[:runtime.Stack(stack, false)]
	s.log.Printf("http: panic serving %v: %v\n%s", c.RemoteAddr(), v, stack)
}
