package sniff

import (
	"time"

	"github.com/muxserve/muxserve/protocols"
)

// An answer is what the bytes seen so far allow to say.
type answer uint8

// The three answers of a recogniser.
const (
	needMore  answer = iota // The bytes fit, and more of them are needed.
	matched                 // The bytes decide.
	unmatched               // No continuation of the bytes can match.
)

// The values of [Verdict].Failure. Metrics have them as reasons of rejected connections.
const (
	FailureNoMatch  = "no_match"        // The bytes, or their early end, fit no protocol.
	FailureTimeout  = "sniff_timeout"   // Some bytes came, but not enough of them in time.
	FailureTooLarge = "sniff_too_large" // The peek buffer filled up without a verdict.
	FailureSilent   = "silent"          // Not one byte came.
)

// The values of [Verdict].Reason. They are constants so that a reason costs no
// memory and can be compared.
const (
	reasonRequestLine     = "http/1 request line"
	reasonLongRequestLine = "http/1 request line longer than the sniff buffer"
	reasonWebSocket       = "websocket upgrade"
	reasonTLS             = "tls record"

	reasonPreface         = "http/2 preface"
	reasonGRPC            = "grpc client's first stream"
	reasonFirstStream     = "http/2 first stream"
	reasonSharedCall      = "grpc call that is not a native connection's"
	reasonBadBlock        = "http/2 malformed header block"
	reasonBadFrame        = "http/2 frame in error before the first stream"
	reasonData            = "http/2 data before the first stream"
	reasonOtherFrame      = "http/2 frame out of place before the first stream"
	reasonNotSettings     = "http/2 preface without valid settings"
	reasonLongBlock       = "http/2 first stream longer than the sniff buffer"
	reasonManyFrames      = "http/2 too many control frames before the first stream"
	reasonUndecided       = "http/2 undecided by its first bytes"
	reasonClosedUndecided = "http/2 closed before the first stream"
	reasonDrain           = "drain"

	reasonALPN           = "not the protocol that alpn has chosen"
	reasonNotTLS         = "not a tls record"
	reasonNotHTTP        = "not an http request line"
	reasonProxyHeader    = "proxy protocol header"
	reasonNothing        = "nothing was sent"
	reasonSlow           = "first bytes too slow"
	reasonSlowFrame      = "http/2 frame or header block too slow"
	reasonIdle           = "idle before the first request"
	reasonClosed         = "closed half-way"
	reasonTooLarge       = "sniff buffer full"
	reasonAnswerTooSlow  = "peer does not read the handshake"
	reasonAnswerFailed   = "handshake could not be written"
	reasonReadNoProgress = "reads make no progress"
)

// Verdict says what a connection was recognised as, and why.
type Verdict struct {
	// Protocol is empty exactly where Failure is set.
	Protocol protocols.Protocol
	// Reason is a short constant text for people.
	Reason string
	// Failure is empty, or one of the Failure constants.
	Failure string
	// Bytes counts what was read from the peer until the verdict. It includes
	// bytes that came along with the deciding ones.
	Bytes int
	// Duration is the time from the first wait for bytes to the verdict, and with a
	// SilentTimeout from the first byte, if one came.
	Duration time.Duration
}

// BeginsRequest reports whether the connection's first request was among the bytes that
// were looked at.
func (v Verdict) BeginsRequest() bool {
	return v.Reason == reasonFirstStream || v.Reason == reasonSharedCall || v.Reason == reasonGRPC
}

// IsCall reports whether that request is a gRPC call, whichever server gets it.
func (v Verdict) IsCall() bool { return v.Reason == reasonSharedCall || v.Reason == reasonGRPC }

// ALPNVerdict is the verdict on a connection whose ALPN has chosen a protocol that is not
// HTTP.
func ALPNVerdict() Verdict { return failed(FailureNoMatch, reasonALPN) }

// IsIdle reports whether the connection was given up because it stayed idle
// before its first request, which is no fault.
func (v Verdict) IsIdle() bool { return v.Reason == reasonIdle }

// IsProxyHeader reports whether the connection began with a header of the PROXY protocol.
func (v Verdict) IsProxyHeader() bool { return v.Reason == reasonProxyHeader }

// IsALPN reports whether the connection speaks another protocol than ALPN has chosen.
func (v Verdict) IsALPN() bool { return v.Reason == reasonALPN }

// IsCutShort reports whether the peer closed the connection before it was recognised.
func (v Verdict) IsCutShort() bool { return v.Reason == reasonClosed }

// IsStalled reports whether the connection began like HTTP, had not decided when the time was
// over, and was sent nothing.
func (v Verdict) IsStalled() bool { return v.Reason == reasonSlow }

// IsUndecided reports whether the connection's first bytes did not show its
// first request, and nothing was written to find out.
func (v Verdict) IsUndecided() bool { return v.Reason == reasonUndecided }
