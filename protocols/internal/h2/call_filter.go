package h2

import (
	"math"
	"net"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// A callFilter keeps from a native gRPC server what is not one of its calls. It reads the
// client's header blocks on their way to the server. At the first stream that asks for
// something else, the client gets RST_STREAM with REFUSED_STREAM and a GOAWAY below that
// stream, so that it asks again on another connection (RFC 9113, section 8.7). From then on
// the server gets no header block, since its HPACK state would be out of step; the frames
// of the calls under way go on.
//
// A client whose header blocks the filter cannot follow has broken the rules. Then the server
// gets nothing more, whatever it would do with the error, and the connection ends; see
// [Track.fail].
//
// The reading goroutine owns a callFilter, but for what is atomic.
type callFilter struct {
	table headerTable
	first [usualEntries]tableEntry // The table's, until it has more.
	split *splitFrames             // Of what came in pieces; nil if none did.

	left     uint32 // What is to come of a frame that is no HEADERS.
	dropping bool   // That frame is dropped.
	fault    uint8  // The code of the error that ends the connection, else 0.
	refusing bool   // A stream was refused; last is the one before.
	last     uint32 // The highest stream that the server has got.
	client   uint32 // The Options' Client.

	gate streamGate // of what the server gets

	// What the writing goroutine owes the client: the RST_STREAM of this stream, 0 for
	// none, and so much of the connection's window.
	refused, refund atomic.Uint32
}

// usualEntries is how many entries the table of a grpc-go client has after its first call.
const usualEntries = 8

func newCallFilter(o *Options) *callFilter {
	f := &callFilter{left: uint32(len(http2.ClientPreface)), client: o.Client}
	f.table = headerTable{limit: tableLimit, entries: f.first[:0]}
	f.table.maxBlock = uint32(min(max(leastBlock, 2*uint64(o.MaxHeaderListBytes)), math.MaxInt32))
	return f
}

// splitFrames is a frame header that has come in part, or the header block that has, in
// frames. The server gets neither before it is whole.
type splitFrames struct {
	held  []byte
	frame int    // Where the last frame begins in held.
	ready []byte // What was held and did not fit into the server's buffer.
}

// A Watch is what all HTTP/2 connections of a listener are watched by.
type Watch struct {
	// IsContentType and HasService say what a call to the native gRPC server is: one with
	// such a content type to such a path. Nil: its connections are not watched.
	IsContentType func(string) bool
	HasService    func(path string) bool
	// The others are called with the connection that the Track was made with.
	//
	// OnRefused is called when a stream was refused on a native connection, once, with
	// the Options' Client.
	OnRefused func(inner net.Conn, client uint32, r Request)
	// OnFlood is called when a client has reset too many streams, once; nil for nothing.
	OnFlood func(inner net.Conn)
	// OnSmallerTable is called when a client wants a smaller HPACK table than net/http's
	// encoder uses, once; nil for nothing. It gets GOAWAY, and no ACK of SETTINGS any more.
	OnSmallerTable func(inner net.Conn)
}

// leastBlock is the least bound on a header block that has come in part, in bytes. grpc-go's
// bound is on the decoded fields. Twice that is more than they take on the wire, but for
// table size updates, padding and Huffman codes that are longer than what they stand for.
const leastBlock = 128 << 10

// A refusal is a stream that the filter has refused, as watch says.
type refusal struct {
	watch   *Watch
	stream  uint32
	request Request
	refund  uint32 // Length of the DATA that was dropped.
}

// filter returns what the server is to get of p: mostly p itself.
func (f *callFilter) filter(p []byte, r *refusal) []byte {
	e := edit{p: p}
	at := 0
	for at < len(p) && f.fault == 0 {
		at += f.step(&e, p, at, r)
	}
	e.cut(at, len(p))
	return e.result()
}

// step takes in some of p behind at, and returns how much.
func (f *callFilter) step(e *edit, p []byte, at int, r *refusal) int {
	b := p[at:]
	switch {
	case f.left > 0:
		n := min(int(f.left), len(b))
		f.left -= uint32(n)
		if f.dropping {
			e.cut(at, at+n)
		}
		return n
	case f.split != nil && len(f.split.held) > 0:
		return f.resume(e, p, at, r)
	case len(b) < HeaderLen:
		return f.hold(e, at, len(b), b)
	}
	h := ParseHeader(b)
	if f.checkFrame(h, true); f.fault != 0 {
		return 0
	}
	if h.Type != http2.FrameHeaders {
		f.begin(h, r)
		if f.dropping {
			e.cut(at, at+HeaderLen)
		}
		return HeaderLen
	}
	n := HeaderLen + h.Length
	if len(b) < n || !h.Flags.Has(http2.FlagHeadersEndHeaders) {
		n = min(n, len(b))
		return f.hold(e, at, n, b)
	}
	f.pass(e, at, at+n, b[:n], r)
	return n
}

// atBoundary reports whether the client's next byte begins a frame. A nil f does not know of
// another.
func (f *callFilter) atBoundary() bool {
	return f == nil || f.left == 0 && (f.split == nil || len(f.split.held) == 0)
}

// checkFrame looks for what would make the server and the filter read different header
// blocks (RFC 9113, sections 4.2 and 6.10). A frame that is not the first goes on with one.
func (f *callFilter) checkFrame(h Header, first bool) {
	switch isMore := h.Type == http2.FrameContinuation; {
	case h.Length > MaxFrameSize:
		f.fail(http2.ErrCodeFrameSize)
	case isMore == first, isMore && h.Stream != ParseHeader(f.split.held).Stream:
		f.fail(http2.ErrCodeProtocol)
	}
}

// fail has the server get nothing more.
func (f *callFilter) fail(code http2.ErrCode) { f.fault = uint8(code) }

// begin decides on a frame that is no HEADERS, by its header.
func (f *callFilter) begin(h Header, r *refusal) {
	f.left = uint32(h.Length)
	f.dropping = false
	if !f.refusing {
		return
	}
	switch h.Type {
	case http2.FrameData:
		f.dropping = h.Stream > f.last
		if f.dropping {
			r.refund += uint32(h.Length)
		}
	case http2.FrameRSTStream, http2.FrameWindowUpdate, http2.FramePriority:
		f.dropping = h.Stream > f.last
	}
}

// hold keeps the first n bytes of b, which stands at at, from the server.
func (f *callFilter) hold(e *edit, at, n int, b []byte) int {
	if f.split == nil {
		f.split = new(splitFrames)
	}
	f.split.held = append(f.split.held, b[:n]...)
	e.cut(at, at+n)
	return n
}

// resume goes on with what was held.
func (f *callFilter) resume(e *edit, p []byte, at int, r *refusal) int {
	s, b := f.split, p[at:]
	have, want := len(s.held)-s.frame, HeaderLen
	if have >= HeaderLen {
		want += ParseHeader(s.held[s.frame:]).Length
	}
	n := min(want-have, len(b))
	f.hold(e, at, n, b)
	if have+n < want {
		return n
	}
	h := ParseHeader(s.held[s.frame:])
	isFirst := s.frame == 0
	if f.checkFrame(h, isFirst); f.fault == 0 && len(s.held) > int(f.table.maxBlock) {
		f.fail(http2.ErrCodeEnhanceYourCalm)
	}
	switch {
	case f.fault != 0:
		f.forget()
	case isFirst && h.Type != http2.FrameHeaders:
		f.begin(h, r)
		if !f.dropping {
			e.insert(at+n, s.held)
		}
		f.forget()
	case len(s.held)-s.frame < HeaderLen+h.Length: // Only the header is whole.
	case !h.Flags.Has(http2.FlagHeadersEndHeaders): // The same bit for CONTINUATION.
		s.frame = len(s.held)
	default:
		block := s.held
		f.forget()
		f.passHeld(e, at+n, block, r)
	}
	return n
}

// forget lets go of what was held, whose bytes stay as they are.
func (f *callFilter) forget() { f.split.held, f.split.frame = nil, 0 }

// pass passes p[from:to], which is the header block of one frame, or cuts it.
func (f *callFilter) pass(e *edit, from, to int, frames []byte, r *refusal) {
	if instead, ok := f.admit(frames, r); !ok {
		e.cut(from, to)
		e.insert(to, instead)
	}
}

// passHeld is pass for frames that were held.
func (f *callFilter) passHeld(e *edit, at int, frames []byte, r *refusal) {
	if instead, ok := f.admit(frames, r); !ok {
		frames = instead
	}
	e.insert(at, frames)
}

// admit reports whether the server gets a header block, which stands in frames, and
// otherwise what it gets instead.
func (f *callFilter) admit(frames []byte, r *refusal) (instead []byte, ok bool) {
	h := ParseHeader(frames)
	if f.refusing {
		if h.Stream <= f.last && h.Flags.Has(http2.FlagHeadersEndStream) {
			// Trailers, which no gRPC client sends. The stream's end is what counts.
			return appendStreamFrame(nil, http2.FrameData, http2.FlagDataEndStream, h.Stream, nil), false
		}
		return nil, false
	}
	block, ok := joinBlock(frames)
	if !ok || h.Stream <= f.last || h.Stream%2 == 0 {
		// For grpc-go, padding that is too long is an error of that stream alone. Behind a
		// stream with such an error it serves lower ones as new.
		f.fail(http2.ErrCodeProtocol)
		return nil, false
	}
	request, err := f.table.read(block, r.watch)
	switch {
	case err != nil:
		f.fail(http2.ErrCodeCompression)
	case !request.isServed():
		f.refusing = true
		r.stream, r.request = h.Stream, request
	case !f.gate.pass(h.Stream):
		f.refusing = true // Without a word, since the client knows.
	default:
		f.last = h.Stream
		return nil, true
	}
	return nil, false
}

// joinBlock returns the header block in whole frames, without padding and priority.
func joinBlock(frames []byte) ([]byte, bool) {
	h := ParseHeader(frames)
	block, _, ok := HeadersFragment(h, frames[HeaderLen:HeaderLen+h.Length])
	if rest := frames[HeaderLen+h.Length:]; ok && len(rest) > 0 {
		block = append([]byte(nil), block...)
		for len(rest) > 0 {
			end := HeaderLen + ParseHeader(rest).Length
			block = append(block, rest[HeaderLen:end]...)
			rest = rest[end:]
		}
	}
	return block, ok
}

// keep has the server read later what does not fit into its buffer.
func (f *callFilter) keep(rest []byte) {
	if f.split == nil {
		f.split = new(splitFrames)
	}
	f.split.ready = append(f.split.ready, rest...)
}

// ready moves what the server can read at once to p.
func (f *callFilter) ready(p []byte) int {
	if f.split == nil || len(f.split.ready) == 0 {
		return 0
	}
	n := copy(p, f.split.ready)
	if f.split.ready = f.split.ready[n:]; len(f.split.ready) == 0 && len(f.split.held) == 0 {
		f.split = nil
	}
	return n
}
