package pool

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// State says what a connection is doing.
type State uint32

// The states of a connection. A server moves a connection between StateActive and
// StateIdle as often as it likes; the others are entered once.
const (
	stateSniffing State = iota // its protocol is not known yet
	StateActive                // a request, stream or call is in flight
	StateIdle                  // it is open and nothing is in flight
	StateUpgraded              // it left HTTP: WebSocket, or another protocol after a hijack
	StateClosing               // it is being closed
)

var stateNames = [...]string{"sniffing", "active", "idle", "upgraded", "closing"}

// String returns the state's name in lower case.
func (s State) String() string { return nameOf(stateNames[:], int(s)) }

func nameOf(names []string, n int) string {
	if n < len(names) {
		return names[n]
	}
	return "unknown"
}

// Conn is a connection with an account: an identity, times, bytes each way, a tag and a
// state. [Set.Add] makes it. It may be embedded by value in a bigger struct; it must not
// be copied after Add.
//
// Read and Write go straight to the wrapped connection: nothing is buffered, locked or
// allocated. ReadFrom, CloseWrite and SyscallConn pass through as well, so that sendfile
// and splice work.
//
// All methods may be called concurrently. The first call to Close closes the account; a
// connection that is never closed stays in its pool.
type Conn struct {
	raw   net.Conn // a *steps where the system does not say what the peer takes
	owner any
	id    uint64

	account     atomic.Pointer[account] // the pool that it is in, or was closed in
	opened      int64                   // the accept, in nanoseconds since the Set began
	want, armed atomic.Int64            // the read deadline, and the socket's; see deadline.go

	reader         atomic.Pointer[reader] // see read_ahead.go; nil before it is needed
	received, sent atomic.Uint64          // bytes
	messagesIn     atomic.Uint64
	messagesOut    atomic.Uint64
	requests       atomic.Uint64          // requests, calls or WebSocket sessions
	ended          atomic.Uint32          // how many of those are over: the lower bits
	readers        atomic.Int32           // the calls of Read
	status         atomic.Uint32          // the State, and the bits below
	last           atomic.Uint32          // when the last byte passed, by the Set's clock
	writes         atomic.Uint64          // see writeBegun
	closeReason    atomic.Pointer[string] // nil before it is settled
}

// stripe returns the number of the stripe of the Set that holds the connection.
func (c *Conn) stripe() int { return int(c.id % stripeCount) }

// isRemoved reports whether the connection has left the Set, which it does with its stripe
// locked.
func (c *Conn) isRemoved() bool {
	a := c.account.Load()
	return a == nil || a.closed == nil
}

// The bits of Conn.status.
const (
	stateBits = 1<<3 - 1
	closedBit = 1 << 3 // Close was called
	// How the last read and the last write failed, as a note.
	readNoteShift  = 4
	writeNoteShift = 6
	// readAborted and writeAborted are set while the deadline in force had run out when
	// it was set: a server wakes its own goroutines so, and the peer was not too slow.
	readAborted      = 1 << 8
	writeAborted     = 1 << 9
	exemptBit        = 1 << 10 // it takes no place; changed with its stripe locked
	lazyBit          = 1 << 11 // raw is a bare socket
	eagerBit         = 1 << 12 // and its read deadline is set at once
	writeDeadlineBit = 1 << 13 // there was a write deadline, which has to be taken back
	directBit        = 1 << 14 // the read deadline was set, so that reads need not look at it
	clientBit        = 1 << 15 // it counts for its client; changed with its stripe locked
	yieldedBit       = 1 << 16 // its pool's place was given up; changed with its stripe locked
	innerBit         = 1 << 17 // it is within the process; changed with its stripe locked
)

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
)

// ID returns the connection's number. Numbers start at 1 and are unique within a Set.
func (c *Conn) ID() uint64 { return c.id }

// Owner returns the value that was given to [Set.Add].
func (c *Conn) Owner() any { return c.owner }

// NetConn returns the wrapped connection. What is read or written there is not counted.
func (c *Conn) NetConn() net.Conn {
	if s, ok := c.raw.(*steps); ok {
		return s.Conn
	}
	return c.raw
}

// State returns what the connection is doing.
func (c *Conn) State() State { return State(c.status.Load() & stateBits) }

// SetState records what the connection is doing. StateClosing is final: a later call has
// no effect.
func (c *Conn) SetState(s State) {
	for {
		old := c.status.Load()
		if State(old&stateBits) == StateClosing || c.status.CompareAndSwap(old, old&^stateBits|uint32(s)&stateBits) {
			return
		}
	}
}

// BeginRequest counts a request, call or WebSocket session that is in flight from now on,
// and returns its number on the connection; the first is 1. Each needs an EndRequest.
func (c *Conn) BeginRequest() (number uint64) { return c.requests.Add(1) }

