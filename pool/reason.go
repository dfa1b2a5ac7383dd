package pool

import (
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
)

// The reasons for which a connection was closed that the package finds out for itself,
// where the caller has given none by [Conn.SetCloseReason].
const (
	reasonPeer    = "peer_closed"   // the peer ended its side: the last read said io.EOF
	reasonReset   = "reset"         // the peer broke the connection off
	reasonTimeout = "timeout"       // a deadline ran out on the last read or write
	reasonServer  = "server_closed" // none of these: the server closed it
)

// errReset is what an EventError says of a connection that was reset.
var errReset = errors.New("pool: the peer reset the connection")

// ownReasons are the reasons above, to which a connection points without an allocation.
var ownReasons = pointTo([]string{reasonPeer, reasonReset, reasonTimeout, reasonServer})

func pointTo(reasons []string) map[string]*string {
	all := make(map[string]*string, len(reasons))
	for i, reason := range reasons {
		all[reason] = &reasons[i]
	}
	return all
}

// SetTimeouts names the caller's reasons that say that a connection was too slow. Where
// one of them is given, an EventTimeout comes before the EventRemoved. It is to be called
// before the first Add.
func (s *Set) SetTimeouts(reasons ...string) { s.timeouts = pointTo(slices.Clone(reasons)) }

// isTimeout reports whether a connection that was closed for reason had been too slow.
func (s *Set) isTimeout(reason string) bool {
	return reason == reasonTimeout || s.timeouts[reason] != nil
}

// SetCloseReason records why c is about to be closed, for EventRemoved. The first reason
// stands, and an empty one has no effect. It does not close c.
func (c *Conn) SetCloseReason(reason string) {
	if reason == "" || c.closeReason.Load() != nil {
		return
	}
	known := ownReasons[reason]
	if a := c.account.Load(); known == nil && a != nil {
		known = a.set.timeouts[reason]
	}
	if known == nil {
		known = new(string)
		*known = reason
	}
	c.closeReason.CompareAndSwap(nil, known)
}

// CloseReason returns what SetCloseReason recorded. Without that it is "" until Close is
// called. From then on it is what the last errors of reads and writes say: "peer_closed",
// "reset", "timeout" or "server_closed".
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
		return reasonTimeout
	case read == noteEOF: // A write that breaks after that is what comes of it.
		return reasonPeer
	case read == noteReset || write == noteReset:
		return reasonReset
	case read == noteTimeout:
		return reasonTimeout
	default:
		return reasonServer
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

// noteWriteError is noteReadError for a write. The end of a copy's source says nothing of c.
func (c *Conn) noteWriteError(err error) {
	note := noteOf(err)
	if note == noNote || note == noteEOF || note == noteTimeout && c.status.Load()&writeAborted != 0 {
		return
	}
	c.setNote(writeNoteShift, note)
}

// noteOf says what an error means. An error without a meaning, such as that of a
// connection which was closed here, leaves the note before it.
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
