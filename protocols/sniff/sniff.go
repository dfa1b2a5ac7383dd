package sniff

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
)

// The defaults of [Config].
const (
	defaultTimeout          = 3 * time.Second
	defaultMaxBytes         = 16384
	defaultUndecidedTimeout = 120 * time.Second
)

// minSniffBytes is the least cap that still holds the HTTP/2 preface and the
// SETTINGS of any client.
const minSniffBytes = 256

// A Config bounds what recognising a connection may cost. A nil *Config means a
// Timeout of 3 s, MaxBytes of 16 KiB, an UndecidedTimeout of 2 minutes, and no Settings.
type Config struct {
	// Timeout bounds the wait for the first bytes (but see SilentTimeout), for a frame or
	// header block that has begun, and each write. Zero means no bound on the waits; writes
	// are then bounded by 3 s.
	Timeout time.Duration
	// SilentTimeout bounds the wait for the first byte where that is more than Timeout, which
	// then counts from that byte on. A client may open a connection that it keeps for a later
	// request.
	SilentTimeout time.Duration
	// HeadTimeout bounds the head of the first request where that is more than Timeout.
	// Then Timeout bounds each wait for more of it. Over TLS it does so for each byte of a
	// record, where a connection below counts those by a method Received() uint64.
	HeadTimeout time.Duration
	// MaxBytes caps the peek buffer, in bytes. Zero or less means
	// 16 KiB; values below 256 count as 256.
	MaxBytes int
	// UndecidedTimeout bounds how long an HTTP/2 connection with a good preface
	// and SETTINGS may wait before its first request, from the moment it has
	// sent them. Zero means no bound.
	UndecidedTimeout time.Duration
	// Settings is the complete SETTINGS frame, header included, for clients that wait
	// for one. It must not allow more than the servers behind the sniffer do, which send
	// their own. Where it is empty, Sniff never writes: an HTTP/2 connection that its
	// first bytes do not decide goes to the shared server.
	Settings []byte
	// SaysNative is set where the native gRPC server's own SETTINGS add nothing to
	// Settings. Then they are taken out of what it writes, which saves a system call and
	// the client's ACK.
	SaysNative bool
	// Patience is how long Sniff waits for such a connection's first request where
	// Settings is empty, and writes nothing. A client that does not wait for our SETTINGS
	// sends its request right behind its own, in another packet. Zero means not at all.
	Patience time.Duration
	// Transport says which server gets gRPC connections.
	Transport protocols.GRPCTransport
	// Watch says which calls the native gRPC server serves, and hears what clients do that
	// they should not. Nil: the server serves them all, and nobody hears.
	Watch *Watch
	// CallsOnly is set where nothing but gRPC is served. Then the native server gets the
	// calls of every client, and not only those of gRPC's libraries.
	CallsOnly bool
	// ALPN is the protocol that the TLS handshake agreed on, or empty. What is not "h2"
	// is not HTTP/2, and what is not "http/1.1" is not HTTP/1.1.
	ALPN string
	// MaxResetsPerMinute bounds the streams that the client of an HTTP/2 connection breaks
	// off, and MaxStreams those that it opens behind the GOAWAY which answers that; see
	// [protocols.HTTP2Config]. Zero or less means no bound.
	MaxResetsPerMinute int
	MaxStreams         uint32
	// MaxHeaderListBytes is the bound of the native gRPC server on the header list of a call,
	// as RFC 9113, section 6.5.2, counts it. With a Watch, a header block of more than twice
	// that, and of more than 128 KiB, ends the connection.
	MaxHeaderListBytes uint32
}

