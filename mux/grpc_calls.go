package mux

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/muxserve/muxserve/protocols"
)

// callSlots bounds the handlers of gRPC calls that run at once on a shared connection. The
// limit on streams does not: a stream that the client resets ends at once, and grpc-go's
// ServeHTTP returns while the handler runs on (CVE-2023-44487). On native connections
// grpc-go counts handlers itself. The zero value is ready to use.
type callSlots struct {
	once  sync.Once
	slots chan struct{} // Holds a value for each handler.
}

// acquire waits for one of n slots. Its error is the status of a call that ends first.
func (c *callSlots) acquire(ctx context.Context, n uint32) error {
	c.once.Do(func() { c.slots = make(chan struct{}, n) })
	if ctx.Err() == nil {
		select {
		case c.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
		}
	}
	return status.FromContextError(ctx.Err()).Err()
}

func (c *callSlots) release() { <-c.slots }

// sharedConn returns the connection of a call that came through ServeHTTP.
func sharedConn(ctx context.Context) (*conn, bool) {
	c, ok := ctx.Value(connKey{}).(*conn)
	return c, ok
}

// boundCalls returns the interceptors that keep the handlers of a connection's
// calls to the number n of its streams.
func boundCalls(n uint32) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if c, ok := sharedConn(ctx); ok {
				if err := c.http2().calls.acquire(ctx, n); err != nil {
					return nil, err
				}
				defer c.http2().calls.release()
			}
			return h(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if c, ok := sharedConn(ss.Context()); ok {
				if err := c.http2().calls.acquire(ss.Context(), n); err != nil {
					return err
				}
				defer c.http2().calls.release()
			}
			return h(srv, ss)
		}),
	}
}

// serveHandledCall has the HTTP handler serve a gRPC call whose service is not registered
// with grpc-go, and books it as a call.
func (f *front) serveHandledCall(c *conn, rec *recorder2, r *http.Request) {
	b := f.books
	e := b.beginHTTP(&b.requests.grpc, c, r)
	w := &callRecorder{recorder2: rec, path: r.URL.Path}
	finished := false
	defer func() {
		code := codes.Internal
		if finished {
			code = w.callCode()
		}
		b.endHandledCall(r.Context(), &e, code)
	}()
	f.route(w, r)
	rec.setStatus(http.StatusOK)
	finished = true
}

// callRecorder is the ResponseWriter of a call that the HTTP handler serves. It turns the
// words of a handler that does not have the service either into gRPC's. They stand in
// trailers, as grpc-go's: httputil.ReverseProxy may send a response's header before its end,
// and then they must not be in that.
type callRecorder struct {
	*recorder2
	path    string
	unknown bool // the answer was UNIMPLEMENTED, and what the handler writes is dropped
}

// WriteHeader implements [http.ResponseWriter].
func (r *callRecorder) WriteHeader(code int) {
	switch h := r.Header(); {
	case r.code != 0 || protocols.IsGRPCContentType(h.Get("Content-Type")):
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed, code == http.StatusNotImplemented:
		r.unknown = true
		clear(h)
		h.Set("Content-Type", "application/grpc")
		h.Set(http.TrailerPrefix+grpcStatus, strconv.Itoa(int(codes.Unimplemented)))
		h["Date"] = nil // grpc-go sends none, and clients take it for metadata.
		message := "malformed method name: " + strconv.Quote(r.path)
		if service, ok := protocols.ServiceOf(r.path); ok {
			message = "unknown service " + url.PathEscape(service)
		}
		h.Set(http.TrailerPrefix+"Grpc-Message", message)
		code = http.StatusOK
	}
	r.recorder2.WriteHeader(code)
	if r.unknown {
		_ = r.recorder2.FlushError() // Else net/http adds Content-Length, and proxies drop the trailers.
	}
}

// Write implements [http.ResponseWriter].
func (r *callRecorder) Write(p []byte) (int, error) {
	if r.unknown {
		return len(p), nil
	}
	return r.recorder2.Write(p)
}

// WriteString implements [io.StringWriter].
func (r *callRecorder) WriteString(s string) (int, error) {
	if r.unknown {
		return len(s), nil
	}
	return r.recorder2.WriteString(s)
}

// Flush implements [http.Flusher].
func (r *callRecorder) Flush() { _ = r.FlushError() }

// FlushError is what [http.ResponseController] flushes by. The answer UNIMPLEMENTED has no
// message, so it goes out at the end of the handler.
func (r *callRecorder) FlushError() error {
	if r.unknown {
		return nil
	}
	return r.recorder2.FlushError()
}

// grpcStatus is the trailer with the code of a call.
const grpcStatus = "Grpc-Status"

// callCode returns the code that the client got, which stands in a trailer or, where the
// response has no message, in the header. For a response without it the client makes a code
// of the HTTP status.
func (r *callRecorder) callCode() codes.Code {
	for name, values := range r.Header() {
		if strings.EqualFold(strings.TrimPrefix(name, http.TrailerPrefix), grpcStatus) && len(values) > 0 {
			if n, err := strconv.ParseUint(values[0], 10, 32); err == nil {
				return codes.Code(n)
			}
		}
	}
	switch r.status() {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	default:
		return codes.Unknown
	}
}

