package h2

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// tableOf is SETTINGS_HEADER_TABLE_SIZE.
func tableOf(size uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingHeaderTableSize, Val: size}
}

// unseen is a setting as net/http reads it that is not to see HEADER_TABLE_SIZE.
func unseen(size uint32) http2.Setting { return http2.Setting{ID: settingUnknown, Val: size} }

// fixed gives a client's bytes to a Track of net/http, in pieces of step bytes. It returns
// what net/http reads, and how often the client was found to want a smaller table.
func fixed(sent []byte, step int) (passed []byte, smaller int, track *Track) {
	_, track = newTracked(&wireConn{}, Options{
		NetHTTP: true, Watch: &Watch{OnSmallerTable: func(net.Conn) { smaller++ }},
	})
	for piece := range slices.Chunk(bytes.Clone(sent), step) {
		passed = append(passed, piece[:track.Follow(piece)]...)
	}
	return passed, smaller, track
}

// TestFixedTable: net/http reads HEADER_TABLE_SIZE before the client's first stream, and not
// behind it, however the bytes are split. All else passes as it is.
func TestFixedTable(t *testing.T) {
	other := http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 0x00010001}
	first := []http2.Setting{tableOf(200), other}
	for _, tt := range []struct {
		name    string
		first   []http2.Setting // all before the first stream, in one frame
		later   [][]http2.Setting
		read    [][]http2.Setting
		smaller int
	}{
		{"none", nil, [][]http2.Setting{nil, {other}}, [][]http2.Setting{nil, {other}}, 0},
		{"the same", first, [][]http2.Setting{{tableOf(200)}}, [][]http2.Setting{{unseen(200)}}, 0},
		{"larger", first, [][]http2.Setting{{other, tableOf(4096), other}}, [][]http2.Setting{{other, unseen(4096), other}}, 0},
		{"smaller", first, [][]http2.Setting{{other, tableOf(199)}}, [][]http2.Setting{{other, unseen(199)}}, 1},
		{"smaller than the default", nil, [][]http2.Setting{{tableOf(4095)}}, [][]http2.Setting{{unseen(4095)}}, 1},
		{"smaller than the client's, not the server's", []http2.Setting{tableOf(65536)}, [][]http2.Setting{{tableOf(4096)}}, [][]http2.Setting{{unseen(4096)}}, 0},
		{"smaller again", nil, [][]http2.Setting{{tableOf(0)}, {tableOf(4096)}, {tableOf(1)}}, [][]http2.Setting{{unseen(0)}, {unseen(4096)}, {unseen(1)}}, 1},
		{"twice in a frame", nil, [][]http2.Setting{{tableOf(0), tableOf(0)}}, [][]http2.Setting{{unseen(0), unseen(0)}}, 0},
		{"twice in a frame, once in the next", nil, [][]http2.Setting{{tableOf(0), tableOf(4096)}, {tableOf(0)}}, [][]http2.Setting{{unseen(0), unseen(4096)}, {unseen(0)}}, 1},
	} {
		frames := func(later [][]http2.Setting) []byte {
			return wiretest.ClientBytes(func(fr *http2.Framer) {
				fr.AllowIllegalWrites = true
				_ = fr.WriteSettings(tableOf(1000))
				_ = fr.WriteSettings(tt.first...)
				if len(tt.first) == 0 {
					_ = fr.WriteSettings(tableOf(1 << 31))
				}
				_ = fr.WriteSettingsAck()
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte("block")})
				payload := []byte{0, 1, 0, 0, 0, 0}
				_ = fr.WriteData(1, false, payload)
				_ = fr.WriteRawFrame(http2.FrameSettings, 0, 1, payload)
				_ = fr.WriteRawFrame(http2.FrameSettings, http2.FlagSettingsAck, 0, payload)
				_ = fr.WriteRawFrame(http2.FrameSettings, 0, 0, append(payload, 0))
				for _, settings := range later {
					_ = fr.WriteSettings(settings...)
					_ = fr.WriteRawFrame(0xbe, 0, 0, payload)
				}
			})
		}
		sent, want := frames(tt.later), frames(tt.read)
		for step := 1; step <= len(sent); step++ {
			got, smaller, track := fixed(sent, step)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s, in steps of %d (-want +got):\n%s", tt.name, step, diff)
			}
			if smaller != tt.smaller || track.pace.table.mute.Load() != (tt.smaller > 0) {
				t.Fatalf("%s, in steps of %d: smaller %d times, want %d", tt.name, step, smaller, tt.smaller)
			}
		}
		for _, options := range []Options{{}, {NetHTTP: true, Upgraded: true}} { // grpc-go, and golang.org/x/net.
			_, track := newTracked(&wireConn{}, options)
			passed := bytes.Clone(sent)
			if n := track.Follow(passed); !bytes.Equal(passed[:n], sent) {
				t.Errorf("%s, %+v: %d of %d bytes pass, or others", tt.name, options, n, len(sent))
			}
		}
	}
}

