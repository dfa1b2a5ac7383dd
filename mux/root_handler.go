package mux

import (
	"net/http"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// serveHTTP is the root handler of every HTTP server here: whatever a connection
// was recognised as, any of its requests is served as what it is.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := connOf(r.Context())
	if ok {
		if state := c.TLSState(); state != nil {
			r.TLS = state
		}
	}
	if r.ProtoMajor == 2 {
		s.serveHTTP2(c, w, r)
	} else {
		s.serveHTTP1(c, w, r)
	}
}

// isDone reports whether the connection is to be left after this request: it has reached
// its age, or had all its requests but this one.
func (c *conn) isDone(maxRequests uint64) bool {
	return c != nil && !c.isTold() && (maxRequests > 0 && c.account.Requests()+1 >= maxRequests || c.overAge() >= 0)
}

// doneReason returns why a connection is done.
func (c *conn) doneReason() string {
	if c.overAge() >= 0 {
		return reasonAge
	}
	return reasonRequests
}

// backendOf returns the servers of a request's connection, which is nil for one that came in some other way.
func (s *Server) backendOf(c *conn) *backend {
	if c == nil {
		return s.backend.Load()
	}
	return c.root.backend
}

func (s *Server) serveHTTP2(c *conn, w http.ResponseWriter, r *http.Request) {
	if c != nil {
		running := &c.http2().running
		running.Add(1)
		defer running.Add(-1)
	}
	if h2 := &s.live.Load().HTTP2; c.isDone(h2.MaxRequests) {
		s.departures.leaveNow(c, c.doneReason(), h2.MaxAgeGrace)
	}
	if c.isTold() && !c.isHTTP2() {
		w.Header().Set("Connection", "close") // It was upgraded; x/net's server answers this with GOAWAY.
	}
	if isGRPC(r) && c.allowed().grpc {
		s.backendOf(c).grpc.Shared.ServeHTTP(w, r) // Its interceptors book the call.
		return
	}
	book, serve := &s.requests.http2, s.route
	if websocket.IsExtendedConnect(r) {
		book, serve = &s.requests.webSocket, s.serveExtendedConnect
	}
	if deny := c.denial(r); deny != nil {
		serve = deny
	}
	rec := &recorder2{recorder: recorder{ResponseWriter: w}}
	if c != nil && book.protocol == protocols.HTTP2 { // A WebSocket has its own pings.
		rec.begin(&c.http2().exchanges, w, r)
		defer rec.end(&c.http2().exchanges)
	}
	s.countHTTP(book, c, &rec.recorder, rec, r, serve)
}

// serveExtendedConnect serves a WebSocket on a stream as the handshake of
// HTTP/1.1 that it stands for. The connection stays where it is: other streams share it.
func (s *Server) serveExtendedConnect(w http.ResponseWriter, r *http.Request) {
	c, _ := connOf(r.Context())
	if !s.backendOf(c).config.HTTP2.WebSocket {
		websocket.RefuseExtendedConnect(w)
		return
	}
	websocket.ServeStream(w, r, http.HandlerFunc(s.routeHandshake))
}

// routeHandshake leaves a WebSocket handshake to the handler for all of them, or to where it is mounted.
func (s *Server) routeHandshake(w http.ResponseWriter, r *http.Request) {
	if s.webSocketHandler != nil {
		s.webSocketHandler.ServeHTTP(w, r)
		return
	}
	s.route(w, r)
}

func (s *Server) serveHTTP1(c *conn, w http.ResponseWriter, r *http.Request) {
	upgrades := len(r.Header["Upgrade"]) > 0 // Hardly any request does.
	if h1 := &s.live.Load().HTTP1; !upgrades && c.isDone(h1.MaxRequests) {
		s.departures.leaveNow(c, c.doneReason(), h1.MaxAgeGrace)
	}
	if c.isTold() {
		w.Header().Set("Connection", "close")
	}
	if upgrades && s.mayUpgradeH2C(c) && protocols.IsH2CUpgrade(r) {
		s.backendOf(c).h2c.ServeHTTP(w, r) // Its streams come here again.
		return
	}
	if c != nil && r.ContentLength != 0 {
		body := &c.rare().body
		body.begin(r)
		defer body.handled()
	}
	rec := &recorder1{recorder: recorder{ResponseWriter: w, conn: c}}
	if deny := c.denial(r); deny != nil {
		s.countHTTP(&s.requests.http1, c, &rec.recorder, rec, r, deny)
		return
	}
	if !upgrades || !websocket.IsUpgrade(r) {
		s.countHTTP(&s.requests.http1, c, &rec.recorder, rec, r, s.route)
		return
	}
	s.serveHandshake(c, rec, r)
}

// mayUpgradeH2C reports whether a connection may go on in HTTP/2: never one with
// TLS, where ALPN has chosen (RFC 7540 section 3.2), nor one that is told to leave.
func (s *Server) mayUpgradeH2C(c *conn) bool {
	a := c.allowed()
	return s.backendOf(c).h2c != nil && a.http1 && a.http2 && c != nil && c.TLSState() == nil && !s.departures.draining.Load()
}

// h2cUpgraded moves a connection that has become HTTP/2 to its pool.
func h2cUpgraded(r *http.Request) {
	if c, ok := connOf(r.Context()); ok {
		c.root.server.conns.Move(&c.account, pool.Tag(protocols.HTTP2))
		c.setDue(protocols.AgeLimit(c.account.Opened(), c.root.server.maxAge(pool.Tag(protocols.HTTP2))))
	}
}

// route answers the health paths and leaves the rest to the embedder's handler.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	if s.healthPaths {
		switch r.URL.Path {
		case "/livez":
			s.livez.ServeHTTP(w, r)
			return
		case "/readyz":
			s.readyz.ServeHTTP(w, r)
			return
		}
	}
	s.handler.ServeHTTP(w, r)
}
