package mux

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

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
