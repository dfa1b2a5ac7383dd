package mux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"sync"

	coder "github.com/coder/websocket"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// WebSocket returns an HTTP handler that accepts WebSocket handshakes and serves
// them with h. It can be mounted at any path of the handler that [WithHandler] is given:
//
//	routes.Handle("/ws", mux.WebSocket(echo))
//
// It answers 426 to a request that is no handshake, or 400 over HTTP/2, and 403 to a page
// of a foreign origin. Middleware may stand above it. Where that does not let a connection
// be hijacked, as [http.TimeoutHandler] does not, the answer is 501. Behind another server
// than a [Server] of this package it works with the default settings, and no drain closes
// its WebSockets. A [WebSocketOption] sets what this handler agrees on: [Subprotocols],
// [OriginPatterns], [Compression].
func WebSocket(h WebSocketHandler, options ...WebSocketOption) http.Handler {
	if h == nil {
		panic("mux: WebSocket without a handler")
	}
	return &webSocketHandler{serve: h, options: webSocketOptions(options), elsewhere: sync.OnceValue(func() *websocket.Server {
		return websocket.New(protocols.DefaultWebSocketConfig(), protocols.DefaultProgressConfig().ProgressTimeout, slog.Default())
	})}
}

// webSocketHandler is what [WebSocket] returns. canDetach looks for the type.
type webSocketHandler struct {
	serve     WebSocketHandler
	options   *websocket.Options
	elsewhere func() *websocket.Server // for requests of another server
}

// ServeHTTP implements [http.Handler].
func (h *webSocketHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := connOf(r.Context())
	if !ok {
		if session := h.elsewhere().Accept(r.Context(), w, r, nil, h.options); session != nil {
			session.Serve(h.serve)
		}
		return
	}
	webSockets, ctx := c.root.departures.webSockets, r.Context()
	rec, _ := w.(*recorder1)
	detaches := rec != nil && rec.handshake != nil && rec.handshake.detached != nil
	if detaches {
		ctx = rec.handshake.detached
	}
	session := webSockets.Accept(ctx, w, r, c, h.options)
	if session == nil {
		return
	}
	if c.isTold() {
		c.root.departures.tellWebSocket(c) // The connection was told before it was a WebSocket.
	}
	webSockets.CloseExcess(c.root.books.conns.Excess(webSocketTag)) // The limit may have fallen meanwhile.
	if detaches {
		rec.handshake.session, rec.handshake.serve = session, h.serve
		return
	}
	session.Serve(h.serve)
}

// CountMessages implements [websocket.Owner].
func (c *conn) CountMessages(received, sent int) { c.account.CountMessages(received, sent) }

// SendQueue implements [websocket.Owner].
func (c *conn) SendQueue() (acked uint64, unsent, known bool) { return c.account.SendQueue() }

// WebSocketEnds implements [websocket.Owner].
func (c *conn) WebSocketEnds(r *http.Request, reason string) {
	switch {
	case r.ProtoMajor == 1:
		c.account.SetCloseReason(reason)
	case reason == websocket.EndedPingTimeout, reason == websocket.EndedStalled:
		c.root.books.conns.Report(pool.Event{Kind: pool.EventTimeout, Conn: &c.account, Tag: webSocketTag, Reason: reason})
	}
}

const webSocketTag = pool.Tag(protocols.WebSocket)

// handshake is the part of a recorder that only a WebSocket handshake in HTTP/1.1 needs.
type handshake struct {
	entry    entry
	reserved bool // the pool of WebSockets keeps a place for the connection
	only     bool // the listener does not serve HTTP/1.1; see onlyHandshakes
	// detached is the context of a session that may outlive the HTTP handler, with the
	// request's values. It is nil where the session may not.
	detached context.Context //nolint:containedctx // It waits for a session.
	// These are set where the handler has returned and left the session behind.
	session *websocket.Session
	serve   WebSocketHandler
}

