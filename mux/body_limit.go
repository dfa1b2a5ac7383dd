package mux

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/muxserve/muxserve/pool"
)

// Behind a request that exceeds the limit of [http.MaxBytesReader], net/http answers at
// once, with "Connection: close" and whatever the status, and closes in a way that leaves
// the client time to read the answer. MaxBytesReader tells only net/http's own
// ResponseWriter that the limit was hit, by an unexported method. So the body looks who
// reads it, and the recorder passes the news on.

// readByLimit reports whether the Read of an [http.MaxBytesReader] has called the method
// that calls readByLimit. It asks for at most one byte more than is left of its limit. So
// if its read is filled and nothing is read behind that, the limit was hit: a handler that
// gives up by itself there has its connection closed behind the answer, and no more.
func readByLimit() bool { return callerEntry() == limitEntry }

// callerEntry returns where the function begins that has called the caller's caller.
//
//go:noinline
func callerEntry() uintptr {
	var pc [1]uintptr
	const caller = 4 // Behind Callers, callerEntry, its caller and that one's.
	if runtime.Callers(caller, pc[:]) == 0 {
		return 0
	}
	f := runtime.FuncForPC(pc[0] - 1)
	if f == nil {
		return 0
	}
	return f.Entry()
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
	func() { p.entry = callerEntry() }()
	return 0, io.EOF
}

// Close implements [io.Closer].
func (*limitProbe) Close() error { return nil }

// endLimited tells net/http's own writer w if a limit was hit, and reports whether one was.
// b may be nil.
func (b *awaitedBody) endLimited(w http.ResponseWriter) bool {
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

// restTime is how long net/http may go on reading the body of a request that has exceeded
// its limit, behind the answer, before it closes the connection.
const restTime = 500 * time.Millisecond

// CloseWrite sends the end of the stream. net/http calls it behind the answer to a request
// whose body it does not read, and closes the connection 500 ms later. Until then the rest
// is read here: the close would reset the connection under a client that is still sending,
// and take the answer with it.
func (c *conn) CloseWrite() error {
	err := c.Conn.CloseWrite()
	if c.account.State() == pool.StateActive && c.seldom().body.reader.Load() != readByNobody {
		_ = c.SetReadDeadline(time.Now().Add(restTime))
		go io.Copy(io.Discard, struct{ io.Reader }{c}) //nolint:errcheck // It ends by the close.
	}
	return err
}