func (c *Config) withDefaults() Config {
	if c == nil {
		return Config{
			Timeout:          defaultTimeout,
			MaxBytes:         defaultMaxBytes,
			UndecidedTimeout: defaultUndecidedTimeout,
		}
	}
	config := *c
	if config.MaxBytes <= 0 {
		config.MaxBytes = defaultMaxBytes
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
// Sniff writes only to an HTTP/2 client that has sent its preface but not its first
// HEADERS, since the client may be waiting for the server's SETTINGS. Sniff sends
// config.Settings at once behind the client's SETTINGS, or a moment later where those do not
// come. As long as it waits, it answers SETTINGS and PING. PINGs that it answered are not
// replayed to the server; SETTINGS are, as one frame with the values that hold in the end.
// A client that stays idle too long is sent a GOAWAY.
func (c *Conn) Sniff(config *Config) Verdict {
	r := c.recognition.Load()
	if r == nil || r.wait == decided {
		return c.Verdict()
	}
	r.config = config.withDefaults()
	r.begin()
	s := sniffer{recognition: r, scanner: newScanner(r.config.Transport, r.config.MaxBytes)}
	s.scanner.alpn = r.config.ALPN
	s.scanner.http2.watch, s.scanner.http2.conn = r.config.Watch, c
	s.scanner.http2.callsOnly = r.config.CallsOnly
	v := s.run()
	if r.conclude() && v.Failure == "" && len(r.config.Settings) > 0 {
		v = s.refuseIdle() // The request has come in the same moment.
	}
	s.settle()
	v.Bytes = r.peek.total
	v.Duration = time.Since(r.started)
	c.decide(r, v)
	return v
}

// A sniffer is the state of one Sniff.
type sniffer struct {
	*recognition

	scanner   scanner
	handshake handshake
}

// A counter is a connection that counts the bytes that it has received.
type counter interface{ Received() uint64 }

// layerOf returns the first of the connections c and below that is a T, or the zero T.
func layerOf[T any](c net.Conn) (found T) {
	for {
		if layer, ok := c.(T); ok {
			return layer
		}
		above, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return found
		}
		c = above.NetConn()
	}
}

// received returns how many bytes have come below TLS; 0 where that is not known.
func (r *recognition) received() uint64 {
	if r.below == nil {
		return 0
	}
	return r.below.Received()
}

// run waits for bytes until they decide or something else does.
func (s *sniffer) run() Verdict {
	if _, isTLS := s.inner.(*tls.Conn); isTLS {
		// Its first Read may have to shake hands.
		_ = s.inner.SetWriteDeadline(after(s.started, max(s.config.Timeout, s.silentTimeout())))
	}
	if !s.hasBegun() && !s.awaitFirst() {
		return s.timedOut()
	}
	bounded := false // The time of the first bytes is the read deadline.
	if s.partial && s.peek.total == 0 {
		bounded = true // By the time of a head, as below.
		_ = s.inner.SetReadDeadline(s.headDeadline(s.started))
	}
	for {
		answer, v := s.scanner.scan(s.peek.unread())
		switch {
		case answer != needMore && v.Reason == reasonData:
			return s.refuseData()
		case answer != needMore:
			return v
		case len(s.peek.unread()) >= s.config.MaxBytes && !s.scanner.http2.ready:
			return s.full()
		case s.peek.err != nil:
			return s.closed()
		}
		if !bounded {
			bounded = true
			_ = s.inner.SetReadDeadline(after(s.started, s.config.Timeout))
		}
		if s.scanner.http2.ready {
			if v, ok := s.answer(); ok {
				return v
			}
			// What was answered is out of the buffer.
			if len(s.peek.unread()) >= s.config.MaxBytes {
				return s.full()
			}
		} else if s.scanner.isHTTP2 {
			s.awaitSettings()
		}
		before, received := s.peek.total, s.received()
		if before > 0 && !s.scanner.isHTTP2 {
			_ = s.inner.SetReadDeadline(s.headDeadline(s.started))
		}
		err := s.peek.fill(s.inner, s.config.MaxBytes)
		switch {
		case err == nil || s.peek.total > before:
		case s.isOverdue():
			if v, failed := s.greet(); failed {
				return v
			}
		case s.received() == received:
			return s.timedOut()
		case !s.scanner.http2.ready: // Else answer sets it.
			_ = s.inner.SetReadDeadline(s.headDeadline(s.started))
		}
	}
}

// headDeadline returns until when the next bytes of a head must come that began at a time.
func (s *sniffer) headDeadline(began time.Time) time.Time {
	end, next := after(began, max(s.config.Timeout, s.config.HeadTimeout)), after(time.Now(), s.config.Timeout)
	if next.Before(end) {
		return next
	}
	return end
}

func failed(failure, reason string) Verdict {
	return Verdict{Failure: failure, Reason: reason}
}

// full is the verdict on a full buffer. The servers have limits of their own
// for what is longer, and the words to refuse it.
func (s *sniffer) full() Verdict {
	switch {
	case s.scanner.isHTTP2:
		return Verdict{Protocol: protocols.HTTP2, Reason: reasonLongBlock}
	case s.scanner.http1.method > 0:
		return Verdict{Protocol: protocols.HTTP1, Reason: reasonLongRequestLine}
	}
	return failed(FailureTooLarge, reasonTooLarge)
}

// closed is the verdict on a connection from which nothing more can be read.
func (s *sniffer) closed() Verdict {
	switch {
	case s.scanner.http2.ready:
		return Verdict{Protocol: protocols.HTTP2, Reason: reasonClosedUndecided}
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
	case !s.scanner.http2.ready && s.handshake.begun:
		return failed(FailureTimeout, reasonSlowFrame)
	case !s.scanner.http2.ready:
		return failed(FailureTimeout, reasonSlow)
	case len(s.config.Settings) == 0:
		return Verdict{Protocol: protocols.HTTP2, Reason: reasonUndecided}
	case s.isHurried():
		return hurried()
	case s.isGivenUp():
	case s.scanner.http2.partial(len(s.peek.unread())):
		return failed(FailureTimeout, reasonSlowFrame)
	}
	return s.refuseIdle()
}

// refuseIdle is the verdict on a client whose first request has not come in time.
func (s *sniffer) refuseIdle() Verdict {
	s.goAway(http2.ErrCodeNo)
	return failed(FailureTimeout, reasonIdle)
}

// hurried is the verdict after EndWait.
func hurried() Verdict { return Verdict{Protocol: protocols.HTTP2, Reason: reasonDrain} }