// serveSharedCall has grpc-go's ServeHTTP serve a gRPC call, and mends what that does
// otherwise than grpc-go on connections of its own:
//
//   - A call that fails before it has answered anything is answered by one frame
//     ("Trailers-Only"), behind which clients may retry.
//   - A call is over at its deadline, also where its handler runs on. grpc-go resets the
//     stream; here the client gets the status.
//   - The header does not announce the trailers. A gRPC client takes that field for
//     metadata, which grpc-gateway passes on to its clients.
func serveSharedCall(shared http.Handler, w http.ResponseWriter, r *http.Request) {
	call := &sharedCall{ResponseWriter: w}
	if timeout, ok := grpcTimeout(r.Header.Get("Grpc-Timeout")); ok {
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		shared.ServeHTTP(call, r.WithContext(ctx))
		call.finish(r, ctx.Err() != nil && r.Context().Err() == nil)
		return
	}
	shared.ServeHTTP(call, r)
	call.finish(r, false)
}

// sharedCall is the ResponseWriter of a call on the shared transport. It belongs to the
// goroutine of ServeHTTP.
type sharedCall struct {
	http.ResponseWriter
	sent bool // the header, or at least it was decided
}

// Unwrap is for [http.ResponseController].
func (c *sharedCall) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// send notes that the header goes out with what comes next, and ends what announces
// trailers in it.
func (c *sharedCall) send() {
	if !c.sent {
		c.sent = true
		c.Header().Del("Trailer")
	}
}

// WriteHeader implements [http.ResponseWriter].
func (c *sharedCall) WriteHeader(code int) {
	c.send()
	c.ResponseWriter.WriteHeader(code)
}

// Write implements [http.ResponseWriter].
func (c *sharedCall) Write(p []byte) (int, error) {
	c.send()
	return c.ResponseWriter.Write(p)
}

// Flush implements [http.Flusher]. ServeHTTP flushes before it adds the status, also where
// nothing was sent before. That flush is left out, unless the handler has set fields of
// its own, which grpc-go sends in a frame of their own as well.
func (c *sharedCall) Flush() {
	if !c.sent {
		if !hasOwnFields(c.Header()) {
			return
		}
		c.send()
	}
	_ = http.NewResponseController(c.ResponseWriter).Flush()
}

// hasOwnFields reports whether the handler of a call has set fields, beside those of
// every response.
func hasOwnFields(h http.Header) bool {
	for name := range h {
		switch name {
		case "Content-Type", "Date", "Grpc-Encoding", "Trailer", "Connection":
		default:
			return true
		}
	}
	return false
}

// finish completes the answer when ServeHTTP has returned. expired says that the deadline
// has ended the call.
func (c *sharedCall) finish(r *http.Request, expired bool) {
	h := c.Header()
	if h.Get(grpcStatus) == "" {
		if !expired {
			return // The client has left, or got an answer of HTTP.
		}
		h.Set("Content-Type", r.Header.Get("Content-Type"))
		h.Set(grpcStatus, strconv.Itoa(int(codes.DeadlineExceeded)))
		h.Set("Grpc-Message", context.DeadlineExceeded.Error())
	}
	if _, ok := h["Grpc-Message"]; !ok {
		h.Set("Grpc-Message", "") // As grpc-go on connections of its own.
	}
	if c.sent {
		for _, name := range statusFields { // They are trailers, which the header did not announce.
			if values, ok := h[name]; ok {
				delete(h, name)
				h[http.TrailerPrefix+name] = values
			}
		}
		return
	}
	h.Del("Trailer")
	h.Del("Grpc-Encoding")    // There is no message.
	h["Content-Length"] = nil // Else net/http adds it.
	for name, values := range h {
		if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			delete(h, name)
			if trailer = http.CanonicalHeaderKey(trailer); !slices.Contains(framingFields, trailer) {
				h[trailer] = values
			}
		}
	}
	c.ResponseWriter.WriteHeader(http.StatusOK)
}

// framingFields are header fields that decide how net/http sends an answer, or what its client
// takes it for. A handler's trailing metadata must not set them.
var framingFields = []string{"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// statusFields are the fields with the outcome of a call.
var statusFields = []string{grpcStatus, "Grpc-Message", "Grpc-Status-Details-Bin"}

// grpcTimeout reads the field grpc-timeout, as gRPC's specification of its protocol on
// HTTP/2 has it. It reports false for a value that is none, which grpc-go refuses, and for
// one that is no bound.
func grpcTimeout(s string) (time.Duration, bool) {
	const maxDigits = 8
	if len(s) < 2 || len(s) > maxDigits+1 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[s[len(s)-1]]
	if err != nil || !ok || n > uint64(math.MaxInt64/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}
