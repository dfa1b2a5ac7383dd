package listeners

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// layer is what stands between a [Listener] and the socket's own listener. It
// passes on what the two need of each other.
type layer struct{ net.Listener }

var (
	_ deadliner    = layer{}
	_ syscall.Conn = layer{}
)

// SetDeadline passes on how a blocked Accept is woken.
func (l layer) SetDeadline(t time.Time) error {
	if d, ok := l.Listener.(deadliner); ok {
		return d.SetDeadline(t)
	}
	return fmt.Errorf("listeners: deadline of a %T: %w", l.Listener, errors.ErrUnsupported)
}

// SyscallConn gives access to the socket.
func (l layer) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := l.Listener.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("listeners: socket of a %T: %w", l.Listener, errors.ErrUnsupported)
}

// below returns what the layer stands on.
func (l layer) below() net.Listener { return l.Listener }

// Unwrap returns the socket's listener that [Config.Open] has got from its listen function, without what it
// has put above it; l itself where that is nothing. Open takes it among those that are
// kept, and so gives an open socket the options of another Config.
func Unwrap(l net.Listener) net.Listener {
	for {
		above, ok := l.(interface{ below() net.Listener })
		if !ok {
			return l
		}
		l = above.below()
	}
}
