package mux

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// WebSocket returns an HTTP handler that accepts WebSocket handshakes and serves
// them with h. It can be mounted at any path of the handler that [WithHandler] is given:
//
//	routes.Handle("/ws", mux.WebSocket(echo))
//
// A request that is no handshake is answered 426, or 400 over HTTP/2, one from a
// page of a foreign origin 403. Behind another server than a [Server] of this package it
// works with the default settings, and nothing drains it.
func WebSocket(h WebSocketHandler) http.Handler {
	if h == nil {
		panic("mux: WebSocket without a handler")
	}
	return &webSocketHandler{serve: h, elsewhere: sync.OnceValue(func() http.Handler {
		return protocols.NewWebSockets(protocols.DefaultWebSocketConfig(), slog.Default(), protocols.WebSocketHooks{}).Handler(h)
	})}
}

// webSocketHandler is what [WebSocket] returns. It is a type of its own so that it can be told from others.
type webSocketHandler struct {
	serve     WebSocketHandler
	elsewhere func() http.Handler // behind another server
}

// ServeHTTP implements [http.Handler].
func (h *webSocketHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := connOf(r.Context())
	if !ok {
		h.elsewhere().ServeHTTP(w, r)
		return
	}
	c.root.server.webSockets.Handler(h.serve).ServeHTTP(w, r)
}

// countHandshake serves the handshake of an HTTP/1.1 connection. Its request is over when the WebSocket is, which may be
// after the return.
func (s *Server) countHandshake(c *conn, rec *recorder1, r *http.Request) {
	e := s.beginHTTP(&s.requests.webSocket, c, r)
	end := func(finished bool) { s.endHTTP(&e, &rec.recorder, r, finished) }
	finished := false
	if s.isBare(r) {
		protocols.LetDetach(rec.ResponseWriter, end)
	}
	defer func() {
		if !protocols.IsDetached(rec.ResponseWriter) {
			end(finished)
		}
	}()
	s.routeUpgrade(rec, r)
	rec.decide(http.StatusOK)
	finished = true
}

// isBare reports whether a handshake goes straight to what [WebSocket] has returned: nobody in between waits for its end. Between
// it and the handler there must be nobody of ours either who does: see routeUpgrade.
func (s *Server) isBare(r *http.Request) bool {
	h := s.webSocketHandler
	if h == nil {
		h = s.handler
	}
	for range maxNestedRoutes {
		routes, ok := h.(*http.ServeMux)
		if !ok {
			_, ok = h.(*webSocketHandler)
			return ok
		}
		h, _ = routes.Handler(r)
	}
	return false
}

// maxNestedRoutes is how many ServeMuxes may be mounted in each other for isBare to look through them.
const maxNestedRoutes = 8

// ReadMessage reads a message into buf and closes the connection with 1007 where
// text is not UTF-8; see [protocols.ReadMessage].
func ReadMessage(ctx context.Context, c *websocket.Conn, buf *bytes.Buffer) (websocket.MessageType, error) {
	return protocols.ReadMessage(ctx, c, buf)
}

// webSocketOpened moves a connection that has become a WebSocket to its pool. One
// that has a WebSocket on one of its streams is still an HTTP/2 connection.
func webSocketOpened(r *http.Request) {
	if c, ok := needsPlace(r); ok {
		c.root.server.conns.MoveReserved(&c.account, pool.Tag(protocols.WebSocket))
	}
}

// countMessages returns what counts the messages of a WebSocket on its connection.
func countMessages(r *http.Request) func(received, sent int) {
	if c, ok := connOf(r.Context()); ok {
		return c.account.CountMessages
	}
	return nil
}

// webSocketEnded records why a WebSocket is about to be closed.
func webSocketEnded(r *http.Request, reason string) {
	c, ok := connOf(r.Context())
	switch {
	case !ok:
	case r.ProtoMajor == 1:
		c.account.SetCloseReason(reason)
	case reason == protocols.EndedPingTimeout:
		c.root.server.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Tag: pool.Tag(protocols.WebSocket), Reason: reason})
	}
}

// reserveWebSocket takes a place in the pool of WebSockets for a handshake.
func reserveWebSocket(r *http.Request) bool {
	c, ok := needsPlace(r)
	if !ok {
		return true
	}
	if c.root.server.conns.Reserve(pool.Tag(protocols.WebSocket)) {
		c.rare().reserved.Store(true)
		return true
	}
	c.root.server.conns.Reject(pool.Tag(protocols.WebSocket), pool.ReasonLimit)
	return false
}

// releaseWebSocket gives the place back.
func releaseWebSocket(r *http.Request) {
	if c, ok := needsPlace(r); ok {
		c.rare().reserved.Store(false)
		c.root.server.conns.Release(pool.Tag(protocols.WebSocket))
	}
}

// errNoPlace is what a handler gets that takes over the connection of a handshake when there is no place for another WebSocket.
var errNoPlace = errors.New("mux: too many WebSockets")

// takePlace moves the connection of a handshake to the pool of WebSockets, for a handler that takes it over
// by itself. It reports false where that is full. c may be nil.
func (c *conn) takePlace() bool {
	if c == nil || c.seldom().reserved.Load() {
		return true
	}
	_, full := c.root.server.conns.MoveWithin(&c.account, pool.Tag(protocols.WebSocket))
	return !full
}

// needsPlace returns the connection of a handshake that would bring it into the
// pool of WebSockets: not one that is there since its first bytes, nor one of
// HTTP/2, which stays where it is.
func needsPlace(r *http.Request) (*conn, bool) {
	c, ok := connOf(r.Context())
	if !ok || r.ProtoMajor != 1 {
		return nil, false
	}
	return c, c.root.server.conns.Tag(&c.account) != pool.Tag(protocols.WebSocket)
}
