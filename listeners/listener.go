package listeners

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The back-off of a failing Accept: a moment's shortage is not noticed, and a lasting one
// costs one system call a second.
const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// Emptying the kernel's queue. A deadline that has passed fails Accept before it looks at
// the queue, so each Accept gets a deadline a little ahead. A goroutine that loses the
// processor may find it passed all the same, so the queue counts as empty only after
// several misses in a row. drainLimit is the time that Accept itself may take: it ends
// the emptying where new connections keep coming.
const (
	drainWait   = 5 * time.Millisecond
	drainMisses = 2
	drainLimit  = time.Second
)

// heedLimit is how long an Accept may take to return behind its deadline. That of a listener
// which a caller has brought may have its own idea of deadlines.
const heedLimit = 2 * drainLimit

// deadliner is the part of *net.TCPListener and *net.UnixListener by which a blocked
// Accept is woken without closing the socket.
type deadliner interface{ SetDeadline(t time.Time) error }

// Listener accepts connections from another listener, which it owns, and outlasts that
// one's temporary errors. All methods may be called concurrently.
type Listener struct {
	inner    net.Listener
	log      *slog.Logger
	failures failureLog

	// mu makes the first one of Stop, Close and Detach decide, and guards the deadline that
	// they set and the number of Accepts under way.
	mu       sync.Mutex
	accepts  int           // under way
	begun    uint64        // Accepts so far
	returned *sync.Cond    // with mu: an Accept has returned
	stopping chan struct{} // closed by that first one
	detached bool          // it was Detach; not changed once stopping is closed
	drained  atomic.Int64  // nanoseconds spent on emptying the queue
	closed   chan struct{} // closed by Close and at the end of a stop
	close    func() error  // closes inner once; later calls get the first result
}

var _ net.Listener = (*Listener)(nil)

// New returns a Listener that accepts from inner and takes it over: closing or stopping
// the Listener closes inner. A nil log discards.
func New(inner net.Listener, log *slog.Logger) *Listener {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Listener{
		inner:    inner,
		log:      log,
		stopping: make(chan struct{}),
		closed:   make(chan struct{}),
	}
	l.returned = sync.NewCond(&l.mu)
	l.close = sync.OnceValue(func() error {
		close(l.closed)
		if l.detached {
			return nil
		}
		return inner.Close()
	})
	return l
}

// Accept returns the next connection. It does not return a temporary error (no file
// descriptors, no buffers, a peer that has left already): it waits, from 5 ms doubling to
// 1 s, and tries again. It logs a lasting error at Warn every ten seconds, and its end at
// Info. An errno counts only where accept(2) failed with it; of any other error its own
// method Temporary decides, as in net/http. After [Listener.Stop] it returns what the kernel
// still holds and then, as after [Listener.Close] and [Listener.Detach], an error that wraps
// net.ErrClosed. Any other error is the inner listener's, wrapped.
func (l *Listener) Accept() (net.Conn, error) {
	l.countAccept(1)
	defer l.countAccept(-1)
	backoff := time.Duration(0)
	for !isClosed(l.stopping) {
		conn, err := l.inner.Accept()
		switch {
		case err == nil:
			l.failures.recovered(l.log, l.Addr())
			return conn, nil
		case isClosed(l.stopping):
			// Stop's or Detach's deadline, or Close, has ended this Accept.
		case isTemporary(err):
			backoff = nextBackoff(backoff)
			l.failures.failed(l.log, l.Addr(), err)
			sleep(backoff, l.stopping)
		default:
			return nil, l.acceptError(err)
		}
	}
	if l.detached {
		return nil, l.acceptError(net.ErrClosed)
	}
	return l.acceptQueued()
}

// countAccept notes that an Accept begins or ends.
func (l *Listener) countAccept(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepts += n
	l.begun += uint64(max(n, 0))
	l.returned.Broadcast()
}

// acceptQueued returns a connection that the kernel had completed before the stop. Where
// there is none left, it closes the socket.
func (l *Listener) acceptQueued() (net.Conn, error) {
	started := time.Now()
	limit := drainLimit - time.Duration(l.drained.Load())
	defer func() { l.drained.Add(int64(time.Since(started))) }()
	backoff := time.Duration(0)
	for misses := 0; misses < drainMisses && time.Since(started) < limit; {
		if isClosed(l.closed) || !l.wakeAfter(drainWait) {
			break
		}
		conn, err := l.inner.Accept()
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			misses++
		case isTemporary(err):
			backoff = nextBackoff(backoff)
			sleep(min(backoff, limit-time.Since(started)), l.closed)
		default:
			misses = drainMisses
		}
	}
	if err := l.close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return nil, l.acceptError(errors.Join(net.ErrClosed, err))
	}
	return nil, l.acceptError(net.ErrClosed)
}

// Stop ends listening without losing a connection: Accept goes on returning what the
// kernel already holds, for a second of its own time at most, and then closes the socket.
// Stop returns at once; the goroutine in Accept does the work, so without one, call
// Close. A listener without SetDeadline is closed at once, and one whose Accept does not heed
// its deadline after two seconds. Stop is idempotent, and has no effect after Close or Detach.
func (l *Listener) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.end():
	case l.wakeAfter(drainWait):
		if l.accepts > 0 {
			begun := l.begun
			time.AfterFunc(heedLimit, func() { l.closeDeaf(begun) })
		}
	default:
		_ = l.close() // Accept reports it.
	}
}

