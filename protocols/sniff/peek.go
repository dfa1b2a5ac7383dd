package sniff

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// peekSize is the capacity of a new peek buffer. Nearly every request head and
// first HTTP/2 flight fits; longer ones grow it up to the cap.
const peekSize = 4096

// maxEmptyReads bounds how often in a row a reader may return neither bytes
// nor an error, as in bufio.
const maxEmptyReads = 100

// ErrPeekFull is what a reader of [Conn.PeekReader] returns when the peek
// buffer has reached its cap. The bytes in it are not lost.
var ErrPeekFull = errors.New("sniff: peek buffer is full")

// longAgo is a deadline that ends a wait at once.
var longAgo = time.Unix(1, 0)

// A recognition is what a Conn needs until its verdict stands and what was peeked
// has been read. The recognising goroutine owns it, and then the reading one; EndWait
// may come from any other.
type recognition struct {
	inner   net.Conn
	peek    peekBuffer
	config  Config
	started time.Time // When the first wait for bytes began, and behind a silence the first byte.
	played  bool      // Sniff has sent SETTINGS and an ACK.
	cut     bool      // The client's first ACK is taken out of peek.
	begun   bool      // The wait for the first byte is over.
	partial bool      // What has ended it is not read yet, as a part of a TLS record.
	below   counter   // Counts the bytes of TLS records that are not whole; may be nil.

	// mu guards the next three fields, the writing of wait, and the read deadline while wait
	// is silent or undecided.
	mu      sync.Mutex
	hurried bool      // EndWait was called.
	givenUp bool      // GiveUp was called.
	short   time.Time // The read deadline that EndWait sets while wait is silent.
	wait    waitState
}

// A waitState says what EndWait has to do.
type waitState uint8

const (
	waiting   waitState = iota // Nothing yet: the wait for the first bytes is short.
	silent                     // To shorten the wait for the first byte.
	undecided                  // To end the wait for the first request.
	decided                    // Nothing: the verdict stands.
)

// endWait is [Conn.EndWait].
func (r *recognition) endWait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hurried = true
	switch r.wait { // Setting a deadline fails only on a connection that is closed.
	case silent:
		_ = r.inner.SetReadDeadline(r.short)
	case undecided:
		_ = r.inner.SetReadDeadline(longAgo)
	case waiting, decided:
	}
}

// silentTimeout is Config.SilentTimeout where it is more than Timeout, and 0 elsewhere.
func (r *recognition) silentTimeout() time.Duration {
	if t := r.config.SilentTimeout; r.config.Timeout > 0 && t > r.config.Timeout {
		return t
	}
	return 0
}

// awaitFirst waits for the first byte, or below TLS for a part of its record, and reports
// false when the time is over. The time of the first bytes begins there.
func (r *recognition) awaitFirst() bool {
	heard, silence := r.received(), r.silentTimeout()
	if silence == 0 {
		return true // The time of the first bytes bounds it.
	}
	for r.armFirst(silence) {
		_ = r.peek.fill(r.inner, r.config.MaxBytes)
		if r.peek.total > 0 || r.peek.err != nil || r.received() != heard {
			r.partial = r.peek.total == 0 && r.peek.err == nil
			r.endSilence()
			return true
		}
	}
	if r.isFed() {
		r.partial = true // It will be read.
		r.endSilence()
		return true
	}
	return false
}

// isFed reports whether the system holds bytes of the client. That may begin just when a drain
// ends the silence.
func (r *recognition) isFed() bool {
	fed := layerOf[interface{ HasUnread() bool }](r.inner)
	return fed != nil && fed.HasUnread()
}

// armFirst sets the read deadline of a wait for the first byte. It reports false when the time
// is over. TLS tells of no part of a record, so there it is looked for in between.
func (r *recognition) armFirst(silence time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.short, r.wait = after(r.started, r.config.Timeout), silent
	end, now := after(r.started, silence), time.Now()
	if r.hurried {
		end = r.short
	}
	if !now.Before(end) {
		r.wait = waiting
		return false
	}
	if next := now.Add(r.config.Timeout); r.below != nil && next.Before(end) {
		end = next
	}
	_ = r.inner.SetReadDeadline(end)
	return true
}

// endSilence ends what armFirst began: something has come.
func (r *recognition) endSilence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait, r.begun, r.started = waiting, true, time.Now()
}

// giveUp is [Conn.GiveUp].
func (r *recognition) giveUp(agree func() bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wait != undecided || r.givenUp || !agree() {
		return false
	}
	r.givenUp = true
	_ = r.inner.SetReadDeadline(longAgo)
	return true
}

