package main

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

// TestGoAwayFollower lets a framer write a server's frames and splits them at
// every length of piece.
func TestGoAwayFollower(t *testing.T) {
	var wire bytes.Buffer
	f := http2.NewFramer(&wire, nil)
	for _, err := range []error{
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}),
		f.WriteSettingsAck(),
		f.WriteData(1, false, bytes.Repeat([]byte{frameGoAway}, 300)),
		f.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil),
		f.WritePing(false, [8]byte{7, 7, 7, 7, 7, 7, 7, 7}),
		f.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("more than eight bytes of debug data")),
		f.WriteData(1, true, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for piece := 1; piece <= wire.Len(); piece++ {
		var got goAwayFollower
		for rest := wire.Bytes(); len(rest) > 0; {
			n := min(piece, len(rest))
			got.feed(rest[:n])
			rest = rest[n:]
		}
		if got.frames != 2 || got.code != uint32(http2.ErrCodeEnhanceYourCalm) {
			t.Errorf("in pieces of %d: %d frames, the last with code %d", piece, got.frames, got.code)
		}
	}
}
