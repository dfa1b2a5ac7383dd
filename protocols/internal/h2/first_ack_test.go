package h2

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// A pieceReader returns at most step bytes at a time.
type pieceReader struct {
	r    io.Reader
	step int
}

func (r pieceReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), r.step)]) }

// readAll reads what a played track lets through of sent, in buffers of size bytes.
func readAll(t *testing.T, sent []byte, step, size int) (got []byte, track *Track) {
	t.Helper()
	_, track = newTracked(&wireConn{}, Options{Played: true})
	src := pieceReader{bytes.NewReader(sent), step}
	buf := make([]byte, size)
	for {
		var n int
		var err error
		if track.AwaitsACK() {
			n, err = track.ReadToACK(src, buf)
		} else {
			n, err = src.Read(buf)
		}
		got = append(got, buf[:n]...)
		if err == io.EOF {
			return got, track
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFirstACKIsTakenOut, and nothing else, however the bytes are split.
func TestFirstACKIsTakenOut(t *testing.T) {
	before := wiretest.ClientBytes(func(fr *http2.Framer) {
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		_ = fr.WritePing(true, [8]byte{1})
		_ = fr.WriteData(1, true, bytes.Repeat(AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil), 3))
	})
	ack := AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil)
	after := slices.Concat(pingFrame(0, "12345678"), ack, pingFrame(0, "87654321"))
	sent := slices.Concat(before, ack, after)
	for step := 1; step <= len(sent); step++ {
		for _, size := range []int{1, HeaderLen, len(sent)} {
			got, track := readAll(t, sent, step, size)
			if diff := cmp.Diff(slices.Concat(before, after), got); diff != "" {
				t.Fatalf("pieces of %d read by %d (-want +got):\n%s", step, size, diff)
			}
			if track.AwaitsACK() {
				t.Fatalf("pieces of %d read by %d: another ACK is waited for", step, size)
			}
		}
	}
}

// FuzzFirstACK has the frames that x/net finds as its oracle.
func FuzzFirstACK(f *testing.F) {
	ack := AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil)
	f.Add(slices.Concat(pingFrame(0, "12345678"), ack, ack, pingFrame(0, "12345678")), uint8(1), uint8(9))
	f.Add(slices.Concat(AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, []byte("payload")), ack, ack[:3]), uint8(30), uint8(100))
	f.Fuzz(func(t *testing.T, b []byte, step, size uint8) {
		if step == 0 || size == 0 {
			return
		}
		got, _ := readAll(t, append([]byte(http2.ClientPreface), b...), int(step), int(size))
		want := http2.ClientPreface + string(withoutFirstACK(b))
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Fatalf("read (-want +got):\n%s", diff)
		}
	})
}

// withoutFirstACK returns b without the first empty ACK of SETTINGS. Before it, an
// incomplete header is held back.
func withoutFirstACK(b []byte) []byte {
	var left []byte
	for h, frame := range frames(b) {
		if h.Type == http2.FrameSettings && h.Flags.Has(http2.FlagSettingsAck) && len(frame) == HeaderLen {
			return append(left, b[len(left)+HeaderLen:]...)
		}
		if len(frame) < HeaderLen {
			break
		}
		left = append(left, frame...)
	}
	return left
}
