package mux

import (
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/muxserve/muxserve/pool"
	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/websocket"
)

// front is the root handler of every HTTP server here: whatever a connection was recognised
// as, any of its requests is served as what it is.
type front struct {
	books            *books
	departures       *departures
	live             *reloader
	backend          func() *backend // in use, for requests that came in some other way
	handler          http.Handler
	takesCalls       bool                    // the handler gets the calls that grpc-go does not have
	webSocketHandler http.Handler            // of handshakes on every path; nil: they are requests like any other
	probes           map[string]http.Handler // by path; nil where the handler has these paths
}

// ServeHTTP implements [http.Handler].
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := connOf(r.Context())
	if ok {
		if state := c.TLSState(); state != nil {
			r.TLS = state
		}
	}
	if r.ProtoMajor == 2 && !isPreface(w, r) {
		f.serveHTTP2(c, w, r)
	} else {
		f.serveHTTP1(c, w, r)
	}
}

// isLastRequest reports whether the connection is to be left after this request: it has reached
// its age, or had all its requests but this one.
func (c *conn) isLastRequest(maxRequests uint64) bool {
	return c != nil && !c.isTold() && (maxRequests > 0 && c.account.Requests()+1 >= maxRequests || c.overAge() >= 0)
}

// leaveDone has a connection leave after the last of its requests. Only its age bounds those by
// a grace.
func (d *departures) leaveDone(c *conn, ageGrace time.Duration) {
	if c.overAge() >= 0 {
		d.leaveNow(c, reasonAge, ageGrace)
	} else {
		d.leaveNow(c, reasonRequests, 0)
	}
}

// backendOf returns the servers of a request's connection. c is nil for a request that came
// in some other way.
func (f *front) backendOf(c *conn) *backend {
	if c == nil {
		return f.backend()
	}
	return c.root.backend
}

func (f *front) serveHTTP2(c *conn, w http.ResponseWriter, r *http.Request) {
	if c.isBeyondLast(w) {
		panic(http.ErrAbortHandler)
	}
	if c != nil {
		running := &c.http2().running
		running.Add(1)
		defer running.Add(-1)
	}
	if h2 := &f.live.Load().HTTP2; c.isLastRequest(h2.MaxRequests) {
		f.departures.leaveDone(c, h2.MaxAgeGrace)
	}
	if c.isTold() && !c.isHTTP2() {
		w.Header().Set("Connection", "close") // It was upgraded; x/net's server answers this with GOAWAY.
	}
	isCall := isGRPC(r) && c.allowed().grpc
	if servers, path := f.backendOf(c).grpc, protocols.CallPath(r); isCall && (!f.takesCalls || servers.Serves(path)) {
		if servers.HasMethod(path) {
			serveSharedCall(servers, w, r) // What is registered with it books the call.
			return
		}
		e := f.books.beginHTTP(&f.books.requests.grpc, c, r)
		defer f.books.endHandledCall(r.Context(), &e, codes.Unimplemented)
		serveSharedCall(servers, w, r)
		return
	}
	book, serve := &f.books.requests.http2, f.route
	if websocket.IsExtendedConnect(r) {
		book, serve = &f.books.requests.webSocket, f.serveExtendedConnect
	}
	deny := c.denial(r)
	if deny != nil {
		serve = deny
	}
	rec := &recorder2{recorder: recorder{ResponseWriter: w}}
	if c != nil {
		exchanges := &c.http2().exchanges
		rec.begin(exchanges, w, r)
		defer rec.end(exchanges)
		if book.protocol == protocols.WebSocket {
			rec.length = 0                               // What comes is no body.
			rec.accepted = func() { rec.end(exchanges) } // It has its own pings then.
		}
	}
	if isCall {
		f.serveHandledCall(c, rec, r)
		return
	}
	if limit := f.live.Load().HTTP2.RequestTimeout; limit > 0 && book.protocol == protocols.HTTP2 && deny == nil {
		over := time.Now().Add(limit)
		f.books.countHTTP(book, c, &rec.recorder, rec, r, f.timed(limit, c, &rec.recorder, f.route))
		rec.discard(c, over)
		return
	}
	f.books.countHTTP(book, c, &rec.recorder, rec, r, serve)
	rec.discard(c, time.Time{})
}

