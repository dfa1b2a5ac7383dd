package protocols

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http/httpguts"
)

// WebSocketHandler serves one WebSocket. The connection is closed when it
// returns: with 1000 after nil, and with 1011 after an error, unless it was closed before.
//
// The context ends when the server drains; then the connection has been closed with
// 1001 (going away). That the peer is gone shows in the next Read or Write; a
// handler that only writes can have it watched by CloseRead. Whether text is UTF-8 is
// not checked, unless the handler reads by [ReadMessage].
type WebSocketHandler func(ctx context.Context, c *websocket.Conn, r *http.Request) error

// ErrDraining is the cause of a WebSocket handler's context when the server drains.
var ErrDraining = errors.New("protocols: server is draining")

// ErrTooMany is the cause of a WebSocket handler's context when its connection
// is closed because a limit has fallen.
var ErrTooMany = errors.New("protocols: too many connections")

// retryAfter is what a client that is refused for now is told to wait, in seconds (RFC 9110 section 10.2.3).
const retryAfter = "1"

// WebSockets serves WebSockets on requests of HTTP servers, and can tell all of
// them to leave. All methods may be called concurrently.
type WebSockets struct {
	config atomic.Pointer[WebSocketConfig]
	logger *slog.Logger
	hooks  WebSocketHooks

	// mu guards what follows.
	mu       sync.Mutex
	sessions map[*session]struct{}
	// sweeping is closed to end the goroutine that looks after the sessions; nil without one.
	sweeping  chan struct{}
	draining  context.Context // Drain's; nil before
	drainedBy time.Time       // when the spread is over
	limit     int             // as CloseExcess was told last; 0 for none
	// empty is closed when the last session ends while draining.
	empty chan struct{}
}

// IsWebSocketUpgrade reports whether a request asks to become a WebSocket (RFC 6455 section 4.2.1): one
// of HTTP/1.1, or one that [ServeWebSocketStream] has made of an extended CONNECT.
func IsWebSocketUpgrade(r *http.Request) bool {
	// The header that hardly any other request has comes first.
	upgrade := r.Header["Upgrade"]
	return len(upgrade) > 0 && r.Method == http.MethodGet &&
		httpguts.HeaderValuesContainsToken(upgrade, "websocket") &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade")
}

// WebSocketHooks tell the owner of a WebSockets about each of them. Any may be nil.
type WebSocketHooks struct {
	// Reserve is asked before a handshake is accepted; false refuses it with 503.
	Reserve func(*http.Request) bool
	// Release gives back what Reserve took, when the handshake comes to nothing.
	Release func(*http.Request)
	// Opened is called when the request has become a WebSocket, before its handler.
	Opened func(*http.Request)
	// Counter is asked once, behind Opened, for a function that is told how many data messages
	// have passed each way; nil for none. The function is called by the goroutines that read and write, two of
	// them at once at times, and has to be quick. Pings, pongs and close frames are no messages.
	Counter func(*http.Request) func(received, sent int)
	// Ended is called at most once, with EndedPingTimeout or EndedMaxAge, just before a WebSocket is closed
	// for that reason. It must not use the WebSocket. Over HTTP/2 the stream is what is closed, and the connection goes on.
	Ended func(r *http.Request, reason string)
}

// Why a WebSocket was ended, as [WebSocketHooks].Ended is told.
const (
	EndedPingTimeout = "ping_timeout" // its peer did not answer a ping in time
	EndedMaxAge      = "max_age"      // it reached its age
)

// session is one open WebSocket.
type session struct {
	conn    *websocket.Conn
	raw     *watchedConn
	request *http.Request
	ctx     context.Context //nolint:containedctx // The handler's.
	cancel  context.CancelCauseFunc
	ends    time.Time // when it has reached its age; zero for never
	pinged  atomic.Pointer[awaited]
	leaving atomic.Bool // it is being closed, and the sweep lets it be
	// seen is how many reads the last sweep has seen, and heard the time of the first that saw so many. Guarded by WebSockets.mu.
	seen  uint32
	heard time.Time
}

// NewWebSockets returns a WebSockets.
func NewWebSockets(c WebSocketConfig, logger *slog.Logger, hooks WebSocketHooks) *WebSockets {
	ws := &WebSockets{
		logger:   logger,
		hooks:    hooks,
		sessions: make(map[*session]struct{}),
		empty:    make(chan struct{}),
	}
	ws.config.Store(&c)
	return ws
}

func (ws *WebSockets) settings() *WebSocketConfig { return ws.config.Load() }