// serveHandshake serves a WebSocket handshake in HTTP/1.1. c is nil for a request that
// came in some other way.
//
// Where no middleware runs code after the handler, the session is served by a goroutine of
// its own. Then net/http lets go of its connection, buffers and stack, and an idle
// WebSocket takes half of the memory; see TestWebSocketMemory.
func (f *front) serveHandshake(c *conn, rec *recorder1, r *http.Request) {
	h := &handshake{entry: f.books.beginHTTP(&f.books.requests.webSocket, c, r)}
	rec.handshake = h
	if f.canDetach(r) {
		h.detached = detach(r.Context())
	}
	finished := false
	defer func() {
		if h.session != nil {
			return
		}
		answered := rec.code != 0 && rec.code != http.StatusSwitchingProtocols
		if c != nil && !answered && c.account.State() != pool.StateUpgraded {
			h.fail(c) // The handler has panicked, or answered 101 and not hijacked.
		}
		f.books.endHTTP(r.Context(), &h.entry, &rec.recorder, finished)
	}()
	if h.only = !c.allowed().http1; h.only {
		rec.ResponseWriter = &onlyHandshakes{ResponseWriter: rec.ResponseWriter}
	}
	if f.reserve(c, h) {
		f.routeHandshake(f.live.Load().HTTP1.RequestTimeout, c, &rec.recorder, rec, r)
	} else {
		websocket.Refuse(rec)
	}
	if h.only && rec.code == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	rec.setStatus(http.StatusOK)
	finished = true
	if h.session != nil {
		rec.ResponseWriter = nil // It would keep net/http's connection.
		go f.serveDetached(&rec.recorder)
	}
}

// onlyHandshakes is the ResponseWriter of a handshake on a listener that does not serve
// HTTP/1.1. A handler that answers with content has not understood the handshake, so the
// client gets 426, as a request without one does. On a stream of HTTP/2 it is 405; see
// [websocket.ServeStream]. Refusals and redirections pass.
type onlyHandshakes struct {
	http.ResponseWriter
	answered, dropped bool
}

// isContent reports whether a status answers the request, as if it were no handshake.
func isContent(status int) bool {
	return status >= http.StatusOK && status < http.StatusMultipleChoices || status == http.StatusNotModified
}

