package mux

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/muxserve/muxserve/protocols"
)

// WithAccessLog logs one line, at Info, for each request, call and WebSocket session when
// it is over. Default, and for nil: none, and that costs nothing.
//
// A line has the connection's id, the request's id (X-Request-Id where the client sent a
// usable one) and the trace's id where the client sent a traceparent. It has no query and
// no header but User-Agent, because secrets may stand there. A path and a User-Agent of more
// than 1 KiB are cut.
func WithAccessLog(l *slog.Logger) Option {
	return func(o *options) { o.accessLog = l }
}

// The keys in gRPC's metadata that identify a call and its client.
const (
	requestIDKey   = "x-request-id"
	traceparentKey = "traceparent"
	userAgentKey   = "user-agent"
)

// access is what an access log line tells of a request or call, besides its outcome.
type access struct {
	requestID, traceparent, userAgent string
	method, path                      string
}

// maxTarget bounds the path and the User-Agent of a line, in bytes.
const maxTarget = 1 << 10

// httpAccess reads an HTTP request.
func httpAccess(r *http.Request) access {
	a := access{
		requestID:   r.Header.Get("X-Request-ID"),
		traceparent: r.Header.Get("Traceparent"),
		userAgent:   protocols.Shorten(r.UserAgent(), maxTarget),
		method:      protocols.Shorten(r.Method, protocols.MaxText),
		path:        protocols.Shorten(r.URL.Path, maxTarget),
	}
	if len(r.Method)+len(r.RequestURI) > maxTarget { // They would keep the whole request line, with the query, while their line waits.
		a.method, a.path = strings.Clone(a.method), strings.Clone(a.path)
	}
	return a
}

// callAccess reads a gRPC call.
func callAccess(ctx context.Context, method string) access {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if values := md.Get(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	return access{
		requestID:   first(requestIDKey),
		traceparent: first(traceparentKey),
		userAgent:   protocols.Shorten(first(userAgentKey), maxTarget),
		path:        protocols.Shorten(method, maxTarget),
	}
}

// outcome is how a request or call went.
type outcome struct {
	protocol protocols.Protocol
	number   uint64 // of the request on its connection
	code     int
	sent     int64
	duration time.Duration
}

// logAccess writes the line of a request or call. c is nil for one that came in some
// other way.
func (b *books) logAccess(ctx context.Context, c *conn, a access, o outcome) {
	if !b.accessLog.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	if c != nil {
		attrs = append(attrs, slog.Uint64(keyConnID, c.account.ID()), slog.String(keyRemoteAddr, c.remoteAddr()))
	}
	attrs = append(attrs,
		slog.String(keyRequestID, requestID(a.requestID, c, o.number)),
		slog.String(keyProtocol, string(o.protocol)))
	if traceID, spanID, ok := parseTraceparent(a.traceparent); ok {
		attrs = append(attrs, slog.String(keyTraceID, traceID), slog.String(keySpanID, spanID))
	}
	if a.method != "" {
		attrs = append(attrs, slog.String(keyMethod, a.method))
	}
	attrs = append(attrs, slog.String(keyPath, a.path), slog.Int(keyCode, o.code), slog.Float64(keyDuration, o.duration.Seconds()))
	switch {
	case o.protocol == protocols.WebSocket && o.code == http.StatusSwitchingProtocols && c != nil:
		info := c.account.Info()
		attrs = append(attrs, slog.Uint64(keyMessagesRead, info.MessagesReceived), slog.Uint64(keyMessagesWritten, info.MessagesSent))
	case o.protocol != protocols.GRPC:
		attrs = append(attrs, slog.Int64(keyBytesWritten, o.sent))
	}
	if a.userAgent != "" {
		attrs = append(attrs, slog.String(keyUserAgent, a.userAgent))
	}
	b.accessLog.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// maxRequestID bounds the request ids that are taken from clients.
const maxRequestID = 128

// requestID returns the client's own id of a request where it is one word of visible
// ASCII, and otherwise the connection's id and the request's number on it.
func requestID(given string, c *conn, number uint64) string {
	if given != "" && len(given) <= maxRequestID && isVisible(given) {
		return given
	}
	if c == nil {
		return ""
	}
	return strconv.FormatUint(c.account.ID(), 10) + "-" + strconv.FormatUint(number, 10)
}

func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// The parts of a traceparent (W3C Trace Context section 3.2): version, trace id, parent
// id and flags, in lower-case hex.
const (
	traceVersionLen  = 2
	traceIDLen       = 32
	spanIDLen        = 16
	traceFlagsLen    = 2
	traceparentLen   = traceVersionLen + 1 + traceIDLen + 1 + spanIDLen + 1 + traceFlagsLen
	forbiddenVersion = "ff"
	firstVersion     = "00"
)

// parseTraceparent returns the ids in a traceparent header, and false for one that is not
// valid. A later version may have more behind what is known.
func parseTraceparent(s string) (traceID, spanID string, ok bool) {
	if len(s) < traceparentLen {
		return "", "", false
	}
	version := s[:traceVersionLen]
	if len(s) > traceparentLen && (version == firstVersion || s[traceparentLen] != '-') {
		return "", "", false
	}
	const afterVersion = traceVersionLen + 1
	const afterTrace = afterVersion + traceIDLen + 1
	const afterSpan = afterTrace + spanIDLen + 1
	if len(s) > traceparentLen {
		s = strings.Clone(s[:traceparentLen])
	}
	traceID, spanID = s[afterVersion:afterTrace-1], s[afterTrace:afterSpan-1]
	if s[afterVersion-1] != '-' || s[afterTrace-1] != '-' || s[afterSpan-1] != '-' ||
		!isHex(version) || version == forbiddenVersion || !isHex(s[afterSpan:traceparentLen]) ||
		!isHex(traceID) || isZero(traceID) || !isHex(spanID) || isZero(spanID) {
		return "", "", false
	}
	return traceID, spanID, true
}

func isHex(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

func isZero(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
