package h2

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// TestKeptWindows: updates of a stream's window are kept, and given to the client at once.
// Those of the connection and of other streams pass.
func TestKeptWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		update := func(stream, increment uint32) []byte {
			var b bytes.Buffer
			_ = http2.NewFramer(&b, nil).WriteWindowUpdate(stream, increment)
			return b.Bytes()
		}
		inner := &wireConn{}
		c, track := newTracked(inner, Options{NetHTTP: true})
		want := func(what string, frames ...[]byte) {
			t.Helper()
			synctest.Wait()
			if joined := bytes.Join(frames, nil); !bytes.Equal(inner.wrote.Bytes(), joined) {
				t.Errorf("%s: %x is written, want %x", what, inner.wrote.Bytes(), joined)
			}
			inner.wrote.Reset()
		}
		write := func(frames ...[]byte) {
			t.Helper()
			for _, frame := range frames {
				if n, err := c.Write(frame); n != len(frame) || err != nil {
					t.Fatal(n, err)
				}
			}
		}
		write(testSettings, update(1, 10))
		want("nothing is kept", testSettings, update(1, 10))

		if !track.KeepWindow(1) || !track.KeepWindow(5) {
			t.Fatal("nothing can be kept")
		}
		split := update(1, 30)
		write(update(1, 20), update(0, 100), update(3, 7), split[:5], split[5:11], split[11:], update(5, 1))
		want("two streams are kept", update(0, 100), update(3, 7))

		track.GiveWindow(1, false)
		want("one is given", update(1, 50))
		write(update(1, 60), update(5, 1))
		want("it is kept no more", update(1, 60))

		track.GiveWindow(5, true)
		write(update(5, 2))
		want("the other is over", update(5, 2))

		if !track.KeepWindow(7) {
			t.Fatal("nothing can be kept")
		}
		track.GiveWindow(7, false)
		want("nothing was kept")

		track.KeepWindow(9)
		data := AppendFrame(nil, http2.FrameData, 0, make([]byte, 100))
		write(update(9, 1), data[:50])
		track.GiveWindow(9, false)
		want("within a frame", data[:50])
		write(data[50:])
		want("behind it", data[50:], update(9, 1))
	})
	if _, native := newTracked(&wireConn{}, Options{}); native.KeepWindow(1) {
		t.Error("grpc-go's windows are kept")
	}
}

// initialWindow returns the SETTINGS that say the initial window.
func initialWindow(size uint32) []byte {
	var b bytes.Buffer
	_ = http2.NewFramer(&b, nil).WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
	return b.Bytes()
}

// TestSetInitialWindow: the client is told once, before the room that the server gives it from
// then on, and of the last size where it could not be told of one before.
func TestSetInitialWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &wireConn{}
		c, track := newTracked(inner, Options{NetHTTP: true})
		write := func(p []byte) {
			t.Helper()
			if n, err := c.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		want := func(what string, frames ...[]byte) {
			t.Helper()
			synctest.Wait()
			if joined := bytes.Join(frames, nil); !bytes.Equal(inner.wrote.Bytes(), joined) {
				t.Errorf("%s: %x is written, want %x", what, inner.wrote.Bytes(), joined)
			}
			inner.wrote.Reset()
		}
		track.SetInitialWindow(1000)
		want("before the server's first SETTINGS")
		write(testSettings)
		want("behind them", testSettings, initialWindow(1000))
		track.SetInitialWindow(1000)
		want("the same again")
		track.SetInitialWindow(2000)
		want("at once", initialWindow(2000))

		data, room := AppendFrame(nil, http2.FrameData, 0, make([]byte, 100)), AppendFrame(nil, http2.FrameWindowUpdate, 0, []byte{0, 0, 1, 0})
		write(data[:50])
		track.SetInitialWindow(1000)
		want("within a frame", data[:50])
		write(slices.Concat(data[50:], room))
		want("behind it, before room", data[50:], initialWindow(1000), room)

		write(data[:50])
		track.SetInitialWindow(2000)
		track.SetInitialWindow(3000)
		write(data[50:])
		want("the last of two", data, initialWindow(3000))
		write(data[:50])
		track.SetInitialWindow(1000)
		track.SetInitialWindow(3000)
		write(data[50:])
		want("back again", data)

		goAway := AppendGoAway(nil, 1, http2.ErrCodeNo, "")
		write(goAway)
		track.SetInitialWindow(1000)
		want("behind a GOAWAY", goAway, initialWindow(1000))
		inner.closed = true
		track.SetInitialWindow(2000)
		want("behind the end")
	})
	synctest.Test(t, func(t *testing.T) {
		inner := &wireConn{}
		c, track := newTracked(inner, Options{})
		_, _ = c.Write(testSettings)
		inner.wrote.Reset()
		track.SetInitialWindow(1000)
		if synctest.Wait(); inner.wrote.Len() > 0 {
			t.Error("a client of grpc-go is told")
		}
	})
}

