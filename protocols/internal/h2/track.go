package h2

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// The frames that a Track can be asked for. Each makes those before it needless.
const (
	askGoAway  uint32 = 1 << iota // GOAWAY for the largest stream.
	askFinal                      // GOAWAY for the highest stream that the client has opened.
	askFault                      // The same with the error for which the connection ends.
	askOwed                       // What a refused stream needs: RST_STREAM, and WINDOW_UPDATE for its DATA.
	askWindows                    // What was kept of the windows of streams; see keptWindows.
	askPing                       // The PING that follows the first GOAWAY.
	askRead                       // A PING, whose answer says that the client has read all before it.

	// askPings are written by themselves. Apache's mod_proxy_http2 keeps a connection behind a
	// GOAWAY for its next request, and fails that, where it owes the answer to a PING when it
	// has read the end of a response.
	askPings = askPing | askRead
)

// A BareConn is a connection that may stand over a bare socket, as the package pool's
// does. The methods are described there.
type BareConn interface {
	IsBare() bool
	ReadAhead(p []byte) (int, error)
	ReadReady(size int, pool buffers) (*[]byte, int, error)
}

// buffers is [google.golang.org/grpc/mem.BufferPool].
type buffers = interface {
	Get(length int) *[]byte
	Put(buf *[]byte)
}

// BareOf returns conn if it stands over a bare socket, and nil otherwise.
func BareOf(conn net.Conn) BareConn {
	if b, ok := conn.(BareConn); ok && b.IsBare() {
		return b
	}
	return nil
}

// Options describe the connection of a [Track].
type Options struct {
	// Played is set if SETTINGS and one ACK were sent in the server's place. The ACK of
	// the server is taken out then, and so is the client's first.
	Played bool
	// Acked is set if no ACK of the client is to be taken out, or none any more.
	Acked bool
	// SaysAll is set if the server's own SETTINGS add nothing to those sent in its place.
	// They are taken out then. It needs Played.
	SaysAll bool
	// HoldSettings keeps the client's second SETTINGS from the server until the server has
	// acknowledged the first. It needs Played. net/http answers two SETTINGS frames by one
	// ACK when the second comes before the first ACK is written. The Track takes that ACK
	// out, and the client's second SETTINGS would get none (RFC 9113, section 6.5.3).
	HoldSettings bool
	// NetHTTP is set where net/http is the server. Then small writes yield first, see
	// smallWrite, and the reads are paced, see pace. grpc-go does both itself.
	NetHTTP bool
	// Upgraded is set, with NetHTTP, where the request that asked for HTTP/2 is the first
	// stream. Its server is that of golang.org/x/net, which needs no encoderTable.
	Upgraded bool
	// MaxResetsPerMinute bounds the streams that the client breaks off, and eight times MaxStreams
	// those that it opens behind the GOAWAY which answers that; see HTTP2Config of the package
	// protocols. The Watch's OnFlood is called before that GOAWAY. 0: no bound.
	MaxResetsPerMinute int
	MaxStreams         uint32
	// Watch may be nil.
	Watch *Watch
	// IsNative has everything refused that is not a call to the native gRPC server, which
	// this connection is for. Client is for OnRefused.
	IsNative bool
	Client   uint32
	// MaxHeaderListBytes is the native server's bound on the fields of a call (RFC 9113,
	// section 6.5.2). A header block of more than twice that, and of more than 128 KiB, ends
	// the connection.
	MaxHeaderListBytes uint32
}

// A Track stands between a server and an HTTP/2 connection and follows the frames of
// both directions. It takes frames that the client must not see out of what the server
// writes, and writes frames of its own between the server's.
//
// One goroutine reads, by ReadMarker and Follow, and one at a time writes, by Begin and
// Finish. The other methods are safe at any time.
type Track struct {
	inner      net.Conn
	bare       BareConn // inner, or nil.
	watch      *Watch   // or nil.
	maxResets  int32
	maxStreams uint32

	asked    atomic.Uint32 // The ask bits of all that was ever asked for.
	pending  atomic.Uint32 // The ask bits of what is still to be written.
	marks    atomic.Uint32
	highest  atomic.Uint32 // The highest stream that the client has opened.
	answered atomic.Uint32 // How many answers are complete.
	// returned is by how much the client has enlarged the connection's window, modulo 2^32.
	returned atomic.Uint32

	sentData  atomic.Uint64             // See SentData.
	keepalive atomic.Pointer[keepalive] // Nil before it is needed.
	resets    atomic.Pointer[resetBound]
	calls     *callFilter // Nil: all streams pass.
	pace      *pace       // Nil where the server is not net/http.
	open      openStreams

	// serverAcked is closed when the server has acknowledged the client's first SETTINGS; nil
	// without HoldSettings.
	serverAcked chan struct{}

	// The reading goroutine owns these.
	firstACK *firstACK // Nil unless the client's first ACK is to be taken out.
	in       walk

	mu  sync.Mutex // Guards out, and makes writers take turns.
	out output
}