// EndRequest ends what BeginRequest began.
func (c *Conn) EndRequest() { c.ended.Add(1) }

// Requests returns how many requests the connection has had.
func (c *Conn) Requests() uint64 { return c.requests.Load() }

// InFlight returns how many of its requests are not answered yet.
func (c *Conn) InFlight() int {
	ended := c.ended.Load() // First, so that there are never more of them than there were requests.
	return int(uint32(c.requests.Load()) - ended)
}

// IsWriting reports whether a write is outstanding.
func (c *Conn) IsWriting() bool { return c.writes.Load()%writeEnded != 0 }

// Opened returns the time of the accept, by the clock as it was when the Set began: a
// clock that was set since then does not move it.
func (c *Conn) Opened() time.Time { return c.account.Load().at(c.opened) }

// Received returns the number of bytes read from the peer so far.
func (c *Conn) Received() uint64 { return c.received.Load() }

// LastActivity returns the time of the last byte in either direction, or of the accept if
// there was none. It is up to a fifth of a second late, and never early.
func (c *Conn) LastActivity() time.Time {
	a := c.account.Load()
	last := c.opened
	if c.received.Load()+c.sent.Load() > 0 {
		last = min((int64(c.last.Load())+clockLag)*int64(clockStep), a.now())
	}
	return a.at(max(c.opened, last))
}

// CountMessages books messages, as the protocol defines them, of gRPC streams or a
// WebSocket.
func (c *Conn) CountMessages(received, sent int) {
	if received > 0 {
		c.messagesIn.Add(uint64(received))
	}
	if sent > 0 {
		c.messagesOut.Add(uint64(sent))
	}
}

// traffic returns all that the connection has moved so far.
func (c *Conn) traffic() traffic {
	return traffic{c.received.Load(), c.sent.Load(), c.messagesIn.Load(), c.messagesOut.Load()}
}

// Info is a connection's account at one moment, in a form that can be shown. The caller
// adds both addresses, which a connection may have to wait for, Verdict with its figures,
// and TLS.
type Info struct {
	ID            uint64    `json:"id"`
	Protocol      string    `json:"protocol"`
	State         string    `json:"state"`
	RemoteAddr    string    `json:"remote_addr"` // empty until it is known
	LocalAddr     string    `json:"local_addr"`  // the same
	Opened        time.Time `json:"opened"`
	LastActivity  time.Time `json:"last_activity"`
	BytesReceived uint64    `json:"bytes_received"`
	BytesSent     uint64    `json:"bytes_sent"`
	Requests      uint64    `json:"requests"`  // requests, calls and WebSocket sessions so far
	InFlight      int       `json:"in_flight"` // of those, the ones that are not over

	MessagesReceived uint64 `json:"messages_received"` // as [Conn.CountMessages] was told
	MessagesSent     uint64 `json:"messages_sent"`

	// Why the connection was given its protocol, and what it took to find that.
	Verdict       string   `json:"verdict,omitempty"`
	VerdictBytes  int      `json:"verdict_bytes,omitempty"`
	VerdictMicros float64  `json:"verdict_micros,omitempty"`
	TLS           *TLSInfo `json:"tls,omitempty"`
}

// TLSInfo are the facts of a TLS handshake.
type TLSInfo struct {
	Version       string `json:"version"`
	Cipher        string `json:"cipher"`
	ALPN          string `json:"alpn"`
	ServerName    string `json:"server_name"`
	ClientSubject string `json:"client_subject"`
}

// NewTLSInfo returns the facts of a handshake, or nil where there was none.
func NewTLSInfo(state *tls.ConnectionState) *TLSInfo {
	if state == nil {
		return nil
	}
	info := &TLSInfo{
		Version:    tls.VersionName(state.Version),
		Cipher:     tls.CipherSuiteName(state.CipherSuite),
		ALPN:       state.NegotiatedProtocol,
		ServerName: state.ServerName,
	}
	if len(state.PeerCertificates) > 0 {
		info.ClientSubject = state.PeerCertificates[0].Subject.String()
	}
	return info
}

// Info returns c's account at this moment.
func (c *Conn) Info() Info {
	moved := c.traffic()
	return Info{
		ID:               c.id,
		Protocol:         string(c.Tag()),
		State:            c.State().String(),
		Opened:           c.Opened(),
		LastActivity:     c.LastActivity(),
		BytesReceived:    moved.bytesReceived,
		BytesSent:        moved.bytesSent,
		Requests:         c.Requests(),
		InFlight:         c.InFlight(),
		MessagesReceived: moved.messagesReceived,
		MessagesSent:     moved.messagesSent,
	}
}