// closeDeaf closes the socket if none has begun to accept since begun and one still does.
func (l *Listener) closeDeaf(begun uint64) {
	l.mu.Lock()
	isDeaf := l.accepts > 0 && l.begun == begun
	l.mu.Unlock()
	if isDeaf {
		_ = l.close()
	}
}

// Release is Stop for a socket whose address another one has from now on; see [Replacing].
// The kernel gives new connections to that one at once, and this one's Accept returns those
// that it has already. Without it, a client could meet the moment between the last Accept
// and the end of the socket, which resets its connection. It takes Linux and a socket of
// [Sockets] that no other process has; elsewhere Release is Stop.
func (l *Listener) Release() {
	if k, ok := Unwrap(l.inner).(*socket); ok {
		k.retire()
	}
	l.Stop()
}

// Close closes the socket at once and ends every Accept. The kernel resets what it holds.
// Later calls return the first one's result. After Detach it closes nothing.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.end()
	l.mu.Unlock()
	return l.close()
}

// end tells every Accept that the end has come. It reports whether the caller was the
// first one to say so, and decides how. The caller holds mu.
func (l *Listener) end() (first bool) {
	if isClosed(l.stopping) {
		return false
	}
	close(l.stopping)
	return true
}

// Detach takes the socket away from the Listener and returns the inner listener, for
// another [New]. Until that accepts, the kernel queues clients and refuses none.
//
// Detach waits until every Accept under way has returned: with the connection that it had
// got already, or with an error that wraps net.ErrClosed, as every later one does. Then
// nothing else accepts from the inner listener, and it has no deadline. An Accept that does
// not heed its deadline is waited for no longer than two seconds. It returns one more
// connection.
//
// Detach fails, and changes nothing, with an error that wraps net.ErrClosed after Stop,
// Close or Detach, and with [errors.ErrUnsupported] where the inner listener has no
// SetDeadline, by which its Accept could be woken.
func (l *Listener) Detach() (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	inner, err := l.detachable()
	if err != nil {
		return nil, err
	}
	l.detached = true
	l.end()
	_ = inner.SetDeadline(time.Now())
	// The deadline stands until the last Accept has met it.
	over := time.Now().Add(heedLimit)
	wake := time.AfterFunc(heedLimit, func() {
		l.mu.Lock() // So that the waiting goroutine waits, or has seen the time.
		defer l.mu.Unlock()
		l.returned.Broadcast()
	})
	defer wake.Stop()
	for l.accepts > 0 && time.Now().Before(over) {
		l.returned.Wait()
	}
	_ = inner.SetDeadline(time.Time{}) // It fails for a closed socket, as the next Accept does.
	return l.inner, nil
}

// CanDetach returns the error that Detach would fail with now, or nil.
func (l *Listener) CanDetach() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.detachable()
	return err
}

// detachable returns the inner listener if its Accept can be woken. The caller holds mu.
func (l *Listener) detachable() (deadliner, error) {
	inner, ok := l.inner.(deadliner)
	var err error
	switch {
	case isClosed(l.stopping):
		err = net.ErrClosed
	case !ok:
		err = fmt.Errorf("deadline of a %T: %w", l.inner, errors.ErrUnsupported)
	default:
		// A layer has the method and may stand on a listener without it. Once the Accepts
		// have been told, it would be too late to find out.
		err = inner.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, fmt.Errorf("listeners: detach %s: %w", l.Addr(), err)
	}
	return inner, nil
}

// Addr returns the inner listener's address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// wakeAfter makes Accept return after d at the latest. It reports whether it could.
func (l *Listener) wakeAfter(d time.Duration) bool {
	inner, ok := l.inner.(deadliner)
	return ok && inner.SetDeadline(time.Now().Add(d)) == nil
}

func (l *Listener) acceptError(err error) error {
	return fmt.Errorf("listeners: accept on %s: %w", l.Addr(), err)
}

func nextBackoff(d time.Duration) time.Duration {
	return min(max(2*d, minBackoff), maxBackoff)
}

// sleep waits for d or until done is closed.
func sleep(d time.Duration, done <-chan struct{}) {
	select {
	case <-time.After(d):
	case <-done:
	}
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// temporary are the errors of accept(2) after which accepting may succeed. The first four
// are a shortage, which ends when other connections do. The others belong to the
// connection that was about to be accepted: its peer has left, or Linux passes errors
// already pending on the new socket, and a firewall's refusal, through accept, and asks to
// treat them like EAGAIN.
var temporary = []error{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	syscall.EPROTO, syscall.EPERM, syscall.ENETDOWN, syscall.ENETUNREACH,
	syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ECONNABORTED,
}

// isTemporary reports whether accepting may succeed later.
func isTemporary(err error) bool {
	if isOfAccept(err) && slices.ContainsFunc(temporary, func(target error) bool { return errors.Is(err, target) }) {
		return true
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "accept" && op.Timeout() {
		return false // It is a deadline of the listener's owner.
	}
	// Accept's errors are what Temporary is still right for, as in net/http. grpc-go does not
	// ask for a net.Error.
	var retry interface{ Temporary() bool }
	return errors.As(err, &retry) && retry.Temporary()
}

// isOfAccept reports whether accept(2) has failed. The errno of another call says something
// else: a listener that lives in one connection, as a multiplexer's session, returns the
// error of its reads, and ends with them.
func isOfAccept(err error) bool {
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return strings.HasPrefix(call.Syscall, "accept") // accept, accept4, acceptex
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "accept"
}

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
			"local_addr", addr.String(), "failures", f.failures, "duration_seconds", time.Since(f.first).Seconds())
	}
	f.failing, f.failures = false, 0
}
