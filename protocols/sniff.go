package protocols

import (
	"crypto/tls"
	"errors"
	"io"
	"time"

	"golang.org/x/net/http2"
)

// The defaults of [SniffConfig], for callers that have no wishes of their own.
const (
	DefaultSniffTimeout     = 3 * time.Second
	DefaultSniffMaxBytes    = 16384
	DefaultUndecidedTimeout = 120 * time.Second
)

// minSniffBytes is the least cap that still holds the HTTP/2 preface and the
// SETTINGS of any client.
const minSniffBytes = 256

// A SniffConfig bounds what recognising a connection may cost. A nil
// *SniffConfig means the defaults, and no Settings.
type SniffConfig struct {
	// Timeout bounds the wait for the first bytes, for a frame or header block
	// that has begun, and each write. Zero means no bound on the waits; writes
	// are then bounded by DefaultSniffTimeout.
	Timeout time.Duration
	// MaxBytes caps the peek buffer, in bytes. Zero or less means
	// DefaultSniffMaxBytes; values below 256 count as 256.
	MaxBytes int
	// UndecidedTimeout bounds how long an HTTP/2 connection with a good preface
	// and SETTINGS may wait before its first request, from the moment it has
	// sent them. Zero means no bound.
	UndecidedTimeout time.Duration
	// Settings is the complete SETTINGS frame, header included, that the servers
	// behind the sniffer would send first. Where it is empty, Sniff never
	// writes: an HTTP/2 connection that its first bytes do not decide goes to
	// the shared server.
	Settings []byte
	// Patience is how long Sniff waits without a word for such a connection's first request, where
	// Settings is empty: a client that does not wait for ours has sent it behind its own, in another packet. Zero
	// means not at all.
	Patience time.Duration
	// Transport says which server gets gRPC connections.
	Transport GRPCTransport
	// MaxResetsPerMinute is how many streams the client of an HTTP/2 connection
	// may reset in a minute before the server has ended them. One more is
	// answered by GOAWAY with ENHANCE_YOUR_CALM. Zero or less means no bound.
	MaxResetsPerMinute int
	// OnFlood is called when that GOAWAY has been written, or left for the
	// server's next write, once for a connection. It is to end the connection,
	// which is served on otherwise. It is called by the goroutine that reads the
	// connection, which must not be kept waiting.
	OnFlood func(*Conn)
}

func (c *SniffConfig) withDefaults() SniffConfig {
	if c == nil {
		return SniffConfig{
			Timeout:          DefaultSniffTimeout,
			MaxBytes:         DefaultSniffMaxBytes,
			UndecidedTimeout: DefaultUndecidedTimeout,
		}
	}
	config := *c
	if config.MaxBytes <= 0 {
		config.MaxBytes = DefaultSniffMaxBytes
	}
	config.MaxBytes = max(config.MaxBytes, minSniffBytes)
	return config
}

// Sniff waits until c's first bytes say what it speaks, and returns the
// verdict. It is called once, by one goroutine; later calls return the same
// verdict at once. It never consumes a byte that the following server needs,
// and clears all deadlines before it returns. On a Failure it does not close
// c, whose bytes are still to be read.
//
// Sniff writes only to an HTTP/2 client that has sent its preface and SETTINGS
// but not its first HEADERS, since it may be waiting for ours: then it sends
// config.Settings, and answers SETTINGS and PING for as long as it waits. PINGs
// that it answered are not replayed to the server; SETTINGS are, as one frame
// with the values that hold in the end. Where such a client stays idle too
// long, it is sent a GOAWAY.
func (c *Conn) Sniff(config *SniffConfig) Verdict {
	r := c.recognition.Load()
	if r == nil || r.wait == decided {
		return c.Verdict()
	}
	r.config = config.withDefaults()
	r.begin()
	s := sniffer{recognition: r, scanner: newScanner(r.config.Transport, r.config.MaxBytes)}
	v := s.run()
	v.Bytes = r.peek.total
	v.Duration = time.Since(r.started)
	c.decide(r, v)
	return v
}

// A sniffer is the state of one Sniff.
type sniffer struct {
	*recognition

	scanner scanner
	http2   handshake
}

// run waits for bytes until they decide or something else does.
func (s *sniffer) run() Verdict {
	_ = s.inner.SetReadDeadline(after(s.started, s.config.Timeout))
	if _, isTLS := s.inner.(*tls.Conn); isTLS {
		// Its first Read may have to shake hands.
		_ = s.inner.SetWriteDeadline(after(s.started, s.config.Timeout))
	}
	for {
		answer, v := s.scanner.scan(s.peek.unread())
		switch {
		case answer != NeedMore && v.Reason == reasonData:
			return s.refuseData()
		case answer != NeedMore:
			return v
		case len(s.peek.unread()) >= s.config.MaxBytes && !s.scanner.http2.ready:
			return s.full()
		case s.peek.err != nil:
			return s.closed()
		}
		if s.scanner.http2.ready {
			if v, ok := s.answer(); ok {
				return v
			}
			// What was answered is out of the buffer.
			if len(s.peek.unread()) >= s.config.MaxBytes {
				return s.full()
			}
		}
		before := s.peek.total
		if err := s.peek.fill(s.inner, s.config.MaxBytes); err != nil && s.peek.total == before {
			return s.timedOut()
		}
	}
}

func failed(failure, reason string) Verdict {
	return Verdict{Failure: failure, Reason: reason}
}

// full is the verdict on a full buffer. The servers have limits of their own
// for what is longer, and the words to refuse it.
func (s *sniffer) full() Verdict {
	switch {
	case s.scanner.isHTTP2:
		return Verdict{Protocol: HTTP2, Reason: reasonLongBlock}
	case s.scanner.http1.method > 0:
		return Verdict{Protocol: HTTP1, Reason: reasonLongRequestLine}
	}
	return failed(FailureTooLarge, reasonTooLarge)
}

// closed is the verdict on a connection from which nothing more can be read.
func (s *sniffer) closed() Verdict {
	switch {
	case s.scanner.http2.ready:
		return Verdict{Protocol: HTTP2, Reason: reasonClosedUndecided}
	case s.peek.total == 0:
		return failed(FailureSilent, reasonNothing)
	case errors.Is(s.peek.err, io.ErrNoProgress):
		return failed(FailureNoMatch, reasonReadNoProgress)
	}
	return failed(FailureNoMatch, reasonClosed)
}

// timedOut is the verdict after a deadline, which EndWait may have moved.
func (s *sniffer) timedOut() Verdict {
	switch {
	case s.peek.total == 0:
		return failed(FailureSilent, reasonNothing)
	case !s.scanner.http2.ready:
		return failed(FailureTimeout, reasonSlow)
	case len(s.config.Settings) == 0:
		return Verdict{Protocol: HTTP2, Reason: reasonUndecided}
	case s.isHurried():
		return hurried()
	case s.scanner.http2.partial(len(s.peek.unread())):
		return failed(FailureTimeout, reasonSlowFrame)
	}
	s.goAway(http2.ErrCodeNo)
	return failed(FailureTimeout, reasonIdle)
}

// hurried is the verdict after EndWait.
func hurried() Verdict { return Verdict{Protocol: HTTP2, Reason: reasonDrain} }