// isBeyondLast reports whether the client of the connection, which may be nil, was told that
// the stream of a response is not served. net/http does not know of that.
func (c *conn) isBeyondLast(w http.ResponseWriter) bool {
	if !c.isTold() {
		return false
	}
	stream, ok := protocols.StreamOfResponse(w)
	return ok && c.IsBeyondLast(stream)
}

// serveExtendedConnect serves a WebSocket on a stream as an HTTP/1.1 handshake. The
// connection stays in its pool, because other streams share it, and the stream takes a
// place among the WebSockets.
func (f *front) serveExtendedConnect(w http.ResponseWriter, r *http.Request) {
	c, _ := connOf(r.Context())
	if !f.backendOf(c).config.HTTP2.WebSocket {
		websocket.RefuseExtendedConnect(w)
		return
	}
	if c != nil {
		if !f.books.conns.Reserve(&c.account, webSocketTag) {
			f.books.noteRefusal(c, webSocketTag, faultPoolLimit)
			websocket.Refuse(w)
			return
		}
		defer f.books.conns.Release(webSocketTag)
	}
	rec, limit := w.(*recorder2), f.live.Load().HTTP2.RequestTimeout //nolint:forcetypeassert // See serveHTTP2.
	websocket.ServeStream(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.routeHandshake(limit, c, &rec.recorder, w, r)
	}))
}

// routeHandshake passes a handshake to the handler of [WithWebSocket], or else routes it as
// a request. It has the time of a request until it is hijacked. A handler of [WebSocket]
// answers at once, so it is called directly where no middleware stands above it.
func (f *front) routeHandshake(limit time.Duration, c *conn, rec *recorder, w http.ResponseWriter, r *http.Request) {
	serve := f.route
	if f.webSocketHandler != nil {
		serve = f.webSocketHandler.ServeHTTP
	}
	if limit > 0 && !f.canDetach(r) {
		serve = f.timed(limit, c, rec, serve)
	}
	serve(w, r)
}

func (f *front) serveHTTP1(c *conn, w http.ResponseWriter, r *http.Request) {
	// Hardly any request does.
	upgrades := len(r.Header["Upgrade"]) > 0 && !websocket.DropForeignUpgrade(r.Header)
	switch h1 := &f.live.Load().HTTP1; {
	case !c.isLastRequest(h1.MaxRequests):
	case !upgrades:
		f.departures.leaveDone(c, h1.MaxAgeGrace)
	case c.overAge() < 0: // Its answer tells it, if it has one. The sweep tells those that are too old.
		c.markLast()
	}
	if c.isTold() {
		w.Header().Set("Connection", "close")
		c.boundLast(f.live.Load().HTTP1.MaxAgeGrace)
	}
	rec := &recorder1{recorder: recorder{ResponseWriter: w, conn: c}}
	if c != nil && r.ContentLength != 0 {
		watch, own := &c.ensureRare().body, r
		r, rec.upload = watch.begin(c, r)
		rec.watched = &watch.bodyWatch
		defer func() {
			own.MultipartForm = r.MultipartForm // net/http removes its files.
			rec.upload.late.Store(true)
			watch.handled()
			if rest := rec.upload.endLimited(w) || watch.over.Load(); rest && c.account.State() != pool.StateUpgraded {
				_ = c.SetReadDeadline(time.Now().Add(restTime))
			}
		}()
	}
	if upgrades && !isGeneralOptions(r) && f.mayUpgradeH2C(c) && protocols.IsH2CUpgrade(r) && f.books.conns.Reserve(&c.account, http2Tag) {
		f.upgradeH2C(c, w, r)
		return
	}
	if deny := c.denial(r); deny != nil {
		f.books.countHTTP(&f.books.requests.http1, c, &rec.recorder, rec, r, deny)
		return
	}
	if !upgrades || !websocket.IsUpgrade(r) {
		if c != nil && !new(handshake).fail(c) { // Its first bytes asked for a WebSocket.
			w.Header().Set("Connection", "close")
		}
		if limit := f.live.Load().HTTP1.RequestTimeout; limit > 0 {
			f.books.countHTTP(&f.books.requests.http1, c, &rec.recorder, rec, r, f.timed(limit, c, &rec.recorder, f.route))
		} else {
			f.books.countHTTP(&f.books.requests.http1, c, &rec.recorder, rec, r, f.route)
		}
		return
	}
	f.serveHandshake(c, rec, r)
}