// TestACKsOfInitialWindow: the server sees no ACK of SETTINGS that are not its own, however
// the client's bytes are split. Empty SETTINGS of the client get their ACK.
func TestACKsOfInitialWindow(t *testing.T) {
	ack := AppendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, nil)
	empty := AppendFrame(nil, http2.FrameSettings, 0, nil)
	hidden := func(frame []byte) []byte {
		frame = bytes.Clone(frame)
		frame[3] = byte(hiddenFrame)
		return frame
	}
	start := slices.Concat([]byte(http2.ClientPreface), empty)
	ping, own := pingFrame(0, "12345678"), hidden(ack)
	for name, tt := range map[string]struct {
		sizes      []uint32
		sent, seen []byte // by the client, and by the server
		acks       int    // that are written
	}{
		"none":                  {nil, ack, ack, 0},
		"one":                   {[]uint32{1}, slices.Concat(ack, ping, ack, ping), slices.Concat(ack, ping, hidden(ack), ping), 0},
		"two":                   {[]uint32{1, 2}, slices.Concat(ack, ack, ack), slices.Concat(ack, hidden(ack), hidden(ack)), 0},
		"one ACK too many":      {[]uint32{1}, slices.Concat(ack, ack, ack), slices.Concat(ack, hidden(ack), ack), 0},
		"SETTINGS in between":   {[]uint32{1}, slices.Concat(ack, testSettings, ack), slices.Concat(ack, testSettings, hidden(ack)), 0},
		"empty ones":            {[]uint32{1}, slices.Concat(ack, empty, ack, empty), slices.Concat(ack, hidden(empty), hidden(ack), empty), 1},
		"a frame of that type":  {[]uint32{1}, slices.Concat(ack, own, ack, own), slices.Concat(ack, own, hidden(ack), own), 0},
		"DATA that looks alike": {[]uint32{1}, slices.Concat(ack, AppendFrame(nil, http2.FrameData, 0, ack), ack), slices.Concat(ack, AppendFrame(nil, http2.FrameData, 0, ack), hidden(ack)), 0},
	} {
		sent, want := slices.Concat(start, tt.sent), slices.Concat(start, tt.seen)
		for step := 1; step <= len(sent); step++ {
			synctest.Test(t, func(t *testing.T) {
				inner := &wireConn{}
				c, track := newTracked(inner, Options{NetHTTP: true})
				if _, err := c.Write(testSettings); err != nil {
					t.Fatal(err)
				}
				for _, size := range tt.sizes {
					track.SetInitialWindow(size)
					synctest.Wait()
				}
				inner.wrote.Reset()
				var seen []byte
				for piece := range slices.Chunk(bytes.Clone(sent), step) {
					seen = append(seen, piece[:track.Follow(piece)]...)
				}
				synctest.Wait()
				if !bytes.Equal(seen, want) {
					t.Errorf("%s, reads of %d bytes: the server sees %x, want %x", name, step, seen, want)
				}
				if acks := bytes.Repeat(ack, tt.acks); !bytes.Equal(inner.wrote.Bytes(), acks) {
					t.Errorf("%s, reads of %d bytes: %x is written, want %x", name, step, inner.wrote.Bytes(), acks)
				}
			})
		}
	}
}
