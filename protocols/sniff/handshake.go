package sniff

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
)

const (
	// maxAnswered bounds how many control frames the sniffer answers. A keep-alive needs
	// a few dozen; more are a flood. It is refused here, because net/http would queue
	// 10,000 answers for each connection.
	maxAnswered = 1000

	// maxMergedSettings bounds the settings in the replayed SETTINGS frame.
	// net/http refuses a frame with more than 100.
	maxMergedSettings = 64

	// freeWrite is how many bytes fit into the send buffer of a new bare socket in any
	// case, so that no timer is needed to write them. The least that Linux gives one is
	// 4.5 KiB, bookkeeping included.
	freeWrite = 512

	// greetPatience is how long the client's SETTINGS may take behind its preface before it
	// is sent ours. Clients that do not wait for those write both at once or in a row, and
	// get our SETTINGS and the ACK of theirs in one write.
	greetPatience = 20 * time.Millisecond
)

// A handshake is the sniffer's half of an HTTP/2 connection's opening.
type handshake struct {
	begun    bool      // Our SETTINGS went out.
	patient  bool      // The wait for Patience has begun.
	awaited  bool      // The client's SETTINGS is waited for, at first for greetPatience.
	overdue  bool      // That is over.
	settled  int       // The unread bytes before this offset are answered.
	answered int       // How many frames were answered.
	written  int       // How many bytes were written.
	until    time.Time // When the undecided wait ends.
	armed    time.Time // The read deadline that is set.

	slow      bool      // A frame or header block is incomplete since slowSince.
	slowFrame int       // Which one, as frameScanner counts.
	slowSince time.Time // When it was first seen.
}

// awaitSettings is called when Sniff is about to wait for the client's SETTINGS. The client
// may be waiting for ours, so this wait is short; greet ends it.
func (s *sniffer) awaitSettings() {
	if s.handshake.awaited || len(s.config.Settings) == 0 {
		return
	}
	s.handshake.awaited = true
	end, short := after(s.started, s.config.Timeout), time.Now().Add(greetPatience)
	if end.IsZero() || short.Before(end) {
		_ = s.inner.SetReadDeadline(short)
	}
}

// isOverdue reports whether the short wait for the client's SETTINGS has just ended.
func (s *sniffer) isOverdue() bool {
	return s.handshake.awaited && !s.handshake.overdue && !s.scanner.http2.ready
}

// greet goes on waiting for the client's SETTINGS. Where nothing of it has come, it sends
// ours. It reports true with a verdict where that fails.
func (s *sniffer) greet() (Verdict, bool) {
	s.handshake.overdue = true
	_ = s.inner.SetReadDeadline(after(s.started, s.config.Timeout))
	if len(s.peek.unread()) > len(http2.ClientPreface) {
		return Verdict{}, false
	}
	s.handshake.begun = true
	s.handshake.settled = len(http2.ClientPreface)
	return s.write(s.config.Settings)
}

// settle is called with the verdict. Where our SETTINGS went out and the client's was not
// answered yet, it is now: the server's ACK is taken out.
func (s *sniffer) settle() {
	if s.played || !s.handshake.begun {
		return
	}
	s.played = true
	if s.scanner.http2.ready {
		s.write(h2.AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil))
	}
}

// answer is called when Sniff is about to wait although preface and SETTINGS
// are there. It answers the client, since it may wait as well. It reports true
// with a verdict where there is no more waiting.
func (s *sniffer) answer() (Verdict, bool) {
	if len(s.config.Settings) == 0 {
		if s.config.Patience > 0 && (s.handshake.patient || s.waitUndecided(time.Now().Add(s.config.Patience))) {
			s.handshake.patient = true
			return Verdict{}, false
		}
		return Verdict{Protocol: protocols.HTTP2, Reason: reasonUndecided}, true
	}
	if s.isHurried() {
		return hurried(), true
	}
	var out []byte
	if !s.handshake.begun {
		s.handshake.begun = true
		s.handshake.settled = len(http2.ClientPreface)
		out = append(make([]byte, 0, len(s.config.Settings)+h2.HeaderLen), s.config.Settings...)
	}
	if !s.played {
		s.handshake.until = after(time.Now(), s.config.UndecidedTimeout)
		s.handshake.armed = after(s.started, s.config.Timeout)
		// The replay holds one SETTINGS frame, whatever the client sends, so the
		// server sends one ACK.
		s.played = true
	}
	out, ok := s.appendAnswers(out)
	if len(out) > 0 {
		if v, failed := s.write(out); failed {
			return v, true
		}
	}
	switch {
	case s.handshake.answered >= maxAnswered:
		s.goAway(http2.ErrCodeEnhanceYourCalm)
		return failed(FailureTooLarge, reasonManyFrames), true
	case !ok:
		return Verdict{Protocol: protocols.HTTP2, Reason: reasonManyFrames}, true
	}
	if deadline := s.deadline(); deadline != s.handshake.armed || s.handshake.armed.IsZero() {
		s.handshake.armed = deadline
		if !s.waitUndecided(deadline) {
			return hurried(), true
		}
	}
	return Verdict{}, false
}

