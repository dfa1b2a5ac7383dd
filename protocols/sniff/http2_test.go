package sniff

import (
	"slices"
	"testing"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// TestClassifyFrames has the frames before the first header block: what is
// skipped, and what the shared server must answer.
func TestClassifyFrames(t *testing.T) {
	grpc := Verdict{Protocol: protocols.GRPC, Reason: reasonGRPC}
	notSettings := Verdict{Protocol: protocols.HTTP2, Reason: reasonNotSettings}
	badFrame := Verdict{Protocol: protocols.HTTP2, Reason: reasonBadFrame}
	badBlock := Verdict{Protocol: protocols.HTTP2, Reason: reasonBadBlock}
	other := Verdict{Protocol: protocols.HTTP2, Reason: reasonOtherFrame}

	raw := func(typ http2.FrameType, flags http2.Flags, stream uint32, payload string) func(*http2.Framer) {
		return func(fr *http2.Framer) { _ = fr.WriteRawFrame(typ, flags, stream, []byte(payload)) }
	}
	settings := func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteSettingsAck()
	}
	headers := func(fr *http2.Framer) { _ = fr.WriteHeaders(headersFrame(grpcFields()...)) }
	// then returns the bytes of preface, SETTINGS, the frames and a gRPC request.
	then := func(frames ...func(*http2.Framer)) string {
		return string(wiretest.ClientBytes(func(fr *http2.Framer) {
			settings(fr)
			for _, f := range frames {
				f(fr)
			}
			headers(fr)
		}))
	}
	first := func(f func(*http2.Framer)) string { return string(wiretest.ClientBytes(f)) }
	block := string(wiretest.HeaderBlock(grpcFields()...))
	const endHeaders, padded, priority = http2.FlagHeadersEndHeaders, http2.FlagHeadersPadded, http2.FlagHeadersPriority

	// core opens as gRPC's C-core does.
	core := func(frames ...func(*http2.Framer)) string {
		return string(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteSettings(http2.Setting{ID: settingTrueBinaryMetadata, Val: 1})
			_ = fr.WriteSettingsAck()
			for _, f := range frames {
				f(fr)
			}
			fields := grpcFields()
			fields[slices.Index(fields, "user-agent")+1] = "grpc-c/29.0.0 (linux; chttp2)"
			_ = fr.WriteHeaders(headersFrame(fields...))
		}))
	}
	testClassify(t, protocols.TransportAuto, []classifyTest{
		{"RST_STREAM of C-core", core(raw(http2.FrameRSTStream, 0, 31, "\x00\x00\x00\x08")), matched, grpc},
		{"RST_STREAM of C-core, too long", core(raw(http2.FrameRSTStream, 0, 31, "\x00\x00\x00\x08\x00")), matched, other},
		{"RST_STREAM of C-core, no stream", core(raw(http2.FrameRSTStream, 0, 0, "\x00\x00\x00\x08")), matched, other},
		{"WINDOW_UPDATE", then(raw(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x01")), matched, grpc},
		{"PING", then(raw(http2.FramePing, 0, 0, "12345678")), matched, grpc},
		{"PING ACK", then(raw(http2.FramePing, http2.FlagPingAck, 0, "12345678")), matched, grpc},
		{"PRIORITY", then(raw(http2.FramePriority, 0, 3, "\x00\x00\x00\x00\xff")), matched, grpc},
		{"PRIORITY_UPDATE", then(raw(http2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x01u=1")), matched, grpc},
		{"second SETTINGS", then(settings), matched, grpc},
		{"SETTINGS ACK", then(raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "")), matched, grpc},
		{"unknown type", then(raw(0xfa, 0xff, 7, "anything")), matched, grpc},
		{"reserved bit of the stream", then(raw(http2.FramePing, 0, 1<<31, "12345678")), matched, grpc},
		{"CONTINUATION", string(wiretest.ClientBytes(func(fr *http2.Framer) {
			settings(fr)
			raw(http2.FrameHeaders, 0, 1, block[:5])(fr)
			raw(http2.FrameContinuation, 0, 1, "")(fr)
			raw(http2.FrameContinuation, 0, 1, block[5:9])(fr)
			raw(http2.FrameContinuation, endHeaders, 1, block[9:])(fr)
		})), matched, grpc},
		{"CONTINUATION is missing", string(wiretest.ClientBytes(func(fr *http2.Framer) {
			settings(fr)
			raw(http2.FrameHeaders, 0, 1, block)(fr)
		})), needMore, Verdict{}},
		{"padding and priority", string(wiretest.ClientBytes(func(fr *http2.Framer) {
			settings(fr)
			raw(http2.FrameHeaders, endHeaders|padded|priority, 1, "\x02\x00\x00\x00\x00\x10"+block+"\x00\x00")(fr)
		})), matched, grpc},

		{"HEADERS first", first(headers), matched, notSettings},
		{"SETTINGS ACK first", first(raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "")), matched, notSettings},
		{"SETTINGS of a stream", first(raw(http2.FrameSettings, 0, 1, "")), matched, notSettings},
		{"SETTINGS of 5 bytes", first(raw(http2.FrameSettings, 0, 0, "12345")), matched, notSettings},
		{"ENABLE_PUSH 2", first(raw(http2.FrameSettings, 0, 0, "\x00\x02\x00\x00\x00\x02")), matched, notSettings},
		{"INITIAL_WINDOW_SIZE too large", first(raw(http2.FrameSettings, 0, 0, "\x00\x04\x80\x00\x00\x00")), matched, notSettings},
		{"MAX_FRAME_SIZE too small", first(raw(http2.FrameSettings, 0, 0, "\x00\x05\x00\x00\x3f\xff")), matched, notSettings},
		{"MAX_FRAME_SIZE too large", first(raw(http2.FrameSettings, 0, 0, "\x00\x05\x01\x00\x00\x00")), matched, notSettings},
		{"unknown setting", first(raw(http2.FrameSettings, 0, 0, "\xff\xff\xff\xff\xff\xff")), needMore, Verdict{}},

		{"bad second SETTINGS", then(raw(http2.FrameSettings, 0, 0, "\x00\x02\x00\x00\x00\x02")), matched, badFrame},
		{"SETTINGS ACK with settings", then(raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "123456")), matched, badFrame},
		{"WINDOW_UPDATE 0", then(raw(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x00")), matched, badFrame},
		{"WINDOW_UPDATE of an idle stream", then(raw(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01")), matched, badFrame},
		{"WINDOW_UPDATE of 3 bytes", then(raw(http2.FrameWindowUpdate, 0, 0, "123")), matched, badFrame},
		{"PING of 7 bytes", then(raw(http2.FramePing, 0, 0, "1234567")), matched, badFrame},
		{"PING of a stream", then(raw(http2.FramePing, 0, 1, "12345678")), matched, badFrame},
		{"PRIORITY_UPDATE of stream 0", then(raw(http2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x00u=1")), matched, badFrame},
		{"PRIORITY_UPDATE in a stream", then(raw(http2.FramePriorityUpdate, 0, 1, "\x00\x00\x00\x01u=1")), matched, badFrame},
		{"PRIORITY of stream 0", then(raw(http2.FramePriority, 0, 0, "12345")), matched, badFrame},
		{"PRIORITY of 4 bytes", then(raw(http2.FramePriority, 0, 1, "1234")), matched, badFrame},
		{"PRIORITY on itself", then(raw(http2.FramePriority, 0, 3, "\x80\x00\x00\x03\x00")), matched, badFrame},
		{"unknown type too long", then(raw(0xfa, 0, 0, string(make([]byte, h2.MaxFrameSize+1)))), matched, badFrame},
		{"HEADERS of stream 0", then(raw(http2.FrameHeaders, endHeaders, 0, block)), matched, badFrame},
		{"HEADERS of an even stream", then(raw(http2.FrameHeaders, endHeaders, 2, block)), matched, badFrame},
		{"padding too long", then(raw(http2.FrameHeaders, endHeaders|padded, 1, "\x09"+"12345678")), matched, badBlock},
		{"no room for padding", then(raw(http2.FrameHeaders, endHeaders|padded, 1, "")), matched, badBlock},
		{"no room for priority", then(raw(http2.FrameHeaders, endHeaders|priority, 1, "1234")), matched, badBlock},
		{"HEADERS on itself", then(raw(http2.FrameHeaders, endHeaders|priority, 1, "\x00\x00\x00\x01\x00"+block)), matched, badBlock},
		{"PING within a block", then(raw(http2.FrameHeaders, 0, 1, block), raw(http2.FramePing, 0, 0, "12345678")), matched, badBlock},
		{"CONTINUATION of another stream", then(raw(http2.FrameHeaders, 0, 1, block), raw(http2.FrameContinuation, 0, 3, "")), matched, badBlock},

		{"DATA", then(raw(http2.FrameData, 0, 1, "x")), matched, Verdict{Protocol: protocols.HTTP2, Reason: reasonData}},
		{"RST_STREAM", then(raw(http2.FrameRSTStream, 0, 1, "1234")), matched, other},
		{"GOAWAY", then(raw(http2.FrameGoAway, 0, 0, "12345678")), matched, other},
		{"PUSH_PROMISE", then(raw(http2.FramePushPromise, 0, 1, "1234")), matched, other},
		{"CONTINUATION alone", then(raw(http2.FrameContinuation, 0, 1, "")), matched, other},
	})
}

// TestFrameOutOfPlaceIsNotAwaited shows that 9 bytes of a long DATA frame are
// enough.
func TestFrameOutOfPlaceIsNotAwaited(t *testing.T) {
	prefix := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteData(1, false, make([]byte, h2.MaxFrameSize))
	})
	prefix = prefix[:len(http2.ClientPreface)+2*h2.HeaderLen]
	answer, v := classify(prefix, protocols.TransportAuto)
	if answer != matched || v.Reason != reasonData {
		t.Errorf("%v %q, want %q", answer, v.Reason, reasonData)
	}
}