// mayUpgradeH2C reports whether a connection may go on in HTTP/2. With TLS, ALPN has chosen
// the protocol (RFC 7540 section 3.2). During a drain there is no upgrade, nor for a client
// that was told to leave.
func (f *front) mayUpgradeH2C(c *conn) bool {
	a := c.allowed()
	return f.backendOf(c).h2c != nil && a.http1 && a.http2 && c != nil && c.TLSState() == nil && !c.isTold() && !f.departures.telling.Load()
}

const http2Tag = pool.Tag(protocols.HTTP2)

// upgradeH2C serves a request that asks for HTTP/2, and the connection behind it, for
// which the pool of HTTP/2 keeps a place.
func (f *front) upgradeH2C(c *conn, w http.ResponseWriter, r *http.Request) {
	m := c.ensureRare()
	m.h2cPlace.Store(true)
	defer func() {
		if m.h2cPlace.CompareAndSwap(true, false) {
			f.books.conns.Release(http2Tag) // It was not upgraded.
		}
	}()
	f.backendOf(c).h2c.ServeHTTP(w, r) // Its streams come here again.
}

// h2cUpgraded moves a connection that has become HTTP/2 to its pool.
func (f *front) h2cUpgraded(r *http.Request, u *protocols.UpgradedConn) {
	if c, ok := connOf(r.Context()); ok && c.ensureRare().h2cPlace.CompareAndSwap(true, false) {
		c.http2().upgraded.Store(u)
		f.books.conns.MoveReserved(&c.account, http2Tag)
		c.setDue(protocols.AgeLimit(c.account.Opened(), f.live.Load().HTTP2.MaxAge))
	}
}

// h2cResets bounds the resets on a connection that is becoming HTTP/2.
func (f *front) h2cResets(r *http.Request) (perMinute int, onFlood func()) {
	c, ok := connOf(r.Context())
	if !ok {
		return 0, nil
	}
	return f.live.Load().HTTP2.MaxResetsPerMinute, func() { f.departures.leaveFlood(c) }
}

// route answers "OPTIONS *" and the health paths, and leaves the rest to the embedder's
// handler.
func (f *front) route(w http.ResponseWriter, r *http.Request) {
	if isGeneralOptions(r) {
		answerGeneralOptions(w, r)
		return
	}
	if probe, ok := f.probes[r.URL.Path]; ok {
		probe.ServeHTTP(w, r)
		return
	}
	f.handler.ServeHTTP(w, r)
}

// isPreface reports whether a request is the beginning of HTTP/2's preface on a connection of
// HTTP/1.1, which net/http passes on so that a handler can hijack it.
func isPreface(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != "PRI" {
		return false
	}
	_, ok := w.(http.Hijacker)
	return ok
}

// isGeneralOptions reports whether a request is "OPTIONS *", about the server as a whole
// (RFC 9110 section 9.3.7).
func isGeneralOptions(r *http.Request) bool {
	return r.RequestURI == "*" && r.Method == http.MethodOptions
}

// maxOptionsBody is how much of the body of "OPTIONS *" is read, as in net/http.
const maxOptionsBody = 4 << 10

// answerGeneralOptions answers "OPTIONS *" as net/http does in front of its handler. There
// nothing would bound how long the body may take.
func answerGeneralOptions(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "0")
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, r.Body, maxOptionsBody)
		_, _ = io.Copy(io.Discard, r.Body)
	}
}
