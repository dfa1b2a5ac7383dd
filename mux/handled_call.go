package mux

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/muxserve/muxserve/protocols"
)

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
		took := e.book.end(c, e.started, int(code), grpcFailed(code))
		if e.asked != nil {
			e.asked.method = "" // As of other calls.
			b.logAccess(r.Context(), c, *e.asked, outcome{protocol: protocols.GRPC, number: e.started.number, code: int(code), duration: took})
		}
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