// TestSmallerTable: from then on the client gets no ACK, and a GOAWAY that refuses no stream.
func TestSmallerTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &wireConn{}
		told := false
		c, track := newTracked(inner, Options{
			NetHTTP: true, Watch: &Watch{OnSmallerTable: func(net.Conn) { told = inner.wrote.Len() == 0 }},
		})
		ack := AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil)
		settings := func(settings ...http2.Setting) {
			t.Helper()
			frame := AppendFrame(nil, http2.FrameSettings, 0, nil)
			for _, s := range settings {
				frame[2] += SettingLen
				frame = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(frame, uint16(s.ID)), s.Val)
			}
			track.Follow(frame)
			synctest.Wait()
		}
		want := func(what string, frames ...[]byte) {
			t.Helper()
			if diff := cmp.Diff(bytes.Join(frames, nil), inner.wrote.Bytes()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			inner.wrote.Reset()
		}
		write := func(frames ...[]byte) {
			t.Helper()
			for piece := range slices.Chunk(bytes.Join(frames, nil), 5) {
				if _, err := c.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
		}
		track.Follow([]byte(http2.ClientPreface))
		settings(tableOf(100))
		write(serverSettings(), ack)
		want("before the first stream", serverSettings(), ack)
		track.Follow(wiretest.ClientBytes(func(fr *http2.Framer) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true})
		})[len(http2.ClientPreface):])
		settings(tableOf(101))
		write(ack)
		want("a larger table", ack)
		settings(tableOf(99))
		if !told {
			t.Error("the owner was not told before the client")
		}
		want("a smaller table", firstGoAway())
		write(ack, pingFrame(0, "12345678"))
		want("its ACK", pingFrame(0, "12345678"))
		settings(tableOf(0))
		settings()
		write(ack, ack, pingFrame(0, "12345678"))
		want("later ACKs", pingFrame(0, "12345678"))
		c.GoAway()
		want("GOAWAY is written once")
	})
}

// FuzzFixedTable has x/net's frame headers as its oracle: net/http reads what the client has
// sent, but for HEADER_TABLE_SIZE in SETTINGS behind the first stream.
func FuzzFixedTable(f *testing.F) {
	for _, step := range []uint8{1, 2, 7, 255} {
		f.Add([]byte{0, 0, 1, 1, 5, 15, 4, 0, 2, 1, 0, 6, 3, 0, 1, 1, 1}, step)
		f.Add([]byte{1, 15, 4, 0, 1, 1, 5, 9, 0, 0, 4, 12, 0, 1, 0, 0, 0, 0, 0, 2, 0, 1}, step)
		f.Add([]byte{0, 15, 4, 0, 2, 1, 0, 1, 0, 0, 1, 1, 2}, step)
	}
	f.Fuzz(func(t *testing.T, script []byte, step uint8) {
		if step == 0 || len(script) > wiretest.MaxScript {
			return
		}
		frames := wiretest.Script(script)
		want, wantSmaller := oracleFixed(frames)
		got, smaller, _ := fixed(append([]byte(http2.ClientPreface), frames...), int(step))
		if diff := cmp.Diff(string(want), string(got[len(http2.ClientPreface):])); diff != "" {
			t.Fatalf("in steps of %d (-want +got):\n%s", step, diff)
		}
		if smaller != wantSmaller {
			t.Fatalf("in steps of %d: smaller %d times, want %d", step, smaller, wantSmaller)
		}
	})
}

// oracleFixed returns what net/http is to read of frames, and 1 if the client wants a smaller
// table than net/http's encoder uses.
func oracleFixed(frames []byte) (want []byte, smaller int) {
	want = bytes.Clone(frames)
	opened, size := false, uint32(4096)
	for rest := want; len(rest) >= HeaderLen; {
		h, err := http2.ReadFrameHeader(bytes.NewReader(rest))
		if err != nil {
			break
		}
		end := min(HeaderLen+int(h.Length), len(rest))
		payload := rest[HeaderLen:end]
		isWhole := len(payload) == int(h.Length)
		rest = rest[end:]
		opened = opened || h.Type == http2.FrameHeaders && h.StreamID%2 == 1
		if h.Type != http2.FrameSettings || h.Flags.Has(http2.FlagSettingsAck) || h.StreamID != 0 || h.Length%6 != 0 {
			continue
		}
		var sizes []uint32
		for ; len(payload) >= 2; payload = payload[min(6, len(payload)):] {
			if payload[0] != 0 || payload[1] != 1 {
				continue
			}
			if len(payload) >= 6 {
				sizes = append(sizes, min(4096, binary.BigEndian.Uint32(payload[2:])))
			}
			if opened {
				payload[1] = 0xe1
			}
		}
		switch {
		case len(sizes) != 1 || !isWhole:
		case !opened:
			size = sizes[0]
		case sizes[0] < size:
			smaller = 1
		}
	}
	return want, smaller
}