// appendAnswers appends the answers to all complete frames that have none, and
// takes these frames out of the replay. It reports false where the client
// wants too many; the frames that are left unanswered are the server's.
func (s *sniffer) appendAnswers(out []byte) ([]byte, bool) {
	h := &s.handshake
	for first := len(http2.ClientPreface); h.settled < s.scanner.http2.off; {
		frame := s.peek.unread()[h.settled:]
		header := h2.ParseHeader(frame)
		frame = frame[:h2.HeaderLen+header.Length]
		switch {
		case header.IsAck() && (header.Type == http2.FramePing || header.Type == http2.FrameSettings),
			header.Type != http2.FramePing && header.Type != http2.FrameSettings:
			h.settled += len(frame)
			continue
		case h.answered >= maxAnswered:
			return out, false
		case header.Type == http2.FramePing:
			out = h2.AppendFrame(out, http2.FramePing, http2.FlagPingAck, frame[h2.HeaderLen:])
			s.cutFrame(len(frame))
		case h.settled == first:
			out = h2.AppendFrame(out, http2.FrameSettings, http2.FlagSettingsAck, nil)
			h.settled += len(frame)
		default:
			if !s.mergeSettings(frame) {
				return out, false
			}
			out = h2.AppendFrame(out, http2.FrameSettings, http2.FlagSettingsAck, nil)
		}
		h.answered++
	}
	return out, true
}

// cutFrame takes the next n bytes behind h.settled out of the replay.
func (s *sniffer) cutFrame(n int) {
	at := s.handshake.settled
	s.peek.remove(at, at+n)
	s.scanner.http2.shift(-n)
}

// mergeSettings moves the settings of frame, which stands at h.settled, into
// the first SETTINGS frame of the replay. A server may acknowledge two frames
// by one ACK when they come at once, as net/http does, and then it would be
// uncertain how many ACKs to take out. It reports false, having changed
// nothing, where the first frame would get too long.
func (s *sniffer) mergeSettings(frame []byte) bool {
	first := len(http2.ClientPreface)
	length := h2.ParseHeader(s.peek.unread()[first:]).Length
	if length+len(frame)-h2.HeaderLen > maxMergedSettings*h2.SettingLen {
		return false
	}
	settings := append([]byte(nil), frame[h2.HeaderLen:]...)
	s.cutFrame(len(frame))
	for ; len(settings) > 0; settings = settings[h2.SettingLen:] {
		payload := s.peek.unread()[first+h2.HeaderLen:][:length]
		if replaceSetting(payload, settings[:h2.SettingLen]) {
			continue
		}
		s.peek.insert(first+h2.HeaderLen+length, settings[:h2.SettingLen])
		s.scanner.http2.shift(h2.SettingLen)
		s.handshake.settled += h2.SettingLen
		length += h2.SettingLen
	}
	u := s.peek.unread()[first:]
	u[0], u[1], u[2] = byte(length>>16), byte(length>>8), byte(length)
	return true
}

// replaceSetting gives setting's value to the last setting of the same kind in
// payload, if there is one. The later value wins, but for the header table:
// RFC 7541, section 4.2, wants its smallest size signalled, and a smaller table
// than allowed is always right.
func replaceSetting(payload, setting []byte) bool {
	id := binary.BigEndian.Uint16(setting)
	for i := len(payload) - h2.SettingLen; i >= 0; i -= h2.SettingLen {
		old := payload[i:][:h2.SettingLen]
		if binary.BigEndian.Uint16(old) != id {
			continue
		}
		isTable := http2.SettingID(id) == http2.SettingHeaderTableSize
		if !isTable || binary.BigEndian.Uint32(setting[2:]) < binary.BigEndian.Uint32(old[2:]) {
			copy(old, setting)
		}
		return true
	}
	return false
}

// deadline returns until when the next bytes must come. It allows the
// undecided wait as a whole, and the time of a head for a frame or a header block
// from its first byte on.
func (s *sniffer) deadline() time.Time {
	h := &s.handshake
	if !s.scanner.http2.partial(len(s.peek.unread())) {
		h.slow = false
		return h.until
	}
	if !h.slow || h.slowFrame != s.scanner.http2.done {
		h.slow, h.slowFrame, h.slowSince = true, s.scanner.http2.done, time.Now()
	}
	deadline := s.headDeadline(h.slowSince)
	if deadline.IsZero() || !h.until.IsZero() && h.until.Before(deadline) {
		return h.until
	}
	return deadline
}

// write writes out within the Timeout. It reports true with a verdict where
// that fails, since no server can go on behind half a frame.
func (s *sniffer) write(out []byte) (Verdict, bool) {
	if s.handshake.written += len(out); s.handshake.written > freeWrite || h2.BareOf(s.inner) == nil {
		timeout := s.config.Timeout
		if timeout <= 0 {
			timeout = defaultTimeout
		}
		_ = s.inner.SetWriteDeadline(time.Now().Add(timeout))
	}
	_, err := s.inner.Write(out)
	switch {
	case err == nil:
		return Verdict{}, false
	case isTimeout(err):
		return failed(FailureTimeout, reasonAnswerTooSlow), true
	}
	return failed(FailureNoMatch, reasonAnswerFailed), true
}

// refuseData ends a connection that sends DATA on a stream that it has not
// opened (RFC 9113, section 5.1). The shared server would say the same, and then go
// on for a second queueing a WINDOW_UPDATE for each frame of a flood.
func (s *sniffer) refuseData() Verdict {
	if len(s.config.Settings) == 0 {
		return Verdict{Protocol: protocols.HTTP2, Reason: reasonData}
	}
	if !s.handshake.begun {
		s.write(s.config.Settings) // GOAWAY is never the first frame.
	}
	s.goAway(http2.ErrCodeProtocol)
	return failed(FailureNoMatch, reasonData)
}

// goAway tells a client without a request that its connection ends, and why
// (RFC 9113, section 6.8). Whether it hears is its own affair.
func (s *sniffer) goAway(code http2.ErrCode) {
	s.write(h2.AppendGoAway(nil, 0, code, ""))
}
