package mux

import (
	"log/slog"
	"net/http"
	"sync"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
)

// WebSocket returns an HTTP handler that accepts WebSocket handshakes and serves
// them with h. It can be mounted at any path of the handler that [WithHandler] is given:
//
//	routes.Handle("/ws", mux.WebSocket(echo))
//
// A request that is no handshake is answered 426, or 400 over HTTP/2, one from a
// page of a foreign origin 403, and one during a drain 503. Behind another server than a [Server] of this package it
// works with the default settings, and nothing drains it.
func WebSocket(h WebSocketHandler) http.Handler {
	elsewhere := sync.OnceValue(func() http.Handler {
		return protocols.NewWebSockets(protocols.DefaultWebSocketConfig(), slog.Default(), nil).Handler(h)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := connOf(r.Context())
		if !ok {
			elsewhere().ServeHTTP(w, r)
			return
		}
		c.root.server.webSockets.Handler(h).ServeHTTP(w, r)
	})
}

// webSocketOpened moves a connection that has become a WebSocket to its pool. One
// that has a WebSocket on one of its streams is still an HTTP/2 connection.
func webSocketOpened(r *http.Request) {
	if c, ok := connOf(r.Context()); ok && r.ProtoMajor == 1 {
		c.root.server.conns.Move(&c.account, pool.Tag(protocols.WebSocket))
	}
}
