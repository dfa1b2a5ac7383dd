package mux

import (
	"io"
	"math"
	"net/http"
	"reflect"
	"runtime"
	"strings"
)

// Behind a request that exceeds the limit of [http.MaxBytesReader], net/http answers at
// once, with "Connection: close" and whatever the status, and closes in a way that leaves
// the client time to read the answer. MaxBytesReader tells only net/http's own
// ResponseWriter that the limit was hit, by an unexported method. So the body looks who
// reads it, and the recorder passes the news on.

// hitsLimit reports whether a Read of n bytes, which has filled its buffer, has hit the
// limit of an [http.MaxBytesReader]. The buffer is shorter than its capacity.
//
// A MaxBytesReader shortens its caller's buffer to one byte more than is left. A caller may
// have done so itself. The MaxBytesReader tells them apart, where the handler's request
// leads to it. Elsewhere the limit counts as hit, unless the body has ended: then a caller
// that reads no more has its connection closed behind the answer.
//
// A buffer that is by itself as long as one byte more than is left is not noticed. Then the
// answer may have to wait for up to 256 KiB of the rest of the body.
func (b *body1) hitsLimit(n int, ended bool) bool {
	above := limitsAbove()
	if above == 0 {
		return false
	}
	if limits, left := limitsOf(b.handlers.Body, b); limits == above {
		return int64(n) > left
	}
	return !ended
}

// limitsAbove returns how many MaxBytesReaders are among the callers.
func limitsAbove() (limits int) {
	var callers [16]uintptr // A body has no more readers one above the other.
	for _, pc := range callers[:runtime.Callers(0, callers[:])] {
		if f := runtime.FuncForPC(pc - 1); f != nil && f.Entry() == limitEntry {
			limits++
		}
	}
	return limits
}

// limitEntry is where the Read of an [http.MaxBytesReader] begins.
var limitEntry = func() uintptr {
	var p limitProbe
	_, _ = http.MaxBytesReader(nil, &p, 1).Read(make([]byte, 1))
	return p.entry
}()

// limitProbe is a body that notes who reads it.
type limitProbe struct{ entry uintptr }

// Read implements [io.Reader].
func (p *limitProbe) Read([]byte) (int, error) {
	var pc [1]uintptr
	const caller = 2 // Behind Callers and Read.
	if runtime.Callers(caller, pc[:]) == 1 {
		if f := runtime.FuncForPC(pc[0] - 1); f != nil {
			p.entry = f.Entry()
		}
	}
	return 0, io.EOF
}

// Close implements [io.Closer].
func (*limitProbe) Close() error { return nil }

// limitsOf returns how many MaxBytesReaders lead from body to b, and what is left of the
// least of their limits. net/http has no other way to tell than its own fields; where those
// have changed, or where something else stands between, there are none.
func limitsOf(body io.Reader, b *body1) (limits int, left int64) {
	left = math.MaxInt64
	v := reflect.ValueOf(body)
	for v.IsValid() && v.Type() == limitType {
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			return 0, 0
		}
		n, inner := v.Elem().FieldByName("n"), v.Elem().FieldByName("r")
		if n.Kind() != reflect.Int64 || inner.Kind() != reflect.Interface {
			return 0, 0
		}
		limits, left = limits+1, min(left, n.Int())
		v = inner.Elem()
	}
	if !v.IsValid() || v.Type() != reflect.TypeOf(b) || v.Pointer() != reflect.ValueOf(b).Pointer() {
		return 0, 0
	}
	return limits, left
}

// limitType is the type of an [http.MaxBytesReader].
var limitType = reflect.TypeOf(http.MaxBytesReader(nil, nil, 0))

// endLimited tells net/http's own writer w if a limit was hit, and reports whether one was.
// b may be nil.
func (b *body1) endLimited(w http.ResponseWriter) bool {
	if b == nil || !b.limited.Load() {
		return false
	}
	closeBehind(w)
	return true
}

// closeBehind has net/http's own writer w close its connection behind the answer. net/http
// does not read the rest of the request then, as where a request has exceeded its limit.
func closeBehind(w http.ResponseWriter) {
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}
