package listeners

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// temporary are the errors of accept(2) after which accepting may succeed. The first four
// are a shortage, which ends when other connections do. The others belong to the
// connection that was about to be accepted: Linux passes errors already pending on the
// new socket, and a firewall's refusal, through accept, and asks to treat them like
// EAGAIN.
var temporary = []error{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.ENETUNREACH,
	syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
}

// isTemporary reports whether accepting may succeed later.
func isTemporary(err error) bool {
	if slices.ContainsFunc(temporary, func(target error) bool { return errors.Is(err, target) }) {
		return true
	}
	var netErr net.Error
	if !errors.As(err, &netErr) || netErr.Timeout() {
		return false // A timeout is a deadline of the listener's owner.
	}
	return netErr.Temporary() //nolint:staticcheck // Accept's errors are what Temporary is still right for, as in net/http.
}

// isAborted reports whether the peer left before it was accepted, which says nothing
// about the next connection.
func isAborted(err error) bool { return errors.Is(err, syscall.ECONNABORTED) }

// warnInterval is the least time between two warnings of one listener: a shortage that
// lasts stays visible without filling the log.
const warnInterval = 10 * time.Second

// failureLog turns a stream of failing and succeeding Accepts into few log lines. The
// zero value is ready; its methods may be called concurrently.
type failureLog struct {
	mu       sync.Mutex // guards all below
	failing  bool       // there was a warning since the last success
	warned   time.Time  // of the last warning
	first    time.Time  // of the first failure since the last success
	failures int        // since the last success
}

// failed notes an error, and warns unless there was a warning in the last warnInterval.
func (f *failureLog) failed(log *slog.Logger, addr net.Addr, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.failures == 0 {
		f.first = now
	}
	f.failures++
	if !f.warned.IsZero() && now.Sub(f.warned) < warnInterval {
		return
	}
	f.failing, f.warned = true, now
	log.Warn("cannot accept connections, trying again",
		"local_addr", addr.String(), "err", err, "failures", f.failures)
}

// recovered notes a success, and logs it after a warning.
func (f *failureLog) recovered(log *slog.Logger, addr net.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing {
		log.Info("accepting connections again",
			"local_addr", addr.String(), "failures", f.failures, "duration", time.Since(f.first))
	}
	f.failing, f.failures = false, 0
}