// Configure puts other settings in force: those of pings for the WebSockets that are open as well, all others
// for the ones that come. The number of connections is not bounded here.
func (ws *WebSockets) Configure(c WebSocketConfig) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.config.Store(&c)
	if ws.sweeping != nil {
		close(ws.sweeping)
		ws.sweeping = nil
	}
	if len(ws.sessions) > 0 {
		ws.beginSweep()
	}
}

// Handler returns an HTTP handler that accepts the WebSocket handshake and
// serves it with h. A request that is no handshake is answered 426, or 400 over
// HTTP/2; one of a foreign origin 403.
func (ws *WebSockets) Handler(h WebSocketHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor >= 2 && !IsWebSocketUpgrade(r) {
			// A 426 has to name the protocol in Upgrade (RFC 9110 section 15.5.22),
			// which HTTP/2 does not allow (RFC 9113 section 8.2.2).
			http.Error(w, "this is for WebSockets", http.StatusBadRequest)
			return
		}
		if ws.hooks.Reserve != nil && !ws.hooks.Reserve(r) {
			RefuseWebSocket(w)
			return
		}
		keeper := &hijackKeeper{ResponseWriter: w}
		conn, err := websocket.Accept(keeper, r, &websocket.AcceptOptions{
			OriginPatterns:  ws.settings().OriginPatterns,
			CompressionMode: ws.settings().Compression.mode(),
		})
		if err != nil {
			if ws.hooks.Release != nil {
				ws.hooks.Release(r)
			}
			ws.logger.Debug("websocket handshake refused", "err", err)
			return
		}
		s := ws.newSession(conn, keeper.conn, r)
		if u := upgradeWriterOf(w); u != nil && u.ended != nil && u.passage == nil {
			u.header = nil // It was sent, and nobody is there to look at it.
			u.session = func() { ws.serve(s, h) }
			return
		}
		ws.serve(s, h)
	})
}

// RefuseWebSocket answers a handshake for which there is no place.
func RefuseWebSocket(w http.ResponseWriter) {
	w.Header().Set("Retry-After", retryAfter)
	http.Error(w, "too many WebSockets", http.StatusServiceUnavailable)
}

// mode translates the setting to coder/websocket.
func (c WebSocketCompression) mode() websocket.CompressionMode {
	switch c {
	case CompressionTakeover:
		return websocket.CompressionContextTakeover
	case CompressionNoTakeover:
		return websocket.CompressionNoContextTakeover
	default:
		return websocket.CompressionDisabled
	}
}

// newSession returns the session of a WebSocket whose handshake is done.
func (ws *WebSockets) newSession(conn *websocket.Conn, raw *watchedConn, r *http.Request) *session {
	conn.SetReadLimit(ws.settings().ReadLimit)
	now := time.Now()
	s := &session{conn: conn, raw: raw, request: r, ends: AgeLimit(now, ws.settings().MaxAge), heard: now}
	s.ctx, s.cancel = context.WithCancelCause(r.Context())
	raw.closing = func() { ws.checkClosing(s) }
	if ws.hooks.Opened != nil {
		ws.hooks.Opened(r)
	}
	if ws.hooks.Counter != nil {
		raw.messages = ws.hooks.Counter(r)
	}
	ws.add(s)
	return s
}

// serve serves a session. It is above the handler for as long as that runs, so its frame is small.
func (ws *WebSockets) serve(s *session, h WebSocketHandler) {
	defer ws.end(s)
	ws.finish(s, h(s.ctx, s.conn, s.request))
}

// finish closes the connection as the handler has wished that has returned err.
func (ws *WebSockets) finish(s *session, err error) {
	s.leaving.Store(true)
	switch {
	case err == nil:
		err = s.close(websocket.StatusNormalClosure, "", closeWait)
	case websocket.CloseStatus(err) == -1 && s.ctx.Err() == nil:
		ws.logger.Debug("websocket handler failed", "err", err)
		// After an error it may be that no answer can come.
		err = s.close(websocket.StatusInternalError, "", failedWait)
	}
	if err != nil {
		ws.logger.Debug("websocket closed", "err", err)
	}
}

// end is deferred around the handler: one that panics must not leave the connection open.
func (ws *WebSockets) end(s *session) {
	_ = s.conn.CloseNow() // The error would be that it was closed before.
	ws.remove(s)
	s.cancel(nil)
}

// failedWait is how long a client may take to answer the close frame that follows
// a handler's error. RFC 6455, section 7.1.7, asks for no wait at all; a short one
// lets the frame arrive before the kernel resets a connection with unread bytes.
const failedWait = 500 * time.Millisecond

// closeWait bounds a close in every case: coder/websocket gives the close frame 5 s to be
// sent and the answer another 5 s to come, but waits without a bound for the rest of a message before it.
const closeWait = 10 * time.Second

