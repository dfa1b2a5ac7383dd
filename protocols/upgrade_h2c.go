package protocols

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c" //nolint:staticcheck // Deprecated with the upgrade itself (RFC 9113 section 3.1), which net/http does not have.

	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// maxUpgradeBody bounds the body of a request that asks for the upgrade, which is
// held in memory: the connection can speak HTTP/2 only when all of it has been
// read. 64 KiB is about what HTTP/2 lets a client send before it is answered
// (RFC 9113 section 6.9.2).
const maxUpgradeBody = 64 << 10

// H2CUpgrades turns HTTP/1.1 connections into HTTP/2 ones at a client's request (RFC 7540
// section 3.2; RFC 9113 has given the upgrade up). It is not for connections with TLS,
// where the protocol is chosen by ALPN. All methods may be called concurrently.
type H2CUpgrades struct {
	handler  http.Handler
	upgrade  http.Handler
	upgraded func(*http.Request, *UpgradedConn)
	resets   func(*http.Request) (perMinute int, onFlood func())
	state    func(net.Conn, http.ConnState)
	// server never listens. It holds the limits of the connections, and by its
	// Shutdown x/net's server is told to send GOAWAY to all of them.
	server   *http.Server
	draining atomic.Bool
}

// IsH2CUpgrade reports whether an HTTP/1.1 request asks to go on in HTTP/2, in
// the one form that may be followed (RFC 7540 section 3.2.1): with exactly one
// HTTP2-Settings field, named in Connection, that decodes to settings.
func IsH2CUpgrade(r *http.Request) bool {
	if r.ProtoMajor != 1 || r.ProtoMinor == 0 {
		return false
	}
	connection, settings := r.Header["Connection"], r.Header.Values("HTTP2-Settings")
	if len(settings) != 1 ||
		!httpguts.HeaderValuesContainsToken(r.Header["Upgrade"], "h2c") ||
		!httpguts.HeaderValuesContainsToken(connection, "upgrade") ||
		!httpguts.HeaderValuesContainsToken(connection, "http2-settings") {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(settings[0])
	return err == nil && len(payload)%h2.SettingLen == 0
}

// NewH2CUpgrades returns an H2CUpgrades whose connections have the limits of c and whose
// streams, the upgraded request among them, are served by h.Handler as HTTP/2. Of the
// other hooks the logger is used, and ConnState: it is told, behind [http.StateHijacked],
// when the connection has a stream (StateActive) and when it has none (StateIdle). The
// function upgraded, which may be nil, is called once for each connection that has become
// HTTP/2, with its first request. So is resets, before, which says how many streams the
// client may have broken off in a minute and what to do when it was told that they are too
// many; see [HTTP2Config].MaxResetsPerMinute. It may be nil as well.
func NewH2CUpgrades(c HTTP2Config, h HTTPHooks, upgraded func(*http.Request, *UpgradedConn), resets func(*http.Request) (perMinute int, onFlood func())) (*H2CUpgrades, error) {
	u := &H2CUpgrades{handler: h.Handler, upgraded: upgraded, resets: resets, state: h.ConnState}
	u.server = NewHTTP2Server(c, h)
	u.server.ConnState = u.connState
	limits := new(http2.Server)                                     //nolint:staticcheck // What h2c takes; deprecated with it.
	if err := http2.ConfigureServer(u.server, limits); err != nil { //nolint:staticcheck // The one way to have GOAWAY sent; deprecated with h2c.
		return nil, err
	}
	u.upgrade = h2c.NewHandler(http.HandlerFunc(u.serveStream), limits) //nolint:staticcheck // See the import.
	return u, nil
}

// ServeHTTP upgrades the connection of a request for which [IsH2CUpgrade] holds and
// serves it, with this request as its first stream. It returns when the connection has
// ended.
//
// A request whose body is longer than 64 KiB, or does not come whole, is served in
// HTTP/1.1 instead, as a server may do with each Upgrade (RFC 9110 section 7.8).
func (u *H2CUpgrades) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, whole := readUpgradeBody(r)
	if !whole {
		r = r.WithContext(r.Context())
		r.Body = &resumedBody{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
		r.Header = withoutUpgrade(r.Header)
		u.handler.ServeHTTP(w, r)
		return
	}
	// x/net's server takes its limits from the server in the context.
	conn := new(UpgradedConn)
	ctx := context.WithValue(r.Context(), http.ServerContextKey, u.server)
	r = r.WithContext(context.WithValue(ctx, upgradedKey{}, conn))
	r.Body = io.NopCloser(bytes.NewReader(body))
	o := h2.Options{NetHTTP: true, Upgraded: true}
	if u.resets != nil {
		perMinute, onFlood := u.resets(r)
		o.MaxResetsPerMinute, o.Watch = perMinute, &h2.Watch{OnFlood: func(net.Conn) { onFlood() }}
	}
	u.upgrade.ServeHTTP(&trackingWriter{w, o, conn}, r)
}

// UpgradedConn is a connection that has become HTTP/2.
type UpgradedConn struct{ track *h2.Track }

// FinalGoAway sends a GOAWAY that names the highest stream that the client has
// opened so far.
func (c *UpgradedConn) FinalGoAway() { c.track.FinalGoAway() }

// SentData returns the length in bytes of all DATA frames that the server has begun to write,
// and one more for the end of each answer.
func (c *UpgradedConn) SentData() uint64 { return c.track.SentData() }

// IsBeyondLast reports whether the client was told, by FinalGoAway or a GOAWAY with an error,
// that a stream is not served.
func (c *UpgradedConn) IsBeyondLast(stream uint32) bool { return c.track.IsBeyondLast(stream) }

// HasOpenStreams is as in the package sniff.
func (c *UpgradedConn) HasOpenStreams() bool { return c.track.HasOpenStreams() }

// AskRead is as in the package sniff.
func (c *UpgradedConn) AskRead() { c.track.AskRead() }

// Unread is as in the package sniff.
func (c *UpgradedConn) Unread() uint64 { return c.track.Unread() }

// IsMute is as in the package sniff.
func (c *UpgradedConn) IsMute(timeout time.Duration) bool { return c.track.IsMute(timeout) }

// upgradedKey is the key of a request's *UpgradedConn in its context.
type upgradedKey struct{}

// trackingWriter follows the frames of a connection from where it is hijacked.
type trackingWriter struct {
	http.ResponseWriter
	options  h2.Options
	upgraded *UpgradedConn
}

// Hijack implements [http.Hijacker].
func (w *trackingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.upgraded.track = h2.New(conn, w.options)
	c := &trackedConn{Conn: conn, ahead: rw.Reader, track: w.upgraded.track}
	// x/net takes what this reader has before it reads from c, and it has nothing.
	return c, bufio.NewReadWriter(bufio.NewReader(c), rw.Writer), nil
}

// trackedConn is an HTTP/2 connection that was hijacked.
type trackedConn struct {
	net.Conn
	ahead *bufio.Reader // net/http's, which may have read ahead; nil once that is read
	track *h2.Track
	begun bool // x/net has reported its first StateIdle; see connState
}

// Read implements [net.Conn].
func (c *trackedConn) Read(p []byte) (int, error) {
	for {
		if n := c.track.ReadMarker(p); n > 0 {
			return n, nil
		}
		if c.ahead != nil && c.ahead.Buffered() == 0 {
			c.ahead = nil
		}
		var read int
		var err error
		if c.ahead != nil {
			read, err = c.ahead.Read(p)
		} else {
			read, err = c.Conn.Read(p)
		}
		if n := c.track.Follow(p[:read]); n > 0 || read == 0 || err != nil {
			return n, err
		}
	}
}

// Write implements [net.Conn].
func (c *trackedConn) Write(p []byte) (n int, err error) {
	if out := c.track.Begin(p); len(out) > 0 {
		_, err = c.Conn.Write(out)
	}
	return c.track.Finish(len(p), err)
}

// Close implements [net.Conn]. It ends a Read that waits for what the server owes.
func (c *trackedConn) Close() error {
	c.track.End()
	return c.Conn.Close()
}

// resumedBody is a body whose beginning was read before.
type resumedBody struct {
	io.Reader
	io.Closer
}

// readUpgradeBody reads the body of r, or its beginning if it is too long or breaks off.
func readUpgradeBody(r *http.Request) (body []byte, whole bool) {
	if r.ContentLength > maxUpgradeBody {
		return nil, false
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxUpgradeBody+1))
	return body, err == nil && len(body) <= maxUpgradeBody
}