// Unwrap is for [http.ResponseController].
func (w *onlyHandshakes) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (w *onlyHandshakes) WriteHeader(status int) {
	switch {
	case w.answered:
	case isContent(status):
		w.answered, w.dropped = true, true
		closes := w.Header().Get("Connection") == "close"
		clear(w.Header())
		upgradeRequired(w.ResponseWriter, "This path serves no WebSocket.", closes)
	default:
		w.answered = status >= http.StatusOK || status == http.StatusSwitchingProtocols
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements [http.ResponseWriter].
func (w *onlyHandshakes) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.dropped {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// FlushError is for [http.ResponseController].
func (w *onlyHandshakes) FlushError() error {
	w.WriteHeader(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// serveDetached serves a session whose HTTP handler has returned, as net/http would: it
// logs a panic, behind which the connection is closed.
func (f *front) serveDetached(rec *recorder) {
	h, e := rec.handshake, &rec.handshake.entry
	if e.conn != nil && e.conn.layers().tls != nil {
		growStack[[3 << 10]byte]() // 8 KB, which AES needs, and would copy when it is deep.
	} else {
		growStack[[3 << 9]byte]() // 4 KB: 4 % of ws-newconn.
	}
	defer func() {
		if v := recover(); v != nil {
			e.conn.logPanic(v)
		}
	}()
	finished := false
	defer func() { f.books.endHTTP(h.detached, e, rec, finished) }()
	h.session.Serve(h.serve)
	finished = true
}

// logPanic logs a panic that was recovered from, as net/http does.
func (c *conn) logPanic(v any) {
	if v != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so.
		c.root.backend.http1.ErrorLog.Printf("http: panic serving %v: %v\n%s", c.RemoteAddr(), v, debug.Stack())
	}
}

// canDetach reports whether no middleware stands between s and a handler of [WebSocket].
func (f *front) canDetach(r *http.Request) bool {
	h := f.webSocketHandler
	if h == nil {
		h = f.handler
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

// maxNestedRoutes is how many ServeMuxes may be mounted in each other for canDetach to look
// through them.
const maxNestedRoutes = 8

// reserve keeps a place in the pool of WebSockets until the handshake is answered, unless
// the connection is there since it was recognised. It reports false where the pool is full,
// and for a connection that has given up its place among all for another one.
func (f *front) reserve(c *conn, h *handshake) bool {
	if c != nil && c.account.IsExempt() && !c.isLocal() {
		f.books.noteRefusal(c, webSocketTag, faultLimit)
		return false
	}
	if c == nil || c.account.Tag() == webSocketTag {
		return true
	}
	h.reserved = f.books.conns.Reserve(&c.account, webSocketTag)
	if !h.reserved {
		f.books.noteRefusal(c, webSocketTag, faultPoolLimit)
	}
	return h.reserved
}

// errNoPlace is what a handler gets that hijacks the connection of a handshake when the
// pool of WebSockets is full. It can only be full if the handler has answered before.
var errNoPlace = errors.New("mux: too many WebSockets")

// succeed moves the connection to the pool of WebSockets, as it is hijacked. It reports
// false where the pool is full. c may be nil.
func (h *handshake) succeed(c *conn) bool {
	switch {
	case c == nil || c.account.Tag() == webSocketTag:
		return true
	case h.reserved:
		h.reserved = false
		c.root.books.conns.MoveReserved(&c.account, webSocketTag)
		return true
	default:
		_, full := c.root.books.conns.MoveWithin(&c.account, webSocketTag)
		return !full
	}
}

// fail has the connection of a refused handshake go on in the pool of HTTP/1.1. It reports
// false where that pool is full, so that the connection must be closed.
func (h *handshake) fail(c *conn) (goesOn bool) {
	conns := &c.root.books.conns
	if h.reserved {
		h.reserved = false
		conns.Release(webSocketTag)
	}
	if c.account.Tag() != webSocketTag {
		return true
	}
	_, full := conns.MoveWithin(&c.account, pool.Tag(protocols.HTTP1))
	return !full
}

// ReadMessage reads a message into buf and closes the connection with 1007 where
// text is not UTF-8; see [websocket.ReadMessage].
func ReadMessage(ctx context.Context, c *coder.Conn, buf *bytes.Buffer) (coder.MessageType, error) {
	return websocket.ReadMessage(ctx, c, buf)
}

// WebSocketOption is one thing that [WebSocket] and [WithWebSocket] are told.
type WebSocketOption func(*websocket.Options)

// Subprotocols names the subprotocols that the handler speaks, the one that it likes best
// first. The first of them that the client asks for is agreed on, and Subprotocol of the
// handler's connection tells which. Default: none. Browsers and node close a WebSocket
// that has asked for subprotocols and got none.
func Subprotocols(names ...string) WebSocketOption {
	names = slices.Clone(names)
	return func(o *websocket.Options) { o.Subprotocols = names }
}

// OriginPatterns names the origins, besides the request's own host, whose pages may open a
// WebSocket. Patterns are as in [path.Match], of the origin's host, or of the whole origin
// where the pattern has a scheme: "*.example.com", "https://example.com". The default is
// the key websocket.origin_patterns. It panics for a pattern that is malformed.
func OriginPatterns(patterns ...string) WebSocketOption {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			panic(fmt.Sprintf("mux: OriginPatterns: %q: %v", p, err))
		}
	}
	patterns = append([]string{}, patterns...) // Not nil, which would be the default.
	return func(o *websocket.Options) { o.OriginPatterns = patterns }
}

// Compression says whether messages are compressed where the client offers it (RFC 7692).
// The default is the key websocket.compression. It panics for any value but
// [CompressionOff], [CompressionTakeover] and [CompressionNoTakeover].
func Compression(c WebSocketCompression) WebSocketOption {
	if !slices.Contains([]WebSocketCompression{CompressionOff, CompressionTakeover, CompressionNoTakeover}, c) {
		panic(fmt.Sprintf("mux: Compression: %q", c))
	}
	return func(o *websocket.Options) { o.Compression = c }
}

// WebSocketCompression says how the messages of a WebSocket are compressed.
type WebSocketCompression = protocols.WebSocketCompression

// The values of [WebSocketCompression]. With takeover each message refers to those before
// it, which costs 1.2 MB a connection.
const (
	CompressionOff        = protocols.CompressionOff
	CompressionTakeover   = protocols.CompressionTakeover
	CompressionNoTakeover = protocols.CompressionNoTakeover
)

// webSocketOptions returns nil where no option is given.
func webSocketOptions(options []WebSocketOption) *websocket.Options {
	if len(options) == 0 {
		return nil
	}
	o := new(websocket.Options)
	for _, option := range options {
		option(o)
	}
	return o
}
