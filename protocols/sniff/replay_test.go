package sniff

import (
	"bytes"
	"io"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// A dripConn reads what it was given in pieces, and keeps what is written.
type dripConn struct {
	replayConn
	wrote bytes.Buffer
}

func (c *dripConn) Write(p []byte) (int, error)   { return c.wrote.Write(p) }
func (*dripConn) SetReadDeadline(time.Time) error { return nil }

// A pieceReader returns at most step bytes at a time.
type pieceReader struct {
	r    io.Reader
	step int
}

func (r pieceReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), r.step)]) }

// frames returns the complete frames of b and their headers. The last one has
// no type and is what is cut short.
func frames(b []byte) iter.Seq2[http2.FrameHeader, []byte] {
	return func(yield func(http2.FrameHeader, []byte) bool) {
		for {
			h, err := http2.ReadFrameHeader(bytes.NewReader(b))
			end := h2.HeaderLen + int(h.Length)
			if err != nil || len(b) < end {
				yield(http2.FrameHeader{}, b)
				return
			}
			if !yield(h, b[:end]) {
				return
			}
			b = b[end:]
		}
	}
}

// A frameCount is what a stream of frames holds.
type frameCount struct {
	Pings, Settings int    // Those that have the flags asked for.
	Rest            string // All other frames, and what is cut short.
}

// countFrames counts the ACKs of b, or the frames that want one.
func countFrames(b []byte, acks bool) (c frameCount) {
	for h, frame := range frames(b) {
		asked := h.Flags.Has(http2.FlagPingAck) == acks
		switch {
		case h.Type == http2.FramePing && asked:
			c.Pings++
		case h.Type == http2.FrameSettings && asked:
			c.Settings++
		default:
			c.Rest += string(frame)
		}
	}
	return c
}

// withoutFirstACK returns b without the ACK of the sniffer's SETTINGS. Before it, an
// incomplete header is held back.
func withoutFirstACK(b []byte) []byte {
	var left []byte
	for h, frame := range frames(b) {
		if h.Type == http2.FrameSettings && h.Flags.Has(http2.FlagSettingsAck) && len(frame) == h2.HeaderLen {
			return append(left, b[len(left)+h2.HeaderLen:]...)
		}
		if len(frame) < h2.HeaderLen {
			break
		}
		left = append(left, frame...)
	}
	return left
}

// paceMarker is the PING that net/http reads between a client's frames, when they are many.
var paceMarker = sync.OnceValue(func() []byte {
	track := h2.New(nil, h2.Options{NetHTTP: true})
	track.Follow([]byte(http2.ClientPreface))
	marker := make([]byte, h2.HeaderLen+h2.PingLen)
	for track.ReadMarker(marker) == 0 {
		track.Follow(pingFrame(0, "12345678"))
	}
	return marker
})

// withoutMarkers returns b, which begins with the preface, without the frames that pace
// net/http.
func withoutMarkers(b []byte) []byte {
	n := min(len(http2.ClientPreface), len(b))
	left := bytes.Clone(b[:n])
	for _, frame := range frames(b[n:]) {
		if !bytes.Equal(frame, paceMarker()) {
			left = append(left, frame...)
		}
	}
	return left
}

// FuzzSniffReplay lets Sniff play the handshake with a client that sends b:
// each of its frames is either answered or replayed, and all but PING, SETTINGS and
// its first ACK are replayed as they were.
func FuzzSniffReplay(f *testing.F) {
	ping, settings := pingFrame(0, "12345678"), opening(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
	settings = settings[len(http2.ClientPreface):]
	for _, b := range http2Seeds() {
		f.Add(b[len(http2.ClientPreface):], uint8(1))
		f.Add(b[len(http2.ClientPreface):], uint8(200))
	}
	f.Add(slices.Concat(settings, ping, settings, ackFrame(), ping, settings, firstRequest(), ping), uint8(20))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		if step == 0 || len(b) > defaultMaxBytes {
			return
		}
		sent := slices.Concat([]byte(http2.ClientPreface), b)
		inner := &dripConn{replayConn: replayConn{Reader: pieceReader{bytes.NewReader(sent), int(step)}}}
		c := newConn(inner)
		v := c.Sniff(testConfig())
		endTrack(c)
		replay, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		replay = withoutMarkers(replay)
		if inner.wrote.Len() == 0 {
			if !bytes.Equal(replay, sent) {
				t.Fatalf("replay %q without an answer, want %q", replay, sent)
			}
			return
		}
		wrote, ok := bytes.CutPrefix(inner.wrote.Bytes(), testSettings)
		if !ok {
			t.Fatalf("wrote %q first", wrote)
		}
		switch v.Reason {
		case reasonData, reasonManyFrames:
			const goAwayLen = h2.HeaderLen + 8
			last := wrote[max(0, len(wrote)-goAwayLen):]
			if len(last) < goAwayLen || h2.ParseHeader(last).Type != http2.FrameGoAway {
				t.Errorf("refused with %q last", last)
			}
			return
		}
		if v.Failure != "" {
			t.Errorf("verdict %+v behind a handshake", v)
		}
		answers := countFrames(wrote, true)
		if answers.Rest != "" {
			t.Errorf("wrote %q as well", answers.Rest)
		}
		want, got := countFrames(withoutFirstACK(b), false), countFrames(replay[len(http2.ClientPreface):], false)
		got.Pings += answers.Pings
		got.Settings += answers.Settings - 1 // The first one is answered and replayed.
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("replayed and answered frames (-want +got):\n%s", diff)
		}
	})
}

// FuzzSniffEverySplit: the verdict on the same bytes does not depend on where they are
// split, nor does what is replayed of HTTP/1.1.
func FuzzSniffEverySplit(f *testing.F) {
	for _, s := range http1Seeds {
		f.Add([]byte(s))
	}
	for _, b := range http2Seeds() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 400
		if len(b) > most {
			return
		}
		sniff := func(at int) (Verdict, []byte) {
			pieces := io.MultiReader(bytes.NewReader(b[:at]), bytes.NewReader(b[at:]))
			c := newConn(&dripConn{replayConn: replayConn{Reader: pieces}})
			v := c.Sniff(testConfig())
			endTrack(c)
			replay, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			return v, replay
		}
		want, whole := sniff(len(b))
		for at := range b {
			got, replay := sniff(at)
			switch {
			case want.Reason == reasonManyFrames || got.Reason == reasonManyFrames:
				continue // Only what comes in pieces is answered.
			case want.Protocol == protocols.WebSocket && got.Protocol == protocols.HTTP1: // The head came later.
			case got.Protocol != want.Protocol || got.Failure != want.Failure:
				t.Fatalf("split at %d: %+v, want %+v", at, got, want)
			}
			if (want.Protocol == protocols.HTTP1 || want.Protocol == protocols.WebSocket) && !bytes.Equal(replay, whole) {
				t.Fatalf("split at %d: replay %q, want %q", at, replay, whole)
			}
		}
	})
}