func (s *session) close(code websocket.StatusCode, reason string, wait time.Duration) error {
	_ = s.raw.SetReadDeadline(time.Now().Add(wait))
	return s.conn.Close(code, reason)
}

// leave closes the connection and gives the peer up to 5 s to answer, and only
// then ends the handler's context: an ended context would cut the connection
// without a close frame.
func (s *session) leave(code websocket.StatusCode) {
	s.leaving.Store(true)
	reason, cause := "server is going away", ErrDraining
	if code == websocket.StatusTryAgainLater {
		reason, cause = "too many WebSockets", ErrTooMany
	}
	_ = s.close(code, reason, closeWait)
	s.cancel(cause)
}

// CloseExcess closes so many WebSockets with 1013 (try again later) that limit of them are left, because the limit
// has fallen below what is open. It does not wait for them. Those on streams of HTTP/2 connections have no
// place in the limit, and stay. 0 is no limit.
func (ws *WebSockets) CloseExcess(limit int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.limit = limit; limit > 0 {
		ws.closeExcess()
	}
}

// closeExcess is CloseExcess for a caller that holds mu.
func (ws *WebSockets) closeExcess() {
	left := 0
	for s := range ws.sessions {
		if s.request.ProtoMajor != 1 || s.leaving.Load() {
			continue
		}
		if left++; left > ws.limit && s.leaving.CompareAndSwap(false, true) {
			go s.leave(websocket.StatusTryAgainLater)
		}
	}
}

// add puts a session on the list. One that comes during a drain is told to leave as well, in what is left of the spread: its
// client was let in, or kept, before it could know.
func (ws *WebSockets) add(s *session) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.sessions[s] = struct{}{}
	ws.beginSweep()
	if ws.limit > 0 && len(ws.sessions) > ws.limit {
		ws.closeExcess() // The limit has fallen during the handshake.
	}
	if ws.draining != nil {
		wait := time.Duration(rand.Float64() * float64(time.Until(ws.drainedBy))) //nolint:gosec // A herd is spread, no secret is made.
		go s.leaveAfter(ws.draining, wait)
	}
}

// beginSweep has the sessions looked after, if there is anything to look for. The caller holds mu.
func (ws *WebSockets) beginSweep() {
	if c := ws.settings(); ws.sweeping == nil && (c.PingInterval > 0 || c.MaxAge > 0) {
		ws.sweeping = make(chan struct{})
		go ws.sweep(ws.sweeping)
	}
}

func (ws *WebSockets) remove(s *session) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.sessions, s)
	if len(ws.sessions) > 0 {
		return
	}
	if ws.sweeping != nil {
		close(ws.sweeping)
		ws.sweeping = nil
	}
	if ws.draining != nil {
		ws.closeEmpty()
	}
}

// Cut ends the contexts of all handlers, for a server whose connections are being cut.
func (ws *WebSockets) Cut() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for s := range ws.sessions {
		s.cancel(ErrDraining)
	}
}

// closeEmpty may be called more than once, because a late session can come and go.
func (ws *WebSockets) closeEmpty() {
	select {
	case <-ws.empty:
	default:
		close(ws.empty)
	}
}

// Drain tells every WebSocket to leave, those that come later included, each at a
// random moment within spread. It waits until all are gone, or until ctx ends;
// then those that are left are told at once and it returns ctx's error.
func (ws *WebSockets) Drain(ctx context.Context, spread time.Duration) error {
	ws.mu.Lock()
	ws.draining, ws.drainedBy = ctx, time.Now().Add(spread)
	ws.tell(ctx, spread, func(*http.Request) bool { return true })
	if len(ws.sessions) == 0 {
		ws.closeEmpty()
	}
	ws.mu.Unlock()
	select {
	case <-ws.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave tells those open WebSockets to leave whose request which accepts, each at a random moment within
// spread, and at once when ctx ends. It does not wait for them, and returns how many they are.
func (ws *WebSockets) Leave(ctx context.Context, spread time.Duration, which func(*http.Request) bool) int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.tell(ctx, spread, which)
}

// tell is Leave for a caller that holds mu. The sessions come in no particular order, and each has its
// own part of the spread, so that no moment is crowded by chance.
func (ws *WebSockets) tell(ctx context.Context, spread time.Duration, which func(*http.Request) bool) int {
	var told []*session
	for s := range ws.sessions {
		if which(s.request) {
			told = append(told, s)
		}
	}
	for i, s := range told {
		at := time.Duration((float64(i) + rand.Float64()) / float64(len(told)) * float64(spread)) //nolint:gosec // A herd is spread, no secret is made.
		go s.leaveAfter(ctx, at)
	}
	return len(told)
}

func (s *session) leaveAfter(ctx context.Context, wait time.Duration) {
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	s.leave(websocket.StatusGoingAway)
}
