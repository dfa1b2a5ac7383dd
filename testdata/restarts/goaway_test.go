package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
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
			rest = rest[got.feed(rest[:min(piece, len(rest))]):]
		}
		if diff := cmp.Diff([]uint32{maxStream, 1}, got.last); diff != "" || got.code != uint32(http2.ErrCodeEnhanceYourCalm) {
			t.Errorf("in pieces of %d: the last one with code %d; last streams (-want +got):\n%s", piece, got.code, diff)
		}
	}
}

// TestGoAwayCheck feeds GOAWAY frames one by one, as a connection checks them, and
// wants the fault of the first bad one.
func TestGoAwayCheck(t *testing.T) {
	tests := []struct {
		name string
		last []uint32
		want string
	}{
		{"not told", nil, ""},
		{"one step", []uint32{maxStream}, ""},
		{"two steps", []uint32{maxStream, 7}, ""},
		{"two steps without a stream", []uint32{maxStream, 0}, ""},
		{"the same again", []uint32{maxStream, maxStream, 7, 7}, ""},
		{"streams refused at once", []uint32{7}, "the first GOAWAY names stream 7, not 2147483647"},
		{"back to none refused", []uint32{maxStream, 7, maxStream}, "a GOAWAY names stream 2147483647 after one that named 7"},
		{"grown", []uint32{maxStream, 7, 9}, "a GOAWAY names stream 9 after one that named 7"},
	}
	for _, tt := range tests {
		var wire bytes.Buffer
		f := http2.NewFramer(&wire, nil)
		var follower goAwayFollower
		got := ""
		for _, last := range tt.last {
			wire.Reset()
			if err := f.WriteGoAway(last, http2.ErrCodeNo, nil); err != nil {
				t.Fatal(err)
			}
			follower.feed(wire.Bytes())
			if err := follower.check(); err != nil && got == "" {
				got = err.Error()
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestGoAwayReservedBit: the bit above the stream is to be ignored (RFC 9113, section 6.8).
func TestGoAwayReservedBit(t *testing.T) {
	frame := []byte{0, 0, goAwayLen, frameGoAway, 0, 0, 0, 0, 0, 0x80, 0, 0, 5, 0, 0, 0, 0}
	var follower goAwayFollower
	follower.feed(frame)
	if diff := cmp.Diff([]uint32{5}, follower.last); diff != "" {
		t.Errorf("last streams (-want +got):\n%s", diff)
	}
}