// New returns a Track of inner, whose client's first bytes were looked at and are still
// to be read.
func New(inner net.Conn, o Options) *Track {
	t := &Track{
		inner:      inner,
		bare:       BareOf(inner),
		watch:      o.Watch,
		maxResets:  int32(min(o.MaxResetsPerMinute, math.MaxInt32)),
		maxStreams: o.MaxStreams,
		in:         walk{left: uint32(len(http2.ClientPreface))},
	}
	t.out.lastTold = noGoAway
	if o.NetHTTP {
		t.pace = &pace{wake: make(chan struct{}, 1), table: encoderTable{on: !o.Upgraded, size: maxEncoderTable}}
	}
	if o.Upgraded {
		t.highest.Store(1)
		t.pace.gate.pass(1)
	}
	if o.Played {
		t.out.begun, t.out.dropACKs, t.out.dropSettings = true, 1, o.SaysAll
		if o.HoldSettings || !o.Acked {
			t.firstACK = &firstACK{left: len(http2.ClientPreface), out: o.Acked}
		}
	}
	if o.IsNative && o.Watch != nil && o.Watch.HasService != nil {
		t.calls = newCallFilter(&o)
	}
	if o.HoldSettings {
		t.serverAcked = make(chan struct{})
	}
	return t
}

// Bare returns the connection if it stands over a bare socket, and nil otherwise.
func (t *Track) Bare() BareConn { return t.bare }

// End ends the wait for the server's ACK, that for the frames that it owes, and that for
// the moment of a PING: the connection ends.
func (t *Track) End() {
	t.pace.end()
	t.pingNever()
	t.releaseSettings()
}

// releaseSettings ends the wait for the server's ACK.
func (t *Track) releaseSettings() {
	if t.serverAcked != nil && t.marks.Or(markReleased)&markReleased == 0 {
		close(t.serverAcked)
	}
}

// Ready moves bytes to p that were held back by Follow and that the server reads next. It
// returns 0 where there are none.
func (t *Track) Ready(p []byte) int {
	if t.calls == nil {
		return 0
	}
	return t.calls.ready(p)
}

// IsPlain reports whether the server's next bytes can come right from the connection: no
// read waits for an ACK or takes one out, and nothing was held back. The reading goroutine
// asks.
func (t *Track) IsPlain() bool {
	hasReady := t.calls != nil && t.calls.split != nil && len(t.calls.split.ready) > 0
	return !t.AwaitsACK() && !hasReady && t.Fault() == nil
}

// Fault returns the error for which the connection ends, if there is one. The server is to
// read it when Ready has nothing more. The reading goroutine asks.
func (t *Track) Fault() error {
	if code := t.faultCode(); code != 0 {
		return http2.ConnectionError(code)
	}
	return nil
}

// faultCode is that of Fault, or 0.
func (t *Track) faultCode() http2.ErrCode {
	if t.calls == nil {
		return 0
	}
	return http2.ErrCode(t.calls.fault)
}

// ReadReady waits until the client has sent something, and reads up to size bytes into a
// buffer that it then takes from pool. So an idle connection holds none. Where the
// connection does not stand over a bare socket, as with TLS, it waits for the header of the
// next frame; within a frame the buffer is taken first. The caller gives the buffer back; it
// is nil where n is 0.
func (t *Track) ReadReady(size int, pool buffers) (buf *[]byte, n int, err error) {
	if t.bare != nil {
		return t.bare.ReadReady(size, pool)
	}
	var header []byte
	if t.in.atBoundary() && t.calls.atBoundary() {
		header = t.in.head[:min(HeaderLen, size)] // No other head is being read.
		if n, err = t.inner.Read(header); n == 0 {
			return nil, 0, err
		}
	}
	buf = pool.Get(size)
	copy(*buf, header[:n])
	if n == 0 || n == HeaderLen && err == nil && ParseHeader(header).Length > 0 {
		var payload int
		payload, err = t.inner.Read((*buf)[n:])
		n += payload
	}
	if n == 0 {
		pool.Put(buf)
		return nil, 0, err
	}
	return buf, n, err
}

// Follow looks at p, which was read for the server. It returns how much of p the server
// gets, which may have been moved in p. It may close the connection.
func (t *Track) Follow(p []byte) int {
	if t.calls == nil {
		return t.followHeld(p)
	}
	r := refusal{watch: t.watch}
	passed := t.calls.filter(p, &r)
	passed = passed[:t.follow(passed)]
	n := copy(p, passed)
	if n < len(passed) {
		t.calls.keep(passed[n:])
	}
	if r.stream != 0 || r.refund != 0 {
		t.refuse(&r)
	}
	if t.calls.fault != 0 {
		t.fail()
	}
	return n
}

