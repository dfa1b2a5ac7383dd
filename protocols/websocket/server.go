// Package websocket serves WebSockets on requests of HTTP servers: handshakes of HTTP/1.1
// (RFC 6455), and extended CONNECT on streams of HTTP/2 (RFC 8441).
package websocket

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	coder "github.com/coder/websocket"
	"golang.org/x/net/http/httpguts"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/moments"
)

// A Handler serves one WebSocket. The WebSocket is closed when the handler returns: with
// 1000 after nil, and with 1011 after an error, unless it was closed before.
//
// The context ends when the server tells the client to leave, after it has closed the
// WebSocket with 1001 (going away) behind the message that is being written. A client that
// disappears shows in the next Read or Write; a handler that only writes can use
// CloseRead. Text is not checked for UTF-8, unless the handler reads by [ReadMessage].
type Handler func(ctx context.Context, c *coder.Conn, r *http.Request) error

// The causes with which a handler's context ends.
var (
	ErrDraining = errors.New("websocket: server is draining")
	ErrTooMany  = errors.New("websocket: too many connections") // the limit has fallen
)

// An Owner is the connection that carries a WebSocket. It carries one in HTTP/1.1, and in
// HTTP/2 one on each stream. Owners are compared by ==.
type Owner interface {
	// CountMessages is told how many data messages have passed each way. The goroutines
	// that read and write call it, two of them at once at times. It must be quick.
	CountMessages(received, sent int)
	// SendQueue returns how many bytes the client's system has acknowledged, and whether
	// bytes that were written to the connection still wait to be sent, which none do when
	// the client has reset it. known is false where the system does not say.
	SendQueue() (acked uint64, unsent, known bool)
	// SentData returns how many bytes of DATA a connection of HTTP/2 has sent, on all streams.
	SentData() uint64
	// Unread returns how much of SentData the client may not have read. It is never more.
	Unread() uint64
	// WebSocketEnds is called just before a WebSocket is closed for one of the reasons
	// below, at most once for each. It must not use the WebSocket.
	WebSocketEnds(r *http.Request, reason string)
}

// The reasons that WebSocketEnds is called with.
const (
	EndedPingTimeout = "ping_timeout" // the client did not answer a ping in time
	EndedMaxAge      = "max_age"
	EndedStalled     = "write_stalled" // the client took nothing of what was sent to it
	EndedIdle        = "idle_timeout"  // no message has passed for too long
)

// Server accepts WebSockets and looks after them: it pings, ends what is too old, and
// tells clients to leave. All methods may be called concurrently.
type Server struct {
	config atomic.Pointer[config]
	logger *slog.Logger

	// mu guards what follows.
	mu       sync.Mutex
	sessions map[any]*Session // by Session.key; those of one key are linked by next
	sweeping chan struct{}    // closed to end the sweep; nil without one
}

// config is the configuration in force.
type config struct {
	protocols.WebSocketConfig

	accept coder.AcceptOptions // what it says to coder/websocket
	stall  time.Duration       // see Configure
}

func newConfig(c protocols.WebSocketConfig, stall time.Duration) *config {
	return &config{c, coder.AcceptOptions{OriginPatterns: c.OriginPatterns, CompressionMode: compressionModes[c.Compression]}, stall}
}

// New returns a Server. stall is as in [Server.Configure].
func New(c protocols.WebSocketConfig, stall time.Duration, logger *slog.Logger) *Server {
	ws := &Server{logger: logger, sessions: make(map[any]*Session)}
	ws.config.Store(newConfig(c, stall))
	return ws
}

// Configure puts other settings in force: pings and the idle timeout for open WebSockets
// too, all others for new ones. MaxConnections has no effect here. stall is how long a
// client may take no byte of what is sent to it; 0 is no bound until the WebSocket is being
// closed, and 5 minutes then. On a stream of HTTP/2 it may take as much longer as it may need
// for what its connection was sent, at 16 KiB a second, 5 minutes at most.
func (ws *Server) Configure(c protocols.WebSocketConfig, stall time.Duration) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.config.Store(newConfig(c, stall))
	ws.endSweep()
	if len(ws.sessions) > 0 {
		ws.beginSweep()
	}
}

// IsUpgrade reports whether a request asks to become a WebSocket (RFC 6455 section
// 4.2.1): in HTTP/1.1, or as [ServeStream] translates an extended CONNECT.
func IsUpgrade(r *http.Request) bool {
	// The header that hardly any other request has comes first.
	return len(r.Header["Upgrade"]) > 0 && r.Method == http.MethodGet && namesUpgrade(r.Header)
}

