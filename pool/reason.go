package pool

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// The reasons for which a connection was closed that the package finds out for itself, where
// nobody has given one by [Conn.SetCloseReason].
const (
	ReasonPeer    = "peer_closed"   // the peer ended its side: the last read said io.EOF
	ReasonReset   = "reset"         // the peer broke the connection off
	ReasonTimeout = "timeout"       // a deadline ran out on the last read or write
	ReasonServer  = "server_closed" // none of these: the server had enough of it
)

// The reasons that a caller gives by [Conn.SetCloseReason]. It may give words of its own as well.
const (
	ReasonIdle     = "idle_timeout"    // nothing was in flight for too long
	ReasonHeader   = "header_timeout"  // a request's head took too long
	ReasonSlowBody = "slow_body"       // a request's body made no progress
	ReasonStalled  = "write_stalled"   // the peer did not take what it was sent; see [StallWatch]
	ReasonPing     = "ping_timeout"    // a ping was not answered
	ReasonSniff    = "sniff_timeout"   // its protocol was not known in time
	ReasonTLS      = "tls_handshake"   // the handshake failed
	ReasonAge      = "max_age"         // it was old enough
	ReasonRequests = "max_requests"    // it has had all its requests
	ReasonDrain    = "drain"           // the server leaves
	ReasonForced   = "forced"          // the server leaves, and the time for it was up
	ReasonRefused  = "refused"         // a limit kept it out
	ReasonFlood    = "too_many_resets" // the peer reset streams faster than is allowed
)

// errReset is what an EventError says of a connection that was reset.
var errReset = errors.New("pool: the peer reset the connection")

// knownReasons are the reasons that a connection can point to without an allocation.
var knownReasons = knowReasons(
	ReasonPeer, ReasonReset, ReasonTimeout, ReasonServer, ReasonIdle, ReasonHeader, ReasonSlowBody, ReasonStalled,
	ReasonPing, ReasonSniff, ReasonTLS, ReasonAge, ReasonRequests, ReasonDrain, ReasonForced, ReasonRefused, ReasonFlood,
	ReasonLimit, ReasonAddressLimit,
)

func knowReasons(reasons ...string) map[string]*string {
	known := make(map[string]*string, len(reasons))
	for i, reason := range reasons {
		known[reason] = &reasons[i]
	}
	return known
}

// isTimeout reports whether a connection that was closed for reason had been too slow.
func isTimeout(reason string) bool {
	switch reason {
	case ReasonTimeout, ReasonIdle, ReasonHeader, ReasonSlowBody, ReasonStalled, ReasonPing, ReasonSniff:
		return true
	default:
		return false
	}
}

// CloseFor is Close with a reason, as SetCloseReason gives it. A caller that has wrapped
// c in a connection of its own closes that one instead.
func (c *Conn) CloseFor(reason string) error {
	c.SetCloseReason(reason)
	return c.Close()
}

// SetCloseReason records why c is about to be closed, for EventRemoved. The first reason
// stands, and an empty one is none. It does not close c.
func (c *Conn) SetCloseReason(reason string) {
	if reason == "" || c.closeReason.Load() != nil {
		return
	}
	known := knownReasons[reason]
	if known == nil {
		known = new(string)
		*known = reason
	}
	c.closeReason.CompareAndSwap(nil, known)
}

// CloseReason returns what SetCloseReason recorded. Without that it is "" until Close is called,
// and afterwards what the errors of the reads and writes say: [ReasonPeer], [ReasonReset], [ReasonTimeout] or [ReasonServer].
func (c *Conn) CloseReason() string {
	if reason := c.closeReason.Load(); reason != nil {
		return *reason
	}
	return ""
}

// settleReason fixes the reason when the connection is closed.
func (c *Conn) settleReason() {
	if c.closeReason.Load() == nil {
		c.SetCloseReason(reasonOf(c.status.Load()))
	}
}

// The notes that are kept of how reads and writes have failed.
const (
	noNote uint32 = iota
	noteEOF
	noteReset
	noteTimeout
)

// anyNote are the bits of a note.
const anyNote = noteTimeout

// reasonOf returns the reason that the notes in a status make.
func reasonOf(status uint32) string {
	read, write := status>>readNoteShift&anyNote, status>>writeNoteShift&anyNote
	switch {
	case write == noteTimeout && read != noteReset:
		return ReasonTimeout
	case read == noteEOF: // A write that breaks after that is what comes of it.
		return ReasonPeer
	case read == noteReset || write == noteReset:
		return ReasonReset
	case read == noteTimeout:
		return ReasonTimeout
	default:
		return ReasonServer
	}
}

// noteReadError keeps how a read failed, for the close reason. Errors that say nothing
// about the peer, and nil, have no effect.
func (c *Conn) noteReadError(err error) {
	note := noteOf(err)
	if note == noNote || note == noteTimeout && c.status.Load()&readAborted != 0 {
		return
	}
	c.setNote(readNoteShift, note)
}

// noteWriteError is noteReadError for a write. What a copy says of the end of its source is not about c.
func (c *Conn) noteWriteError(err error) {
	note := noteOf(err)
	if note == noNote || note == noteEOF || note == noteTimeout && c.status.Load()&writeAborted != 0 {
		return
	}
	c.setNote(writeNoteShift, note)
}

// noteOf says what an error means. One that means nothing, like that of a
// connection which was closed here, leaves the note of the one before.
func noteOf(err error) uint32 {
	switch {
	case err == nil:
		return noNote
	case errors.Is(err, io.EOF):
		return noteEOF
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return noteTimeout
	case isReset(err):
		return noteReset
	default:
		return noNote
	}
}

// setNote keeps a note of the reads or of the writes.
func (c *Conn) setNote(shift int, note uint32) {
	for {
		old := c.status.Load()
		if c.status.CompareAndSwap(old, old&^(anyNote<<shift)|note<<shift) {
			return
		}
	}
}