// follow looks at what the server is to get. It returns the length of that, or 0 where the
// client goes on with a flood, and then closes the connection.
func (t *Track) follow(p []byte) int {
	if len(p) > 0 {
		t.noteHeard()
	}
	for at := 0; at < len(p); {
		t.hideACK(p[at:])
		if p = p[:at+t.hideStray(p[at:])]; at == len(p) {
			break // The rest is held.
		}
		n, complete := t.in.advance(p[at:])
		at += n
		if t.in.atBoundary() && t.in.frame().endsHeaders() {
			t.marks.And(^markOpening)
		}
		if !complete {
			if t.pace != nil && t.in.isWithin(http2.FrameSettings) {
				t.followSettings(p[at-n : at])
			}
			continue
		}
		if t.pace != nil {
			t.pace.follow(t.in.frame())
		}
		t.received(t.in.frame())
		if r := t.resets.Load(); r != nil && t.maxStreams > 0 && uint64(r.late) > lateStreams*uint64(t.maxStreams) {
			t.askNow(askFault)
			t.abort()
			return 0
		}
	}
	return len(p)
}

// refuse tells the client of a refusal, behind the streams that the server has got.
func (t *Track) refuse(r *refusal) {
	f := t.calls
	f.refund.Add(r.refund)
	owed := askOwed
	if r.stream != 0 {
		f.refused.Store(r.stream)
		if t.asked.Or(askFinal) < askFinal {
			owed |= askFinal
		}
		t.watch.OnRefused(t.inner, f.client, r.request) // Before the client can know.
	}
	t.pending.Or(owed)
	go t.settle() // In another goroutine, since the client may read nothing.
}

// fail tells the client for which error the connection ends, and has it read that: a socket
// that is closed with bytes unread resets the connection. The server, which reads the
// [Track.Fault] next, closes it.
func (t *Track) fail() {
	t.askNow(askFault)
	_ = t.inner.SetReadDeadline(time.Now().Add(faultTime))
	_, _ = io.Copy(io.Discard, t.inner)
}

// received takes note of a frame of the client's.
func (t *Track) received(h Header) {
	switch h.Type {
	case http2.FrameData:
		if t.pace != nil {
			t.pace.connRoom.Add(-int64(h.Length))
		}
	case http2.FrameHeaders:
		if last := t.highest.Load(); h.Stream > last && h.Stream%2 == 1 {
			if r := t.resets.Load(); r != nil {
				r.opened(last, h.Stream)
			}
			t.open.open(last, h.Stream)
			if !h.endsHeaders() || h.Length > 0 {
				t.marks.Or(markOpening)
			}
			t.highest.Store(h.Stream)
			if t.pace != nil {
				t.pace.gate.pass(h.Stream)
			}
		}
	case http2.FrameRSTStream:
		t.reset(h.Stream)
		t.ended(h.Stream)
	case http2.FrameSettings:
		if t.pace == nil {
			break
		}
		if h.IsAck() && t.pace.unacked.Load() > 0 {
			t.pace.unacked.Add(-1)
		}
		t.pace.table.begin(h, t.highest.Load() > 0)
	case http2.FrameWindowUpdate:
		if h.Stream == 0 && h.Length == WindowUpdateLen {
			t.returned.Add(Uint31(t.in.payload()))
		}
	case hiddenFrame:
		t.acknowledged(h.IsAck())
	case http2.FramePing:
		if !h.IsAck() {
			return
		}
		payload := t.in.payload()
		t.notePong(payload)
		if string(payload) == string(goAwayPing[:]) && t.marks.Load()&markPinged != 0 {
			t.marks.Or(markSettled)
		}
		if sent, ok := bytes.CutPrefix(payload, []byte(readPing)); ok && h.Length == PingLen {
			t.noteRead(binary.BigEndian.Uint32(sent))
		}
	}
}

// Opened returns the highest stream that the client has opened, 0 before the first.
func (t *Track) Opened() uint32 { return t.highest.Load() }

// ended notes that an answer is complete, or that either side has reset the stream.
func (t *Track) ended(stream uint32) {
	if stream%2 == 1 && stream <= t.highest.Load() {
		t.open.end(stream)
	}
}

// HasOpenStreams reports whether streams are open that are served: the answer to one is not
// complete in what the server has begun to write, and neither side has reset it. Without its
// whole header block a stream is none.
func (t *Track) HasOpenStreams() bool {
	last := t.highest.Load()
	if t.marks.Load()&markOpening != 0 {
		last--
	}
	if g := t.gate(); g != nil {
		last = g.lastServed(last)
	}
	return t.open.any(last)
}

// SentData returns the length of all DATA frames that the server has begun to write, and one
// more for the end of each answer.
func (t *Track) SentData() uint64 { return t.sentData.Load() }

// WindowShut reports whether net/http has left the client too little room for another whole
// frame of DATA. It says nothing of another server.
func (t *Track) WindowShut() bool {
	return t.pace != nil && t.pace.connRoom.Load() < MaxFrameSize-DefaultWindow
}