// conclude ends the time in which the connection can be given up, and reports whether it was.
func (r *recognition) conclude() (givenUp bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait = decided
	return r.givenUp
}

// awaitsFirstRequest is [Conn.AwaitsFirstRequest].
func (r *recognition) awaitsFirstRequest() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wait == undecided
}

// isGivenUp reports whether GiveUp was called and has had an effect.
func (r *recognition) isGivenUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.givenUp
}

// isHurried reports whether EndWait was called.
func (r *recognition) isHurried() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hurried
}

// waitUndecided sets the read deadline of a wait that EndWait may end. It
// reports false if EndWait was called already.
func (r *recognition) waitUndecided(deadline time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hurried {
		return false
	}
	if r.givenUp {
		deadline = longAgo
	}
	r.wait = undecided
	_ = r.inner.SetReadDeadline(deadline)
	return true
}

// begin notes when the waiting began.
func (r *recognition) begin() {
	if !r.started.IsZero() {
		return
	}
	r.started = time.Now()
	if _, isTLS := r.inner.(*tls.Conn); isTLS {
		r.below = layerOf[counter](r.inner)
	}
}

// isDue reports whether there is something to read before the wrapped connection is next.
func (r *recognition) isDue() bool { return len(r.peek.unread()) > 0 || r.peek.err != nil }

// decide makes v stand and gives the connection back without deadlines.
func (c *Conn) decide(r *recognition, v Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.verdict = v
	r.wait = decided
	_ = c.inner.SetDeadline(time.Time{})
	if v.Protocol == protocols.HTTP2 || v.Protocol == protocols.GRPC || r.played {
		c.h2.Store(h2.New(c.inner, c.trackOptions(r, v)))
	}
	r.peek.consume(0)
}

// trackOptions describes an HTTP/2 connection with the verdict v.
func (c *Conn) trackOptions(r *recognition, v Verdict) h2.Options {
	o := h2.Options{
		Played:             r.played,
		NetHTTP:            v.Protocol == protocols.HTTP2,
		MaxResetsPerMinute: r.config.MaxResetsPerMinute,
		MaxStreams:         r.config.MaxStreams,
	}
	if r.played {
		o.SaysAll = r.config.SaysNative && v.Protocol == protocols.GRPC
		r.cut = r.cut || !o.SaysAll && r.peek.cutACK()
		o.Acked = o.SaysAll || r.cut
	}
	// grpc-go acknowledges each SETTINGS.
	o.HoldSettings = r.played && v.Failure == "" && v.Protocol != protocols.GRPC
	if w := r.config.Watch; w != nil {
		o.Watch = &w.frames
		if v.Protocol == protocols.GRPC && r.config.Transport != protocols.TransportNative {
			o.IsNative, o.Client = true, settingsHash(firstSettings(r.peek.unread()))
			o.MaxHeaderListBytes = r.config.MaxHeaderListBytes
		}
	}
	return o
}

