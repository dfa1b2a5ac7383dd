package sniff

import "time"

// This file has what a Conn says of HTTP/2, and does there: leaving, what the client has read,
// and windows.

// GoAway tells the client of an HTTP/2 connection to open no more streams. It sends
// a GOAWAY that refuses no stream (RFC 9113, section 6.8), and PingAfter of the package
// moments behind that a PING, unless FinalGoAway comes first. Streams that the client
// sends before it has read them are served. When [Conn.GoneAway] says that the PING has
// come back, [Conn.FinalGoAway] can name the last stream.
//
// The GOAWAY is written between two frames of the server. If a Write is under way,
// it takes it along, and GoAway does not wait for it. Otherwise GoAway waits until
// it is written, for a second at most. If the client reads nothing, it is then
// still to be written, and the server's next Write waits for it. The PING is a write by
// itself.
//
// Only the first call has an effect. It has none on a connection that was not
// recognised as HTTP2 or GRPC, after a GOAWAY of the server, after FinalGoAway, and
// after Close.
//
// After a GOAWAY of ours, one of the server is taken out if it has no error code and
// names no lower stream, because the number must not grow.
func (c *Conn) GoAway() {
	if t := c.h2.Load(); t != nil {
		t.GoAway()
	}
}

// FinalGoAway sends a GOAWAY that names the highest stream that the client has opened
// so far. Streams beyond that are not served, but on a native gRPC connection that is not
// watched. GoAway need not precede it, and what is said there of writing holds here, but
// that FinalGoAway waits for a Write that is under way as well, since its caller may close
// the connection.
func (c *Conn) FinalGoAway() {
	if t := c.h2.Load(); t != nil {
		t.FinalGoAway()
	}
}

// GoneAway reports whether a GOAWAY was written (told), and whether there is nothing
// more to wait for (acked): the PING of [Conn.GoAway] has come back, so that no
// stream is on its way, or another GOAWAY was written, by FinalGoAway, for a
// flood of resets, or by the server.
func (c *Conn) GoneAway() (told, acked bool) {
	if t := c.h2.Load(); t != nil {
		return t.GoneAway()
	}
	return false, false
}

// AskRead sends the client of an HTTP/2 connection a PING behind the answers so far, for
// [Conn.HasRead], unless one was sent for them. It does not wait for the writing.
func (c *Conn) AskRead() {
	if t := c.h2.Load(); t != nil {
		t.AskRead()
	}
}

// HasRead reports whether the client of an HTTP/2 connection has read all answers to their
// end, as far as AskRead has asked. A client answers a PING when it has read what comes before
// it, while a proxy in between, or the client's system, may hold answers that they have
// acknowledged. It is true elsewhere.
func (c *Conn) HasRead() bool {
	t := c.h2.Load()
	return t == nil || t.HasRead()
}

// IsMute reports whether the client of an HTTP/2 connection has owed the answer to a keepalive
// PING of the server, and sent nothing, for longer than the timeout. Where the client may not
// have read what stands before that PING, it has more time; see PingTimeout of the package
// moments.
func (c *Conn) IsMute(timeout time.Duration) bool {
	t := c.h2.Load()
	return t != nil && t.IsMute(timeout)
}

// ServerLeft reports what made the server of an HTTP/2 connection leave by itself:
// the connection was idle, or too old, or the client has not answered a keepalive PING for
// longer than patience, nor sent anything else. A server that is shut down looks like one whose
// connection is idle.
func (c *Conn) ServerLeft(patience time.Duration) (idle, aged, mute bool) {
	if t := c.h2.Load(); t != nil {
		return t.ServerLeft(patience)
	}
	return false, false, false
}

// OpenedStreams returns the highest stream that the client of an HTTP/2 connection has
// opened, and 0 elsewhere.
func (c *Conn) OpenedStreams() uint32 {
	if t := c.h2.Load(); t != nil {
		return t.Opened()
	}
	return 0
}

// HasOpenStreams reports whether streams are open on an HTTP/2 connection that are served: the
// answer to one is not complete in what the server has begun to write, and neither side has
// reset it.
func (c *Conn) HasOpenStreams() bool {
	t := c.h2.Load()
	return t != nil && t.HasOpenStreams()
}

// IsBeyondLast reports whether the client was told, by FinalGoAway or a GOAWAY with an error,
// that a stream is not served. It will open it anew on another connection.
func (c *Conn) IsBeyondLast(stream uint32) bool {
	t := c.h2.Load()
	return t != nil && t.IsBeyondLast(stream)
}

// SentData returns the length in bytes of all DATA frames that the server has begun
// to write on an HTTP/2 connection, and one more for the end of each answer. It is 0
// elsewhere. A PING does not move it.
func (c *Conn) SentData() uint64 {
	if t := c.h2.Load(); t != nil {
		return t.SentData()
	}
	return 0
}

// Unread returns how much of SentData the client of an HTTP/2 connection may not have read: it
// has answered no PING behind that, of AskRead or for keepalive. It is 0 elsewhere.
func (c *Conn) Unread() uint64 {
	if t := c.h2.Load(); t != nil {
		return t.Unread()
	}
	return 0
}

// Reading returns a number that moves while the client of an HTTP/2 connection reads: it
// answers such PINGs, or gives back to the connection's window. It is 0 elsewhere.
func (c *Conn) Reading() uint64 {
	if t := c.h2.Load(); t != nil {
		return t.Reading()
	}
	return 0
}

// WindowShut reports whether net/http has left the client of an HTTP/2 connection too little
// room for another whole frame of DATA. It says nothing of another server.
func (c *Conn) WindowShut() bool {
	t := c.h2.Load()
	return t != nil && t.WindowShut()
}

// KeepWindow keeps updates of the flow-control window of a stream from the client, until
// GiveWindow. It reports false where net/http does not serve the connection by HTTP/2.
func (c *Conn) KeepWindow(stream uint32) bool {
	t := c.h2.Load()
	return t != nil && t.KeepWindow(stream)
}

// GiveWindow tells the client of the updates that were kept, unless the stream is over.
// KeepWindow must have returned true.
func (c *Conn) GiveWindow(stream uint32, over bool) { c.h2.Load().GiveWindow(stream, over) }

// SetInitialWindow has the client take size for the initial window of its streams (RFC 9113,
// section 6.9.2). It does nothing where net/http does not serve the connection by HTTP/2.
func (c *Conn) SetInitialWindow(size uint32) {
	if t := c.h2.Load(); t != nil {
		t.SetInitialWindow(size)
	}
}
