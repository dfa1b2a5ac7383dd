package listeners

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Detach takes the socket away from the Listener, as it is, and returns the inner
// listener, for another [New]. Until then the kernel queues the clients that
// come; none is refused.
//
// Every Accept that is under way returns: with the connection, if it has got one
// already, or else with an error that wraps net.ErrClosed, as every later one does. Detach
// waits for that, so that nobody else accepts from the inner listener when it returns, and no
// deadline is set on it. From then on Stop and Close of the Listener do nothing to the socket.
//
// It fails, and changes nothing, with an error that wraps net.ErrClosed after Stop, Close or an
// earlier Detach, and with [errors.ErrUnsupported] where the inner listener has no SetDeadline, because its
// Accept could not be woken.
func (l *Listener) Detach() (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	inner, err := l.endAccepts()
	if err != nil {
		return nil, fmt.Errorf("listeners: detach %s: %w", l.Addr(), err)
	}
	// The deadline stands until the last Accept has met it.
	for l.accepts > 0 {
		l.returned.Wait()
	}
	// It fails for a listener that somebody has closed behind our back, which the next owner will see.
	_ = inner.SetDeadline(time.Time{})
	return l.inner, nil
}

// CanDetach returns the error that Detach would fail with now, or nil.
func (l *Listener) CanDetach() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.detachable(); err != nil {
		return fmt.Errorf("listeners: detach %s: %w", l.Addr(), err)
	}
	return nil
}

// endAccepts makes every Accept return. The caller holds mu.
func (l *Listener) endAccepts() (deadliner, error) {
	inner, err := l.detachable()
	if err != nil {
		return nil, err
	}
	l.detached = true
	l.end()
	_ = inner.SetDeadline(time.Now())
	return inner, nil
}

// detachable returns the inner listener if its Accept can be woken. The caller holds mu.
func (l *Listener) detachable() (deadliner, error) {
	if isClosed(l.stopping) {
		return nil, net.ErrClosed
	}
	inner, ok := l.inner.(deadliner)
	if !ok {
		return nil, fmt.Errorf("deadline of a %T: %w", l.inner, errors.ErrUnsupported)
	}
	// A layer has the method and may still be above a listener that has not.
	// Once the Accepts have been told, it would be too late to find out.
	if err := inner.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return inner, nil
}
