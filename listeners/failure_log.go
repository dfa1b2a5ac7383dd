package listeners

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// warnInterval is the least time between two warnings of one listener: a
// shortage that lasts stays visible without filling the log.
const warnInterval = 10 * time.Second

// failureLog turns a stream of failing and succeeding Accepts into few log
// lines. The zero value is ready; its methods may be called concurrently.
type failureLog struct {
	mu       sync.Mutex // guards all below
	failing  bool       // a warning is out that nothing has taken back
	warned   time.Time  // of the last warning
	first    time.Time  // of the first failure since the last success
	failures int        // since the last success
}

// failed notes an error and warns unless it has warned of late.
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

// recovered notes a success and takes a warning back.
func (f *failureLog) recovered(log *slog.Logger, addr net.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing {
		log.Info("accepting connections again",
			"local_addr", addr.String(), "failures", f.failures, "duration", time.Since(f.first))
	}
	f.failing, f.failures = false, 0
}
