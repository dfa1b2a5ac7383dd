package pool

import (
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
)

// The close reasons that the package finds out, where the caller has given none. They are
// variables, so that a connection can point to one without an allocation.
var (
	reasonPeer    = "peer_closed"   // the peer ended its side: the last read said io.EOF
	reasonReset   = "reset"         // the peer broke the connection off
	reasonTimeout = "timeout"       // a deadline ran out on the last read or write
	reasonServer  = "server_closed" // none of these: the server closed it
)

var errReset = errors.New("pool: the peer reset the connection")

// SetTimeouts names the caller's reasons that say that a connection was too slow, which
// put an EventTimeout before the EventRemoved. It is to be called before the first Add.
func (s *Set) SetTimeouts(reasons ...string) { s.timeouts = slices.Clone(reasons) }

// SetCloseReason records why c is about to be closed, for EventRemoved. The first reason
// stands, and an empty one has no effect. It does not close c.
func (c *Conn) SetCloseReason(reason string) {
	if reason == "" || c.closeReason.Load() != nil {
		return
	}
	if a := c.account.Load(); a != nil {
		if i := slices.Index(a.set.timeouts, reason); i >= 0 { // Without an allocation.
			c.closeReason.CompareAndSwap(nil, &a.set.timeouts[i])
			return
		}
	}
	given := reason
	c.closeReason.CompareAndSwap(nil, &given)
}

// ReplaceCloseReason records another reason where SetCloseReason has recorded old: the
// client was told to leave, and is now cut.
func (c *Conn) ReplaceCloseReason(old, reason string) {
	if recorded := c.closeReason.Load(); recorded != nil && *recorded == old {
		c.closeReason.CompareAndSwap(recorded, &reason)
	}
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

// The notes of how the last read or write failed: noNote if it succeeded.
const (
	noNote uint32 = iota
	noteEOF
	noteReset
	noteTimeout
)

const anyNote = noteTimeout // the bits of a note

// reasonOf returns the reason that the notes in a status make.
func reasonOf(status uint32) *string {
	read, write := status>>readNoteShift&anyNote, status>>writeNoteShift&anyNote
	switch {
	case write == noteTimeout && read != noteReset:
		return &reasonTimeout
	case read == noteEOF: // A write that breaks after that is what comes of it.
		return &reasonPeer
	case read == noteReset || write == noteReset:
		return &reasonReset
	case read == noteTimeout:
		return &reasonTimeout
	default:
		return &reasonServer
	}
}

// noteReadError keeps how a read failed. Errors that say nothing about the peer, and nil,
// have no effect.
func (c *Conn) noteReadError(err error) {
	note := noteOf(err)
	if note != noNote && (note != noteTimeout || c.status.Load()&readAborted == 0) {
		c.setNote(readNoteShift, note)
	}
}

// noteWriteError is noteReadError for a write. It ignores the end of a copy's source.
func (c *Conn) noteWriteError(err error) {
	note := noteOf(err)
	if note == noteReset || note == noteTimeout && c.status.Load()&writeAborted == 0 {
		c.setNote(writeNoteShift, note)
	}
}

// noteOf says what an error means. nil means nothing, nor does the error of a connection
// that was closed here.
func noteOf(err error) uint32 {
	switch {
	case errors.Is(err, io.EOF):
		return noteEOF
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return noteTimeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
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