// ServeByNetHTTP says that net/http serves the connection, although its verdict is the native
// gRPC server: it is refused. What was looked at must not have been read yet.
func (c *Conn) ServeByNetHTTP() {
	r := c.recognition.Load()
	if r == nil || c.verdict.Protocol != protocols.GRPC {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v := c.verdict
	v.Protocol = protocols.HTTP2
	c.h2.Store(h2.New(c.inner, c.trackOptions(r, v)))
}

// endRecognition drops r when nothing more is to be had from it.
func (c *Conn) endRecognition(r *recognition) {
	if r.wait == decided && !r.isDue() {
		c.recognition.Store(nil)
	}
}

// after returns the time that is d behind t, or no time where d is 0.
func after(t time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return t.Add(d)
}

// hasBegun reports whether the wait for the first byte is over.
func (r *recognition) hasBegun() bool { return r.begun || r.peek.total > 0 || r.wait == decided }

// peekFirst waits for the first byte, for a reader of PeekReader.
func (r *recognition) peekFirst() error {
	r.begin()
	inTime := r.awaitFirst()
	_ = r.inner.SetDeadline(time.Time{})
	if !inTime {
		return os.ErrDeadlineExceeded
	}
	r.begun = true
	return nil
}

// peekDeadline returns until when a reader of PeekReader may wait for more than the first
// byte.
func (r *recognition) peekDeadline() time.Time {
	if r.wait == decided {
		return after(time.Now(), r.config.Timeout)
	}
	return after(r.started, r.config.Timeout)
}

// peekMore reads more bytes into the peek buffer, for a reader of PeekReader.
func (r *recognition) peekMore(deadline time.Time) error {
	if len(r.peek.unread()) >= r.config.MaxBytes {
		return ErrPeekFull
	}
	_ = r.inner.SetDeadline(deadline)
	err := r.peek.fill(r.inner, r.config.MaxBytes)
	_ = r.inner.SetDeadline(time.Time{})
	return err
}

var peekArrays = sync.Pool{New: func() any { return new([peekSize]byte) }}

// A peekBuffer holds bytes that were read ahead. Its zero value is empty and
// owns no memory.
type peekBuffer struct {
	b      []byte          // All bytes, those before r are consumed.
	r      int             // Start of the bytes that are not consumed.
	pooled *[peekSize]byte // The array behind b, if it goes back to the pool.
	total  int             // How many bytes were ever read ahead.
	err    error           // What ended the reading for good; due after the bytes.
}

func (p *peekBuffer) unread() []byte { return p.b[p.r:] }

// fill reads once from r, which makes up to limit unread bytes. It returns an
// error only where the reading can go on later: on a timeout. Other errors wait
// in p.err for their turn behind the bytes, because a Read may return both
// (with TLS 1.2, data and close_notify in one record do).
func (p *peekBuffer) fill(r io.Reader, limit int) error {
	p.grow(limit)
	end := min(cap(p.b), p.r+limit)
	for range maxEmptyReads {
		n, err := r.Read(p.b[len(p.b):end])
		p.b = p.b[:len(p.b)+n]
		p.total += n
		switch {
		case err == nil && n == 0:
			continue
		case err == nil || isTimeout(err):
			return err
		}
		p.err = err
		return nil
	}
	p.err = io.ErrNoProgress
	return nil
}

// grow makes room for at least one more byte.
func (p *peekBuffer) grow(limit int) {
	switch {
	case p.b == nil:
		p.pooled = peekArrays.Get().(*[peekSize]byte)
		p.b = p.pooled[:0]
	case len(p.b) == cap(p.b):
		b := make([]byte, len(p.unread()), min(2*cap(p.b), limit))
		copy(b, p.unread())
		p.free()
		p.b = b
	}
}

// read hands out unread bytes. Once all are, the buffer's memory is given back.
func (p *peekBuffer) read(dst []byte) int {
	n := copy(dst, p.unread())
	p.consume(n)
	return n
}

func (p *peekBuffer) consume(n int) {
	p.r += n
	if p.r == len(p.b) {
		p.free()
	}
}

func (p *peekBuffer) free() {
	if p.pooled != nil {
		peekArrays.Put(p.pooled)
	}
	p.b, p.r, p.pooled = nil, 0, nil
}

// remove takes the unread bytes from i to j out of the buffer.
func (p *peekBuffer) remove(i, j int) {
	u := p.unread()
	p.b = p.b[:p.r+i+copy(u[i:], u[j:])]
}

// insert puts data before the unread byte i.
func (p *peekBuffer) insert(i int, data []byte) {
	tail := len(p.unread()) - i
	p.b = append(p.b, data...)
	u := p.unread()
	copy(u[i+len(data):], u[i:i+tail])
	copy(u[i:], data)
}

// cutACK takes the first ACK of SETTINGS out of the unread bytes, which begin with the
// preface and hold whole frames up to the first header block. It reports whether there was
// one: a gRPC client has sent it before its first call.
func (p *peekBuffer) cutACK() bool {
	for at, u := len(http2.ClientPreface), p.unread(); len(u)-at >= h2.HeaderLen; {
		h := h2.ParseHeader(u[at:])
		if h.Type == http2.FrameSettings && h.IsAck() && h.Length == 0 {
			p.remove(at, at+h2.HeaderLen)
			return true
		}
		at += h2.HeaderLen + h.Length
	}
	return false
}

// isTimeout reports an error of a deadline that may be moved. A connection
// that timed out in the kernel says Timeout as well; its next Read says so again.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// A peekReader reads a connection from its first unread byte, without consuming.
type peekReader struct {
	conn     *Conn
	off      int
	deadline time.Time // Set at the first wait behind the first byte.
	waited   bool
}

// Read implements io.Reader.
func (r *peekReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	from := r.conn.recognition.Load()
	if from == nil {
		return 0, ErrPeekFull // The bytes have been read, and no more are peeked.
	}
	for r.off >= len(from.peek.unread()) {
		if from.peek.err != nil {
			return 0, from.peek.err
		}
		if !from.hasBegun() {
			if err := from.peekFirst(); err != nil {
				return 0, err
			}
			continue
		}
		if !r.waited {
			r.waited = true
			r.deadline = from.peekDeadline()
		}
		if err := from.peekMore(r.deadline); err != nil {
			return 0, err
		}
	}
	n := copy(p, from.peek.unread()[r.off:])
	r.off += n
	return n, nil
}