// namesUpgrade reports whether the two header fields of a handshake are there. Their
// tokens are ASCII (RFC 9110 section 5.6.2).
func namesUpgrade(h http.Header) bool {
	return httpguts.HeaderValuesContainsToken(h["Upgrade"], "websocket") &&
		httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade")
}

// DropForeignUpgrade removes the Upgrade field from a request of HTTP/1.1 where that field
// or Connection is not ASCII, which no list of tokens is. A server may ignore Upgrade (RFC
// 9110 section 7.8). Libraries compare the tokens by Unicode's rules, by which a long s
// equals an s: they would switch a connection that is not accounted for as a WebSocket.
func DropForeignUpgrade(h http.Header) (dropped bool) {
	if isASCII(h["Upgrade"]) && isASCII(h["Connection"]) {
		return false
	}
	delete(h, "Upgrade")
	return true
}

func isASCII(values []string) bool {
	for _, v := range values {
		for i := range len(v) {
			if v[i] >= utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

// Accept answers a handshake. It returns the open session, which the caller must Serve,
// or nil where it has refused: a request that is no handshake with 426, or 400 over
// HTTP/2, and one of a foreign origin with 403.
//
// The session's context is made from ctx. Where the session outlives the HTTP handler,
// ctx must do so too. The session keeps neither w nor net/http's connection. The owner
// and the options may be nil.
//
// w may be a middleware's. Where that does not let the connection be hijacked, the answer
// is 501.
func (ws *Server) Accept(ctx context.Context, w http.ResponseWriter, r *http.Request, owner Owner, own *Options) *Session {
	switch {
	case r.ProtoMajor >= 2 && !IsUpgrade(r):
		// A 426 has to name the protocol in Upgrade (RFC 9110 section 15.5.22),
		// which HTTP/2 does not allow (RFC 9113 section 8.2.2).
		http.Error(w, "this is for WebSockets", http.StatusBadRequest)
		return nil
	case !namesUpgrade(r.Header): // coder/websocket would compare by Unicode's rules.
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is for WebSockets", http.StatusUpgradeRequired)
		return nil
	}
	hijacked := &hijacker{ResponseWriter: w}
	options := own.over(ws.config.Load().accept)
	options.OnPingReceived = func(_ context.Context, payload []byte) bool { return hijacked.conn.answerPing(payload) }
	conn, err := coder.Accept(hijacked.asWriter(), withoutForeignHost(r), &options)
	if err != nil {
		ws.logger.Debug("websocket handshake refused", "err", brief(err))
		return nil
	}
	return ws.open(ctx, conn, hijacked.conn, r, owner)
}

// brief returns err, or an error with the beginning of its text where a client has made that
// long, by header fields or the reason of a close.
func brief(err error) (short error) {
	defer func() {
		if recover() != nil {
			short = err // A nil pointer, say; slog's handlers can show it.
		}
	}()
	text := err.Error()
	if short := protocols.Shorten(text, protocols.MaxText); short != text {
		return errors.New(short)
	}
	return err
}

// withoutForeignHost returns r, or a copy with a host that no origin has where the scheme of
// its Origin is another one. Then coder/websocket accepts only an origin that is configured.
// It compares hosts alone, so that on a port with TLS a page that came in plaintext, which
// anyone on the way may have written, would pass for a page of this server.
//
// Without TLS all four schemes pass, because a proxy in front may have ended the TLS. The
// WebSocket schemes are those of clients that make the field of the address which they dial.
func withoutForeignHost(r *http.Request) *http.Request {
	scheme, _, found := strings.Cut(r.Header.Get("Origin"), "://")
	switch scheme = strings.ToLower(scheme); {
	case !found, scheme == "https", scheme == "wss":
		return r
	case r.TLS == nil && (scheme == "http" || scheme == "ws"):
		return r
	}
	foreign := *r
	foreign.Host = " " // Not empty, which the host of file:// is.
	return &foreign
}

// open returns the session of an accepted WebSocket. It is not inlined: with a frame of
// Accept as big as both, net/http's goroutine would grow its stack to 16 KB in Hijack,
// which costs 4 % of ws-newconn.
//
//go:noinline
func (ws *Server) open(ctx context.Context, conn *coder.Conn, raw *watchedConn, r *http.Request, owner Owner) *Session {
	c := ws.config.Load()
	conn.SetReadLimit(c.ReadLimit)
	now := time.Now()
	s := &Session{server: ws, conn: conn, raw: raw, owner: owner, ends: protocols.AgeLimit(now, c.MaxAge), heard: now, exchanged: now}
	ctx, s.cancel = context.WithCancelCause(ctx)
	s.request = r.WithContext(ctx)
	raw.own(owner, r.ProtoMajor != 1)
	if owner != nil && r.ProtoMajor != 1 { // Of what the connection was sent before, what is not read counts.
		unread := owner.Unread()
		s.written = owner.SentData() - unread
	}
	ws.add(s)
	return s
}

// Refuse answers a handshake for which there is no place with 503.
func Refuse(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "too many WebSockets", http.StatusServiceUnavailable)
}

// add puts a session on the list.
func (ws *Server) add(s *Session) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	s.next = ws.sessions[s.key()]
	ws.sessions[s.key()] = s
	ws.beginSweep()
}

func (ws *Server) remove(s *Session) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if first := ws.sessions[s.key()]; first != s {
		for first.next != s {
			first = first.next
		}
		first.next = s.next
		return
	}
	if s.next != nil {
		ws.sessions[s.key()] = s.next
		return
	}
	delete(ws.sessions, s.key())
	if len(ws.sessions) == 0 {
		ws.endSweep()
	}
}

