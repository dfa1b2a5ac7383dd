package protocols

import (
	"slices"
	"time"
)

// A compactVerdict is a [Verdict] of Sniff in a quarter of its size, because a
// connection keeps it for life. Its zero value is the zero Verdict.
type compactVerdict struct {
	duration time.Duration
	bytes    int32 // At most what Sniff reads, which is far less than fits.
	protocol uint8 // These are indexes into the tables below.
	reason   uint8
	failure  uint8
}

// The texts of a verdict of Sniff. Each table begins with the empty one, and then has what is most common first.
var (
	verdictProtocols = [...]Protocol{Unknown, HTTP1, HTTP2, GRPC, WebSocket, TLS}
	verdictFailures  = [...]string{"", FailureSilent, FailureNoMatch, FailureTimeout, FailureTooLarge, FailureDraining}
	verdictReasons   = [...]string{
		"",
		reasonRequestLine, reasonGRPC, reasonFirstStream, reasonWebSocket, reasonTLS, reasonNothing,
		reasonIdle, reasonDrain, reasonUndecided, reasonPreface,
		reasonLongRequestLine, reasonBadBlock, reasonBadFrame, reasonData, reasonOtherFrame, reasonNotSettings,
		reasonLongBlock, reasonManyFrames, reasonClosedUndecided, reasonNotTLS, reasonNotHTTP, reasonSlow,
		reasonSlowFrame, reasonClosed, reasonTooLarge, reasonAnswerTooSlow, reasonAnswerFailed, reasonReadNoProgress,
	}
)

// compact returns v in its small form. A text that is in no table, of which
// Sniff has none, becomes the empty one.
func (v Verdict) compact() compactVerdict {
	return compactVerdict{
		duration: v.Duration,
		bytes:    int32(v.Bytes),
		protocol: uint8(max(0, slices.Index(verdictProtocols[:], v.Protocol))),
		reason:   uint8(max(0, slices.Index(verdictReasons[:], v.Reason))),
		failure:  uint8(max(0, slices.Index(verdictFailures[:], v.Failure))),
	}
}

// expand returns the verdict that c was made of.
func (c compactVerdict) expand() Verdict {
	return Verdict{
		Protocol: verdictProtocols[c.protocol],
		Reason:   verdictReasons[c.reason],
		Failure:  verdictFailures[c.failure],
		Bytes:    int(c.bytes),
		Duration: c.duration,
	}
}
