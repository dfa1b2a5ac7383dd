package sniff

import (
	"encoding/binary"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// maxGranted is how much WINDOW_UPDATE may add to a connection's initial window in all
// (RFC 9113, sections 6.9.1 and 6.9.2).
const maxGranted = 1<<31 - 1 - h2.DefaultWindow

// A frameScanner follows the frames of an HTTP/2 client up to the end of the
// first header block. Whatever it does not expect it gives to the shared
// HTTP/2 server, which speaks the right error.
type frameScanner struct {
	transport protocols.GRPCTransport
	maxString int  // Longest string of the header block, in bytes.
	ready     bool // The client's first SETTINGS is complete and valid.

	// off is where the first frame begins that is not done with: an incomplete
	// frame, or the HEADERS of an incomplete block.
	off int
	// next is where the next frame begins that was not looked at. It differs
	// from off inside a header block only.
	next int
	// done counts the frames before off. It tells a frame that grows slowly
	// from one slow frame after another.
	done int
	// block is the stream of the incomplete header block, 0 outside of one.
	block uint32
	// acked is set when the client has acknowledged the server's SETTINGS.
	acked bool
	// isCore is set when the client's SETTINGS are those of gRPC's C-core.
	isCore bool
	watch  *Watch // Nil: the native server has every call.

	conn *Conn // Where the client's address comes from.
	// callsOnly is that of the configuration.
	callsOnly bool
	// granted is by how much the client has opened the connection's window.
	granted uint64
}

// scan looks at b, which begins with the preface and the bytes of the previous
// call. It never answers unmatched.
func (s *frameScanner) scan(b []byte) (answer, Verdict) {
	if s.transport == protocols.TransportShared {
		return match(protocols.HTTP2, reasonPreface)
	}
	for len(b)-s.next >= h2.HeaderLen {
		h := h2.ParseHeader(b[s.next:])
		if reason := s.checkHeader(h); reason != "" {
			return match(protocols.HTTP2, reason)
		}
		end := s.next + h2.HeaderLen + h.Length
		if len(b) < end {
			return needMore, Verdict{}
		}
		payload := b[s.next+h2.HeaderLen : end]
		if reason := s.checkPayload(h, payload); reason != "" {
			return match(protocols.HTTP2, reason)
		}
		s.next = end
		switch {
		case h.Type == http2.FrameSettings:
			if !s.ready {
				s.isCore = clientOpening{settings: payload}.has(settingTrueBinaryMetadata, 1)
			}
			s.ready = true
			s.acked = s.acked || h.IsAck()
		case h.Type != http2.FrameHeaders && h.Type != http2.FrameContinuation:
		case h.Flags.Has(http2.FlagHeadersEndHeaders):
			return s.decide(b[s.off:end], clientOpening{firstSettings(b), s.acked})
		default:
			s.block = h.Stream
			continue
		}
		s.off = end
		s.done++
	}
	return needMore, Verdict{}
}

// partial reports whether n bytes end within a frame or a header block.
func (s *frameScanner) partial(n int) bool { return n > s.off }

// shift tells the scanner that bytes before s.off were inserted or removed.
func (s *frameScanner) shift(delta int) {
	s.off += delta
	s.next += delta
}

// checkHeader returns why a frame with the header h goes to the shared server,
// or the empty string. It needs no payload, so that a long frame out of place
// is not waited for.
func (s *frameScanner) checkHeader(h h2.Header) string {
	switch {
	case s.block != 0:
		// RFC 9113, section 6.10: nothing interrupts a header block.
		if h.Type != http2.FrameContinuation || h.Stream != s.block || h.Length > h2.MaxFrameSize {
			return reasonBadBlock
		}
		return ""
	case !s.ready:
		// RFC 9113, section 3.4: the preface ends with a SETTINGS frame.
		if h.Type != http2.FrameSettings || h.IsAck() || badLength(h) || h.Stream != 0 {
			return reasonNotSettings
		}
		return ""
	}
	switch h.Type {
	case http2.FrameData:
		return reasonData
	case http2.FrameRSTStream:
		// gRPC's C-core sends it for calls that have passed their deadlines before it has
		// sent anything of them. grpc-go passes over that, and net/http does not.
		if !s.isCore || h.Stream%2 == 0 || badLength(h) {
			return reasonOtherFrame
		}
	case http2.FrameGoAway, http2.FramePushPromise, http2.FrameContinuation:
		return reasonOtherFrame
	case http2.FrameHeaders:
		// RFC 9113, section 5.1.1: clients use odd streams.
		if h.Stream%2 == 0 || badLength(h) {
			return reasonBadFrame
		}
	case http2.FramePriority:
		if h.Stream == 0 || badLength(h) {
			return reasonBadFrame
		}
	case http2.FrameSettings, http2.FramePing, http2.FrameWindowUpdate, http2.FramePriorityUpdate:
		// A WINDOW_UPDATE of a stream that is still idle is an error, too
		// (RFC 9113, section 5.1).
		if h.Stream != 0 || badLength(h) {
			return reasonBadFrame
		}
	default:
		// RFC 9113, section 5.5: unknown types are skipped.
		if badLength(h) {
			return reasonBadFrame
		}
	}
	return ""
}

// badLength reports a length that the frame's type does not allow.
func badLength(h h2.Header) bool {
	switch h.Type {
	case http2.FrameSettings:
		return h.Length > h2.MaxFrameSize || h.Length%h2.SettingLen != 0 || h.IsAck() && h.Length != 0
	case http2.FramePing:
		return h.Length != h2.PingLen
	case http2.FrameWindowUpdate:
		return h.Length != h2.WindowUpdateLen
	case http2.FrameRSTStream:
		return h.Length != 4
	case http2.FramePriority:
		return h.Length != 5
	case http2.FramePriorityUpdate:
		return h.Length > h2.MaxFrameSize || h.Length < 4
	}
	return h.Length > h2.MaxFrameSize
}

// checkPayload returns why a frame goes to the shared server, or the empty string.
func (s *frameScanner) checkPayload(h h2.Header, payload []byte) string {
	switch h.Type {
	case http2.FrameHeaders:
		if _, priority, ok := h2.HeadersFragment(h, payload); !ok || priority != nil && dependsOnItself(h.Stream, priority) {
			return reasonBadBlock
		}
		return ""
	case http2.FrameSettings:
		if validSettings(payload) {
			return ""
		}
		if !s.ready {
			return reasonNotSettings
		}
	case http2.FrameWindowUpdate:
		// RFC 9113, sections 6.9 and 6.9.1: an increment of 0 is an error, and so is a
		// window that grows too large.
		increment := h2.Uint31(payload)
		s.granted += uint64(increment)
		if increment != 0 && s.granted <= maxGranted {
			return ""
		}
	case http2.FramePriorityUpdate:
		// RFC 9218, section 7.1: there is no stream 0 to prioritise.
		if h2.Uint31(payload) != 0 {
			return ""
		}
	case http2.FramePriority:
		if !dependsOnItself(h.Stream, payload) {
			return ""
		}
	default:
		return ""
	}
	return reasonBadFrame
}

// validSettings applies the rules of RFC 9113, section 6.5.2. Unknown settings
// are ignored there.
func validSettings(payload []byte) bool {
	for ; len(payload) >= h2.SettingLen; payload = payload[h2.SettingLen:] {
		value := binary.BigEndian.Uint32(payload[2:])
		switch http2.SettingID(binary.BigEndian.Uint16(payload)) {
		case http2.SettingEnablePush:
			if value > 1 {
				return false
			}
		case http2.SettingInitialWindowSize:
			if value > 1<<31-1 {
				return false
			}
		case http2.SettingMaxFrameSize:
			if value < 1<<14 || value > 1<<24-1 {
				return false
			}
		}
	}
	return true
}

// dependsOnItself applies RFC 7540, section 5.3.1, to the priority fields of
// stream. RFC 9113 deprecates them; servers still check them.
func dependsOnItself(stream uint32, priority []byte) bool {
	return h2.Uint31(priority) == stream
}

// firstSettings returns the payload of the SETTINGS behind the preface.
func firstSettings(b []byte) []byte {
	b = b[len(http2.ClientPreface):]
	return b[h2.HeaderLen:][:h2.ParseHeader(b).Length]
}

// decide gives the verdict on frames, which hold one whole header block.
func (s *frameScanner) decide(frames []byte, o clientOpening) (answer, Verdict) {
	d := blockDecoders.Get().(*blockDecoder)
	d.begin(s.maxString)
	for len(frames) > 0 {
		h := h2.ParseHeader(frames)
		fragment := frames[h2.HeaderLen : h2.HeaderLen+h.Length]
		frames = frames[h2.HeaderLen+h.Length:]
		if h.Type == http2.FrameHeaders {
			fragment, _, _ = h2.HeadersFragment(h, fragment) // checkPayload found it sound.
		}
		if _, err := d.hpack.Write(fragment); err != nil {
			return match(protocols.HTTP2, reasonBadBlock) // The decoder's state is lost.
		}
	}
	if err := d.hpack.Close(); err != nil {
		return match(protocols.HTTP2, reasonBadBlock)
	}
	fields := d.fields
	d.end()
	blockDecoders.Put(d)
	switch {
	case !fields.isCall():
		return match(protocols.HTTP2, reasonFirstStream)
	case s.transport == protocols.TransportNative, s.isNative(&fields, o):
		return match(protocols.GRPC, reasonGRPC)
	default:
		return match(protocols.HTTP2, reasonSharedCall)
	}
}

// isNative reports whether a connection with the first call f is one of a gRPC library
// itself, on which nothing but calls to the native server are to be expected.
func (s *frameScanner) isNative(f *headerFields, o clientOpening) bool {
	return (s.callsOnly || !f.proxied && o.isGRPCLibrary(f.userAgent)) &&
		(s.watch == nil || s.watch.frames.HasService(f.path) && !s.watch.mixed.take(newMixedClient(s.conn.RemoteAddr(), settingsHash(o.settings))))
}