// all returns the open sessions. The caller holds mu.
func (ws *Server) all() iter.Seq[*Session] {
	return func(yield func(*Session) bool) {
		for _, s := range ws.sessions {
			for ; s != nil; s = s.next {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// Leave tells the clients of an owner's WebSockets to leave, with 1001, and returns how
// many WebSockets the owner has. It does not wait for them. A WebSocket that is being
// closed already is not told again.
func (ws *Server) Leave(owner Owner) (open int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for s := ws.sessions[owner]; s != nil; s = s.next {
		open++
		s.beginLeave(coder.StatusGoingAway, "")
	}
	return open
}

// CloseExcess closes n WebSockets with 1013 (try again later), because so many more have
// places than a limit allows that has fallen. Those that are being closed already, or whose
// handlers have not returned yet, count among them. It does not wait for them.
func (ws *Server) CloseExcess(n int) {
	if n <= 0 {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ends := func(s *Session) bool { return s.leaving.Load() || s.raw.out.closed.Load() }
	for s := range ws.all() {
		if ends(s) {
			n--
		}
	}
	for s := range ws.all() {
		if n > 0 && !ends(s) {
			n--
			s.beginLeave(coder.StatusTryAgainLater, "")
		}
	}
}

// Cut ends the contexts of all handlers, for a server whose connections are being cut.
func (ws *Server) Cut() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for s := range ws.all() {
		s.cancel(ErrDraining)
	}
}

// beginSweep starts the sweep if it does not run. The caller holds mu.
func (ws *Server) beginSweep() {
	if ws.sweeping == nil {
		ws.sweeping = make(chan struct{})
		go ws.sweep(ws.sweeping)
	}
}

// sweepEvery returns the time between two sweeps.
func (c *config) sweepEvery() time.Duration {
	pong := c.PongTimeout
	if c.PingInterval <= 0 {
		pong = 0 // There is none to wait for.
	}
	return moments.SweepEvery(c.closeStall(), c.PingInterval, pong, c.IdleTimeout, c.MaxAge)
}

// closeStallLongest is how long a client may take no byte of a WebSocket that is being
// closed, where stall is no bound. A client that reads 2 KB a second may take none for a
// minute; see package pool's StallWatch.
const closeStallLongest = 5 * time.Minute

// closeStall is stall for a WebSocket that is being closed, which always has a bound.
func (c *config) closeStall() time.Duration { return cmp.Or(c.stall, closeStallLongest) }

// endSweep ends the sweep. The caller holds mu.
func (ws *Server) endSweep() {
	if ws.sweeping != nil {
		close(ws.sweeping)
		ws.sweeping = nil
	}
}

// sweep checks all sessions from time to time until done is closed, so that none of them
// needs a timer.
func (ws *Server) sweep(done <-chan struct{}) {
	tick := time.NewTicker(ws.config.Load().sweepEvery())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-done:
			return
		}
		now := time.Now()
		ws.mu.Lock()
		for s := range ws.all() {
			s.check(now)
		}
		ws.mu.Unlock()
	}
}
