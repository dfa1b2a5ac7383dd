package listeners

import (
	"context"
	"net"
	"time"
)

// keepaliveCount is how many questions of the keepalive may go without an answer, as package net has it.
const keepaliveCount = 9

// A quietListener is a socket whose connections package net gives no keepalive. They have the listening socket's own:
// to set it on each takes four system calls, which is 3 µs of some 70 that a connection with one request takes.
type quietListener struct{ *net.TCPListener }

// quietly is the context key that tells Listen, past whoever calls it, that the keepalive is its caller's affair.
type quietly struct{}

func withQuiet(ctx context.Context) context.Context {
	if !inheritsKeepalive {
		return ctx
	}
	return context.WithValue(ctx, quietly{}, true)
}

// isQuiet reports whether withQuiet was called for ctx.
func isQuiet(ctx context.Context) bool {
	quiet, _ := ctx.Value(quietly{}).(bool)
	return quiet
}

// hasQuiet reports whether the connections of a socket come without a keepalive of package net's.
func hasQuiet(l net.Listener) bool {
	if k, ok := l.(*socket); ok {
		l = k.innerSocket
	}
	_, ok := l.(*quietListener)
	return ok
}

// setListenerKeepalive sets what the connections of a quiet listener inherit. It reports false where it cannot.
func setListenerKeepalive(l net.Listener, period time.Duration) bool {
	raw, err := layer{l}.SyscallConn()
	return err == nil && setKeepalive(raw, period) == nil
}