// withoutUpgrade returns a copy of a request's header without what asked for the
// upgrade. None of it means anything in HTTP/2 (RFC 9113 section 8.2.2).
func withoutUpgrade(h http.Header) http.Header {
	h = h.Clone()
	h.Del("Connection")
	h.Del("Upgrade")
	h.Del("HTTP2-Settings")
	return h
}

// serveStream serves a stream of an upgraded connection. The first is the
// request that asked, which still looks as it came.
func (u *H2CUpgrades) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		if conn, ok := r.Context().Value(upgradedKey{}).(*UpgradedConn); ok && u.upgraded != nil {
			u.upgraded(r, conn)
		}
		r = r.WithContext(r.Context())
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
		r.Header = withoutUpgrade(r.Header)
		r.TransferEncoding = nil
	}
	u.handler.ServeHTTP(w, r)
}

// Shutdown tells every upgraded connection by GOAWAY to make no new streams, and
// each that is upgraded later as soon as it is. They close when their streams have
// ended. Shutdown does not wait for that.
func (u *H2CUpgrades) Shutdown() {
	u.draining.Store(true)
	u.tell()
}

func (u *H2CUpgrades) tell() {
	// It has no listener and no connection that could fail or be waited for, so
	// it only runs x/net's hook.
	_ = u.server.Shutdown(context.Background())
}

// connState is called by x/net's server, the first time after it has put the connection on
// the list of those that Shutdown tells. One goroutine calls it for a connection.
func (u *H2CUpgrades) connState(nc net.Conn, state http.ConnState) {
	if state == http.StateActive && u.draining.Load() {
		u.tell()
	}
	c, ok := nc.(*trackedConn)
	if !ok || u.state == nil {
		return
	}
	if state == http.StateIdle && !c.begun {
		c.begun = true // x/net says so whenever it begins. The first stream is open then.
		return
	}
	u.state(c.Conn, state)
}
